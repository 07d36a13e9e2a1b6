"""What a person is shown of a chain: which certificate was sent, which one was forgotten and
where it was found, from the leaf to the trust anchor. Pure.

Each state has its own words, so that no reader depends on a colour or a symbol.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mitmproxy_aia.certificates import Certificate, printable
from mitmproxy_aia.sources import Found

MAX_ROWS = 12
"""Of a path that could not be verified; a stranger decides how long it is."""
MAX_UNUSED = 8
"""Certificates that are named as sent for nothing. The others are counted."""
MAX_PLACE = 500
"""Characters of a URL."""


class State(enum.StrEnum):
    """What became of one certificate. The values are names of CSS classes."""

    SENT = "sent"
    FOUND = "found"
    ANCHOR = "anchor"
    MISSING = "missing"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True)
class Row:
    """One station of a path. `words` say what became of it, and `place` is where it was found:
    a URL, a file or a server, as text. There is no `certificate` where it is missing."""

    state: State
    role: str
    name: str
    words: str
    place: str = ""
    certificate: Certificate | None = None

    @property
    def valid_until(self) -> str:
        """The day, or nothing."""
        return f"{self.certificate.not_after:%Y-%m-%d}" if self.certificate else ""


@dataclass(frozen=True)
class Drawing:
    """`rows` go from the leaf to the trust anchor, or to where the path ends. `unused` are the
    names of what the server sent for nothing."""

    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What is wrong, and what was done about it, for people."""
        forgotten = [row for row in self.rows if row.state is State.FOUND]
        if forgotten and self.complete:
            names = _listed([row.name for row in forgotten])
            what = "an intermediate" if len(forgotten) == 1 else f"{len(forgotten)} intermediates"
            return f"The server forgot {what}, {names}."
        last = self.rows[-1]
        if last.state is State.ANCHOR:
            return "The server sent all that is needed, but also what leads astray."
        if last.state is State.UNTRUSTED:
            return f"The chain leads to {last.name}, which is not trusted here."
        return f"The issuer {last.name} is missing."

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """What the server should send, leaf first, without the trust anchor. Of a path that was
        not verified, what is known of it."""
        return tuple(
            row.certificate
            for row in self.rows
            if row.certificate is not None and row.state in (State.SENT, State.FOUND)
        )

    @property
    def complete(self) -> bool:
        """Whether `chain` is all that the server should send."""
        return self.rows[-1].state is State.ANCHOR


def draw(
    presented: Sequence[Certificate],
    path: Sequence[Certificate] = (),
    found: Iterable[Found] = (),
) -> Drawing:
    """Draws what came of the chain that a server has presented, leaf first and at least that.

    `path` is the verified one, leaf to trust anchor; if it is empty, the chain was not accepted.
    `found` is what is known beyond the presented chain.
    """
    places = {item.certificate: item.place for item in reversed([*found])}
    rows = _verified(presented, path, places) if path else _followed(presented, places)
    drawn = {row.certificate for row in rows}
    unused = [each for each in dict.fromkeys(presented) if each not in drawn]
    names = [each.name for each in unused[:MAX_UNUSED]]
    if len(unused) > MAX_UNUSED:
        names.append(f"and {len(unused) - MAX_UNUSED} more")
    return Drawing(tuple(rows), tuple(names))


def _verified(
    presented: Sequence[Certificate], path: Sequence[Certificate], places: dict[Certificate, str]
) -> list[Row]:
    rows = [
        _known(certificate, _role(index), certificate in presented, places)
        for index, certificate in enumerate(path[:-1])
    ]
    anchor = path[-1]
    words = "in the trust store"
    if anchor in presented:
        words += ", and sent for nothing" if len(path) > 1 else ", and sent"
    return [*rows, Row(State.ANCHOR, "trust anchor", anchor.name, words, certificate=anchor)]


def _followed(presented: Sequence[Certificate], places: dict[Certificate, str]) -> list[Row]:
    """From the leaf upwards, as far as there are issuers."""
    known = list(dict.fromkeys([*presented, *places]))
    current, rows = presented[0], list[Row]()
    while True:
        sent = current in presented
        above = None if current.self_issued else _issuer(current, known)
        if current.self_issued and rows:
            told = "sent, but not in the trust store" if sent else "not in the trust store"
            rows.append(
                Row(
                    State.UNTRUSTED,
                    "root",
                    current.name,
                    told,
                    "" if sent else _place(current, places),
                    current,
                )
            )
            return rows
        rows.append(_known(current, _role(len(rows)), sent, places))
        known.remove(current)
        if above is None or len(rows) >= MAX_ROWS:
            break
        current = above
    if current.self_issued:
        words = "is its own issuer, and not in the trust store"
        return [Row(State.UNTRUSTED, "leaf", current.name, words, certificate=current)]
    words = "not sent, and not found" if above is None else "and so on: not all is drawn"
    return [*rows, Row(State.MISSING, "issuer", current.issuer_name, words)]


def _issuer(certificate: Certificate, known: Sequence[Certificate]) -> Certificate | None:
    """Whoever has signed `certificate`; if nobody has, one with the right name is worth showing."""
    named = [each for each in known if each.subject == certificate.issuer and each != certificate]
    # A server may send a hundred of one name, and each signature takes its time.
    signers = (each for each in named[:MAX_ROWS] if certificate.is_signed_by(each))
    return next(signers, named[0] if named else None)


def _known(certificate: Certificate, role: str, sent: bool, places: dict[Certificate, str]) -> Row:
    if sent:
        return Row(State.SENT, role, certificate.name, "sent by the server", "", certificate)
    place = _place(certificate, places)
    return Row(State.FOUND, role, certificate.name, "not sent; found", place, certificate)


def _role(index: int) -> str:
    return "leaf" if index == 0 else "intermediate"


def _place(certificate: Certificate, places: dict[Certificate, str]) -> str:
    return printable(places.get(certificate, ""), MAX_PLACE)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
