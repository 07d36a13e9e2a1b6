"""A small PKI as data: what hypothesis draws, what is built of it, and the text that rebuilds it.

Entities (a name and a key) certify each other; every certificate is an edge between two of
them. A self-signed certificate is the edge from an entity to itself.
"""

import functools
from dataclasses import dataclass
from typing import cast

from hypothesis.vendor.pretty import RepresentationPrinter

from tests.lab import Issued, Options, authority
from tests.lab.keys import KeyKind

STRANGER = -1
"""In place of an entity's number: who signs certificates with the wrong key."""

CA_FAULTS: dict[str, Options] = {
    "expired": {"expired": True},
    "not yet valid": {"not_yet_valid": True},
    "no CA": {"ca": False},
    "no basic constraints": {"basic_constraints": False},
    "no basic constraints, no key usage": {"basic_constraints": False, "key_usage": None},
    "may not sign certificates": {"key_usage": ["crl_sign"]},
    "path length 0": {"path_length": 0},
    "excluded": {"excluded": ["127.0.0.0/8"]},
    "permitted": {"permitted": ["10.0.0.0/8"]},
    "for clients": {"extended_key_usage": ["clientAuth"]},
    "SHA-1": {"digest": "sha1"},
    "false identifier": {"subject_key_identifier": b"false"},
    "wrong key": {},
}
CA_LIMITS: dict[str, Options] = {
    "path length 1": {"path_length": 1},
    "permitted here": {"permitted": ["127.0.0.0/8"]},
    "excluded elsewhere": {"excluded": ["10.0.0.0/8"]},
}
"""What is no fault by itself, and harms some paths or none."""
LEAF_FAULTS: dict[str, Options] = {
    "expired": {"expired": True},
    "not yet valid": {"not_yet_valid": True},
    "for clients": {"extended_key_usage": ["clientAuth"]},
    "another host": {"hosts": ["127.0.0.2"]},
    "SHA-1": {"digest": "sha1"},
    "RSA 1024": {"key": "rsa1024"},
    "wrong key": {},
}


@dataclass(frozen=True)
class Entity:
    """Who issues certificates and is certified: two may have the same name, or not."""

    number: int
    name: str
    key: KeyKind = "ec256"

    @property
    def variable(self) -> str:
        return f"e{self.number}"

    def text(self) -> str:
        key = "" if self.key == "ec256" else f", key={self.key!r}"
        return f"{self.variable} = authority({self.name!r}{key})"

    def build(self) -> Issued:
        return _entity(self.number, self.name, self.key)


@functools.lru_cache(maxsize=1024)
def _entity(_number: int, name: str, key: KeyKind) -> Issued:
    return authority(name, key=key)


@dataclass(frozen=True)
class Edge:
    """A certificate for `subject` (None: the leaf) from `issuer`, with at most one fault or
    limit."""

    subject: Entity | None
    issuer: Entity
    fault: str | None = None
    identifiers: bool = True
    """Whether it has a subject and an authority key identifier."""
    copy: int = 0
    """Edges that differ in nothing else are different certificates."""

    @property
    def signer(self) -> int:
        """The number of the entity that has signed it."""
        return STRANGER if self.fault == "wrong key" else self.issuer.number

    @property
    def name(self) -> str:
        return self.subject.name if self.subject else "Leaf"

    @property
    def _options(self) -> Options:
        faults = CA_FAULTS | CA_LIMITS if self.subject else LEAF_FAULTS
        options: Options = {"ca": True} if self.subject else {}
        if not self.identifiers:
            options |= {"subject_key_identifier": False, "authority_key_identifier": False}
        return options | (faults[self.fault] if self.fault else {})

    def text(self) -> str:
        words = [repr(self.name)]
        if self.subject:
            words.append(f"key={self.subject.variable}")
        words += [f"{name}={value!r}" for name, value in self._options.items()]
        if self.fault == "wrong key":
            words.append("signed_by=stranger")
        return f"{self.issuer.variable}.issue({', '.join(words)})"

    def build(self) -> Issued:
        return _issue(self)


@functools.lru_cache(maxsize=8192)
def _issue(edge: Edge) -> Issued:
    options = dict(edge._options)
    if edge.subject:
        options["key"] = edge.subject.build()
    elif "key" not in options:
        options["key"] = _entity(0, "Leaf", "ec256")
    elif edge.fault == "RSA 1024":
        options["key"] = _entity(0, "Leaf", "rsa1024")
    if edge.fault == "wrong key":
        options["signed_by"] = _entity(STRANGER, "Stranger", "ec256")
    return edge.issuer.build().issue(edge.name, **cast(Options, options))


@dataclass(frozen=True, repr=False)
class Pki:
    """Who there is, what they have certified, and who has which certificate.

    The numbers are those of `edges`. The server presents the leaf and then `presented`. The
    representation is Python that makes the PKI again: it is what a failing test prints.
    """

    entities: tuple[Entity, ...]
    leaf: Edge
    edges: tuple[Edge, ...]
    trusted: tuple[int, ...]
    presented: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    fetched: tuple[int, ...] = ()

    def build(self) -> "Built":
        edges = [edge.build() for edge in self.edges]
        return Built(
            self.leaf.build(),
            tuple(edges),
            trusted=tuple(edges[number] for number in self.trusted),
            presented=tuple(edges[number] for number in self.presented),
            known=tuple(edges[number] for number in self.known),
            fetched=tuple(edges[number] for number in self.fetched),
        )

    def __repr__(self) -> str:
        lines = ["", "from tests.lab import authority", "", "stranger = authority('Stranger')"]
        lines += [entity.text() for entity in self.entities]
        lines += [f"c{number} = {edge.text()}" for number, edge in enumerate(self.edges)]
        lines += [f"leaf = {self.leaf.text()}"]
        for name in ("trusted", "presented", "known", "fetched"):
            numbers = getattr(self, name)
            lines.append(f"{name} = [{', '.join(f'c{number}' for number in numbers)}]")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        printer.text(f"...\n{self!r}\n")


@dataclass(frozen=True)
class Built:
    """The certificates of a PKI. `edges` are in the order of `Pki.edges`."""

    leaf: Issued
    edges: tuple[Issued, ...]
    trusted: tuple[Issued, ...]
    presented: tuple[Issued, ...] = ()
    known: tuple[Issued, ...] = ()
    fetched: tuple[Issued, ...] = ()
