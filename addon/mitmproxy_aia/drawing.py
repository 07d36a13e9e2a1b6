"""What a person is shown of a chain: which certificate was sent, which one was forgotten and
where it was found, from the leaf to the trust anchor. Pure.

Each state has its own words, so that no reader depends on a colour or a symbol.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mitmproxy_aia import costs
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources import Found

MAX_ROWS = 12
"""Of a path that could not be verified; a stranger decides how long it is."""
MAX_UNUSED = 8
"""Certificates that are named as sent for nothing. The others are counted."""
MAX_MILLISECONDS = 2.0
"""That a signature may take to be verified, only to draw the right one of several."""
MAX_PLACE = 500
"""Characters of a URL."""

_EXPECTED = re.compile(r"unable to (get|verify)|self.signed|$")
"""How OpenSSL says that an issuer is missing or not trusted."""


class State(enum.StrEnum):
    """What became of one certificate. The values are names of CSS classes."""

    SENT = "sent"
    FOUND = "found"
    ANCHOR = "anchor"
    MISSING = "missing"
    UNTRUSTED = "untrusted"


LABELS: Mapping[State, str] = {
    State.SENT: "Sent",
    State.FOUND: "Not sent",
    State.ANCHOR: "Trusted",
    State.MISSING: "Missing",
    State.UNTRUSTED: "Not trusted",
}

Places = Mapping[Certificate, Found]


@dataclass(frozen=True)
class Row:
    """One station of a path. `words` say what became of it, and `place` follows them: where it
    was first found, a URL, a file or a server, as text. `cache` is where it was remembered
    since, if so. There is no `certificate` where it is missing. `reached` is False where the
    path was given up for another reason than what the row's state says."""

    state: State
    role: str
    name: str
    words: str
    place: str = ""
    cache: str = ""
    certificate: Certificate | None = None
    reached: bool = True

    @property
    def label(self) -> str:
        """The state in one or two words."""
        return LABELS[self.state] if self.reached else "Not reached"

    @property
    def valid_until(self) -> str:
        """The day, or nothing."""
        return f"{self.certificate.not_after:%Y-%m-%d}" if self.certificate else ""


@dataclass(frozen=True)
class Drawing:
    """`rows` go from the leaf to the trust anchor, or to where the path ends. `unused` are the
    names of what the server sent for nothing. `fault` is OpenSSL's word for why there is no
    path, if it is another than a missing or a strange issuer."""

    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()
    fault: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong, and what was done about it, for people."""
        forgotten = [row for row in self.rows if row.state is State.FOUND]
        if forgotten and self.complete:
            names = _listed([row.name for row in forgotten])
            what = "an intermediate" if len(forgotten) == 1 else f"{len(forgotten)} intermediates"
            return f"The server forgot {what}, {names}."
        last = self.rows[-1]
        if self.fault:
            return f"The chain was not accepted: {self.fault}."
        if last.state is State.ANCHOR:
            return "The server sent all that is needed, but also what leads astray."
        if last.state is State.UNTRUSTED:
            return f"The chain leads to {last.name}, which is not trusted here."
        return f"The issuer {last.name} is missing."

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """What the server should send, leaf first, without the trust anchor. Of a path that was
        not verified, what is known of it."""
        certificates = [row.certificate for row in self.rows if row.certificate is not None]
        roots = [
            row.certificate for row in self.rows[1:] if row.state in (State.ANCHOR, State.UNTRUSTED)
        ]
        return tuple(each for each in certificates if each not in roots)

    @property
    def ends_with_a_stranger(self) -> bool:
        """Whether all that is wrong is that it ends with who is missing, or not trusted."""
        return self.rows[-1].state in (State.MISSING, State.UNTRUSTED) and not self.fault

    @property
    def complete(self) -> bool:
        """Whether `chain` is all that the server should send."""
        return self.rows[-1].state is State.ANCHOR


def draw(
    presented: Sequence[Certificate],
    path: Sequence[Certificate] = (),
    found: Iterable[Found] = (),
    reason: str = "",
) -> Drawing:
    """Draws what came of the chain that a server has presented, leaf first and at least that.

    `path` is the verified one, leaf to trust anchor; if it is empty, the chain was not accepted.
    `found` is what is known beyond the presented chain, and `reason` is why it was not accepted
    as `Outcome.reason` says it.
    """
    places = {item.certificate: item for item in reversed([*found])}
    fault = "" if path or _EXPECTED.match(reason) else reason.partition(" (")[0]
    rows = _verified(presented, path, places) if path else _followed(presented, places)
    if fault:
        words = "what is below it was not accepted"
        rows[-1] = dataclasses.replace(rows[-1], words=words, place="", cache="", reached=False)
    drawn = {row.certificate for row in rows}
    unused = [each for each in dict.fromkeys(presented) if each not in drawn]
    names = [each.name for each in unused[:MAX_UNUSED]]
    if len(unused) > MAX_UNUSED:
        names.append(f"and {len(unused) - MAX_UNUSED} more")
    return Drawing(tuple(rows), tuple(names), fault)


def _verified(
    presented: Sequence[Certificate], path: Sequence[Certificate], places: Places
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


def _followed(presented: Sequence[Certificate], places: Places) -> list[Row]:
    """From the leaf upwards, as far as there are issuers."""
    if not presented:
        return [Row(State.MISSING, "leaf", "(no certificate)", "nothing was sent")]
    known = list(dict.fromkeys([*presented, *places]))
    current, rows = presented[0], list[Row]()
    # An issuer may have the same name: whoever makes their own certificates often calls all alike.
    while not current.self_signed:
        rows.append(_known(current, _role(len(rows)), current in presented, places))
        known.remove(current)
        above = _issuer(current, known)
        if above is None or len(rows) >= MAX_ROWS:
            words = "and so on: not all is drawn" if above else "not sent, and not found"
            return [*rows, Row(State.MISSING, "issuer", current.issuer_name, words)]
        current = above
    last = _known(current, "root", current in presented, places)
    words = f"not in the trust store; {last.words.removeprefix('not sent; ')}"
    if not rows:
        words = "its own issuer, and not in the trust store"
    role = last.role if rows else "leaf"
    return [*rows, dataclasses.replace(last, state=State.UNTRUSTED, role=role, words=words)]


def _issuer(certificate: Certificate, known: Sequence[Certificate]) -> Certificate | None:
    """Whoever has signed `certificate`; if nobody has, one with the right name is worth showing."""
    named = [each for each in known if each.subject == certificate.issuer and each != certificate]
    if len(named) < 2:
        return next(iter(named), None)
    # A server may send a hundred of one name, and each signature takes its time.
    cheap = (each for each in named[:MAX_ROWS] if costs.milliseconds([each]) <= MAX_MILLISECONDS)
    signers = (each for each in cheap if certificate.is_signed_by(each))
    return next(signers, named[0])


def _known(certificate: Certificate, role: str, sent: bool, places: Places) -> Row:
    if sent:
        return Row(
            State.SENT, role, certificate.name, "sent by the server", certificate=certificate
        )
    words, place, cache = "not sent; found", "", ""
    if (found := places.get(certificate)) is not None:
        words = f"not sent; found {'in' if found.at_hand else 'at'}"
        place, cache = printable(found.origin, MAX_PLACE), printable(found.cache)
    return Row(State.FOUND, role, certificate.name, words, place, cache, certificate)


def _role(index: int) -> str:
    return "leaf" if index == 0 else "intermediate"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
