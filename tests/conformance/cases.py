"""The matrix: graphs x who is trusted x which certificates are bad x why x how presented."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.conformance.graphs import GRAPHS, LEAF, NOBODY, Edge, Graph


class Reason(StrEnum):
    """What is wrong with a certificate. OpenSSL refuses every path that it is part of."""

    EXPIRED = "expired"
    NAME_CONSTRAINTS = "name-constraints"
    NO_SERVER_AUTH = "no-server-auth"
    NO_BASIC_CONSTRAINTS = "no-basic-constraints"
    NOT_A_CA = "not-a-ca"
    SHA1 = "sha1"


FAULTS_OF_A_LEAF = (Reason.EXPIRED, Reason.NO_SERVER_AUTH, Reason.SHA1)
"""The others are none: a leaf is no CA, and need not be."""


class Way(StrEnum):
    """How the certificates are presented: what the server sends with its leaf, in which
    order, and where the rest is."""

    UPWARDS = "sent-upwards"
    DOWNWARDS = "sent-downwards"
    BAD_FIRST = "sent-bad-first"
    SHUFFLED = "sent-shuffled"
    WITH_ROOTS = "sent-with-roots"
    LOCAL = "local"
    AIA_BUNDLES = "aia-bundles"
    AIA_SINGLE = "aia-single"
    BAD_SENT = "bad-sent-rest-aia"


class Elsewhere(StrEnum):
    LOCAL = "local"
    """In the proxy's memory."""
    BUNDLES = "bundles"
    """At caIssuers URLs: each certificate names one, where all of its issuer's are."""
    SINGLE = "single"
    """The same, with one URL for each of its issuer's certificates."""


@dataclass(frozen=True)
class Case:
    """One row of the matrix. `bad` is empty if and only if `reason` is None."""

    graph: Graph
    trusted: tuple[str, ...]
    bad: tuple[Edge, ...]
    reason: Reason | None
    way: Way

    @property
    def id(self) -> str:
        trusted = "+".join(self.trusted) or "nobody"
        bad = "+".join(map(str, self.bad)) or "nothing"
        return f"{self.graph}-trust:{trusted}-bad:{bad}-{self.reason or 'good'}-{self.way}"

    @property
    def valid(self) -> bool:
        """The verdict that is right."""
        return self.graph.is_valid(self.trusted, self.bad)

    @property
    def sent(self) -> tuple[Edge, ...]:
        """The intermediates that the server presents, in this order."""
        upwards = _upwards(self.graph)
        match self.way:
            case Way.UPWARDS | Way.WITH_ROOTS:
                return upwards
            case Way.DOWNWARDS:
                return upwards[::-1]
            case Way.BAD_FIRST:
                return tuple(sorted(upwards, key=lambda edge: edge not in self.bad))
            case Way.SHUFFLED:
                return tuple(sorted(upwards, key=self._shuffle))
            case Way.BAD_SENT:
                return tuple(edge for edge in upwards if edge in self.bad)
            case _:
                return ()

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where the certificates are that the server does not send."""
        match self.way:
            case Way.LOCAL:
                return Elsewhere.LOCAL
            case Way.AIA_SINGLE:
                return Elsewhere.SINGLE
            case Way.AIA_BUNDLES | Way.BAD_SENT:
                return Elsewhere.BUNDLES
            case _:
                return None

    @property
    def sends_roots(self) -> bool:
        """Whether the server sends the roots' self-signed certificates, too."""
        return self.way is Way.WITH_ROOTS

    def _shuffle(self, edge: Edge) -> bytes:
        return hashlib.sha256(f"{self.id} {edge}".encode()).digest()

    def drawing(self) -> str:
        """The graph as text, with all that is special about this case."""
        lines = [f"{self.id}: {'valid' if self.valid else 'not valid'}"]
        for root in self.graph.roots:
            lines.append(f"  {root}{' (trusted)' if root in self.trusted else ''}")
        sent = self.sent
        for edge in self.graph.edges:
            notes = [str(self.reason)] if edge in self.bad else []
            notes += [f"sent as {sent.index(edge) + 1}"] if edge in sent else []
            lines.append(f"  {edge.issuer} --> {edge.subject}  {', '.join(notes)}".rstrip())
        for path in self.graph.paths(self.trusted):
            faults = "".join(f", {edge} is bad" for edge in path if edge in self.bad)
            names = " > ".join([path[0].issuer, *(edge.subject for edge in path)])
            lines.append(f"  path {names}{faults}")
        return "\n".join(lines)


def matrix() -> tuple[Case, ...]:
    """All cases, each once."""
    return tuple(case for graph in GRAPHS for case in _different(thinned(graph)))


def thinned(graph: Graph) -> Iterator[Case]:
    """Of a graph with `thinning` n, every nth case that has a bad certificate: for each who,
    which and why, every nth way of presenting, beginning with another one each time, so that
    any two of the four still meet."""
    for who, trusted in enumerate(graph.trusts):
        for way in Way:
            yield Case(graph, trusted, (), None, way)
        if trusted == NOBODY:
            continue  # Never valid, so one is as good as many.
        for which, bad in enumerate((*((edge,) for edge in graph.edges), *graph.cuts)):
            for why, reason in enumerate(FAULTS_OF_A_LEAF if graph.leaf in bad else Reason):
                for how, way in enumerate(Way):
                    if (who + which + why + how) % graph.thinning == 0:
                        yield Case(graph, trusted, bad, reason, way)


def _different(cases: Iterable[Case]) -> Iterator[Case]:
    """Without those that are as one before: two certificates have only two orders."""
    seen = set()
    for case in cases:
        same = case.trusted, case.bad, case.reason, case.sent, case.elsewhere, case.sends_roots
        if same not in seen:
            seen.add(same)
            yield case


def _upwards(graph: Graph) -> tuple[Edge, ...]:
    """The intermediates in the order in which a server should send them: the leaf's issuers
    first, then the issuers of those, and so on."""
    found: dict[Edge, None] = {}
    subjects = deque([LEAF])
    while subjects:
        subject = subjects.popleft()
        for edge in graph.edges:
            if edge.subject == subject and edge not in found:
                found[edge] = None
                subjects.append(edge.issuer)
    return tuple(edge for edge in found if edge.subject != LEAF)
