"""Trust graphs as data, and the verdicts that follow from a graph alone.

Nodes are entities (a name and a key), edges are certificates (issuer > subject). An entity
that has two issuers is cross-certified: two certificates with one name and one key. Roots are
entities with a self-signed certificate besides, which is no edge: whoever trusts the root
starts there, for others it leads nowhere.

Nothing here knows of the code under test, of OpenSSL, or of certificates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

LEAF = "leaf"


@dataclass(frozen=True)
class Edge:
    """The certificate that `issuer` has issued to `subject`."""

    issuer: str
    subject: str

    def __str__(self) -> str:
        return f"{self.issuer}>{self.subject}"


TrustPath = tuple[Edge, ...]
"""From a trusted root down to the leaf."""


@dataclass(frozen=True)
class Graph:
    """`edges` are in the order of issuance, the leaf's certificate last. `trusts` are the
    sets of roots to be trusted, `cuts` the pairs of edges to be bad together; single ones need
    no mention. `thinning`: see `cases.matrix`."""

    name: str
    roots: tuple[str, ...]
    edges: tuple[Edge, ...]
    trusts: tuple[tuple[str, ...], ...]
    cuts: tuple[tuple[Edge, ...], ...]
    thinning: int = 1

    @property
    def leaf(self) -> Edge:
        return self.edges[-1]

    @property
    def intermediates(self) -> tuple[Edge, ...]:
        """Every certificate that is neither self-signed nor the leaf's."""
        return self.edges[:-1]

    def paths(self, trusted: tuple[str, ...]) -> Iterator[TrustPath]:
        """Every path from a trusted root to the leaf that visits no entity twice."""
        for root in trusted:
            yield from self._grow((), (root,))

    def _grow(self, path: TrustPath, visited: tuple[str, ...]) -> Iterator[TrustPath]:
        if visited[-1] == LEAF:
            yield path
        for edge in self.edges:
            if edge.issuer == visited[-1] and edge.subject not in visited:
                yield from self._grow((*path, edge), (*visited, edge.subject))

    def is_valid(self, trusted: tuple[str, ...], bad: tuple[Edge, ...]) -> bool:
        """Whether a path remains when no certificate in `bad` may be part of it.

        That is all a bad certificate means, whatever is wrong with it: the subject's other
        certificates, and a trusted root's own self-signed one, are as good as ever.
        """
        return any(not {*path} & {*bad} for path in self.paths(trusted))

    def __str__(self) -> str:
        return self.name


def edges(*texts: str) -> tuple[Edge, ...]:
    """edges("root>a", "a>leaf")"""
    return tuple(Edge(*text.split(">")) for text in texts)


NOBODY = ()
"""Trusts none of the graph's roots."""

LINE = Graph(
    "line",
    roots=("root",),
    edges=edges("root>a", "a>b", "b>leaf"),
    trusts=(("root",), NOBODY),
    cuts=(edges("root>a", "a>b"),),
)

TWO_ROOTS = Graph(
    "two-roots",
    roots=("r1", "r2"),
    edges=edges("r1>i", "r2>i", "i>leaf"),
    trusts=(("r1",), ("r2",), ("r1", "r2"), NOBODY),
    cuts=(edges("r1>i", "r2>i"),),
    thinning=2,
)

# RFC 4158, figure 7, and the "trust anchor" of that figure split into two roots:
#
#    r1     r2
#    |      |
#    a <--> c
#     \    /
#       b -- leaf
FIGURE_7 = Graph(
    "figure-7",
    roots=("r1", "r2"),
    edges=edges("r1>a", "r2>c", "a>c", "c>a", "a>b", "c>b", "b>leaf"),
    trusts=(("r1",), ("r2",), ("r1", "r2"), NOBODY),
    cuts=(
        edges("r1>a", "r2>c"),
        edges("a>b", "c>b"),
        edges("a>b", "r2>c"),
        edges("c>b", "r1>a"),
        edges("a>c", "c>a"),
    ),
    thinning=5,
)

# Enterprises r1, r2 and r3 and a bridge CA certify each other; the leaf is one of r1's.
BRIDGE = Graph(
    "bridge",
    roots=("r1", "r2", "r3"),
    edges=edges("r1>x", "r2>x", "r3>x", "x>r1", "x>r2", "x>r3", "r1>e", "e>leaf"),
    trusts=(("r1",), ("r2",), ("r3",), ("r1", "r2", "r3"), NOBODY),
    cuts=(
        edges("x>r1", "r1>x"),
        edges("x>r1", "r1>e"),
        edges("r2>x", "r3>x"),
        edges("r1>x", "r2>x"),
        edges("x>r2", "x>r3"),
    ),
    thinning=5,
)

GRAPHS = (LINE, TWO_ROOTS, FIGURE_7, BRIDGE)
