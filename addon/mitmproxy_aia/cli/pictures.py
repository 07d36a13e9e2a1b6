"""What a person sees of an inspection: the verdict, the path as a picture, and what to do."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from mitmproxy_aia import errors
from mitmproxy_aia.cli.terminal import (
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    Column,
    Line,
    columns_of,
    count,
    fit,
    paint,
    table,
)
from mitmproxy_aia.drawing import Row, State
from mitmproxy_aia.inspection.results import (
    NAME_FAULTS,
    Inspection,
    Link,
    Result,
    Verdict,
    names_of,
)
from mitmproxy_aia.names import one_line
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.remedies import remedies

WIDTH = 79
"""Columns: some terminals begin a new line when the 80th is filled."""
MOST_FAULTS = 6

_INDENT = "  "
_LABEL = 12
_COLOURS = {
    Verdict.COMPLETE: GREEN,
    Verdict.INCOMPLETE: YELLOW,
    Verdict.BROKEN: RED,
    Verdict.UNREACHABLE: RED,
}
WORDS = {
    Verdict.COMPLETE: "complete",
    Verdict.INCOMPLETE: "INCOMPLETE",
    Verdict.BROKEN: "BROKEN",
    Verdict.UNREACHABLE: "NOT CHECKED",
}
"""What a verdict is called."""
_STATES = {
    State.SENT: ("sent", GREEN, "●", "*"),
    State.FOUND: ("FORGOTTEN", YELLOW, "○", "o"),
    State.ANCHOR: ("trusted", GREEN, "◆", "#"),
    State.MISSING: ("MISSING", RED, "✗", "x"),
    State.UNTRUSTED: ("UNTRUSTED", RED, "✗", "x"),
}
_LABELS_WIDTH = 10


@dataclass(frozen=True)
class Pen:
    """Writes for `stream`: in colour if it is a terminal, and only with what it can encode."""

    stream: TextIO

    @property
    def drawn(self) -> bool:
        """Whether there is more than ASCII to draw with."""
        try:
            "●○◆✗│".encode(self.stream.encoding or "ascii")
        except (LookupError, UnicodeEncodeError):
            return False
        return True

    def paint(self, text: str, colour: str) -> str:
        return paint(text, colour, self.stream)

    def fact(self, label: str, text: str, colour: str = "") -> Iterator[str]:
        """`text` beside its label, wrapped. Words that are too long, as URLs are, stay whole."""
        lines = wrapped(text, WIDTH - len(_INDENT) - _LABEL)
        for position, line in enumerate(lines):
            head = label if position == 0 else ""
            yield f"{_INDENT}{head:{_LABEL}}{self.paint(line, colour)}"


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(one_line(text), width, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]


def overview(results: Sequence[Result], noun: str, stream: TextIO) -> Iterator[str]:
    """One line for each, and one for all. `noun` is what they are: "server"."""
    pen = Pen(stream)
    columns = [Column("VERDICT"), Column(noun.upper(), least=16), Column("DETAIL", least=24)]
    lines = (
        Line(
            [WORDS[result.verdict], one_line(result.name), one_line(in_short(result))],
            "" if result.verdict is Verdict.COMPLETE else _COLOURS[result.verdict],
        )
        for result in results
    )
    yield from table(columns, lines, stream)
    yield ""
    told = [
        f"{number:,} {WORDS[verdict].lower()}"
        for verdict in Verdict
        if (number := sum(result.verdict is verdict for result in results))
    ]
    yield pen.paint(f"{count(len(results), noun)}: {', '.join(told)}", BOLD)


def in_short(result: Result) -> str:
    """The gist of a result, of any length."""
    if result.inspection is None:
        return result.problem
    inspection = result.inspection
    if inspection.verdict is Verdict.BROKEN:
        return inspection.reason
    if inspection.verdict is Verdict.COMPLETE:
        return f"until {inspection.presented[0].not_after:%Y-%m-%d}"
    if not inspection.found:
        return inspection.drawing.sentence
    found = (f"{each.certificate.name} {each.home}" for each in inspection.found)
    return f"forgot {', '.join(found)}"


def picture(result: Result, trusted: str, stream: TextIO) -> Iterator[str]:
    """All of one result. `trusted` says which roots count."""
    pen = Pen(stream)
    word = WORDS[result.verdict]
    name = fit(one_line(result.name), WIDTH - len(word) - len(_INDENT)).rstrip()
    gap = " " * (WIDTH - columns_of(name) - len(word))
    yield f"{pen.paint(name, BOLD)}{gap}{pen.paint(word, f'{BOLD};{_COLOURS[result.verdict]}')}"
    if result.inspection is None:
        yield from pen.fact("Problem", result.problem, RED)
        return
    if result.link is not None:
        yield from pen.fact("Connected", _connection(result.name, result.link))
    yield from _verdicts(result.inspection, pen)
    yield ""
    yield from _path(result.inspection, pen)
    yield ""
    yield from pen.fact("Trust", trusted, DIM)


def _connection(name: str, link: Link) -> str:
    address = f"[{link.address}]" if ":" in link.address else link.address
    text = f"{address}:{link.port}, {link.tls}"
    if link.starttls:
        text += f" after STARTTLS ({link.starttls})"
    if not name.startswith(f"{link.name}:"):
        text += f", asked for {link.name}"
    return f"{text}; {link.note}" if link.note else text


def _verdicts(inspection: Inspection, pen: Pen) -> Iterator[str]:
    verdict = inspection.verdict
    if verdict is Verdict.COMPLETE:
        yield from pen.fact("As sent", "verified by OpenSSL: nothing is missing", GREEN)
        return
    outcome = inspection.outcome
    if outcome is None:
        for position, fault in enumerate(inspection.faults[:MOST_FAULTS]):
            label = "As sent" if position == 0 else ""
            yield from pen.fact(label, _fault(fault, inspection), RED)
        what = f'"{inspection.reason}"' if inspection.faults[1:] else "this"
        yield from pen.fact("Completed", f"nothing was tried: no other path could cure {what}")
        return
    yield from pen.fact("As sent", inspection.as_sent, RED)
    if verdict is Verdict.INCOMPLETE:
        yield from pen.fact("Completed", f"verified. {inspection.drawing.sentence}", GREEN)
        return
    yield from pen.fact("Completed", outcome.fault.text if outcome.fault else "no path", RED)
    for position, attempt in enumerate(dict.fromkeys(map(str, outcome.attempts))):
        yield from pen.fact("" if position else "Tried", attempt)
    for note in outcome.notes:
        yield from pen.fact("", note)


def _fault(fault: Fault, inspection: Inspection) -> str:
    leaf = inspection.presented[0]
    if fault.code in NAME_FAULTS:
        names = ", ".join(names_of(leaf)) or "no name at all"
        return f"{fault.text}: the certificate is for {names}"
    # Depths are those of the chain that OpenSSL has built, which is known if it is whole.
    if fault.depth < len(inspection.refused):
        certificate = inspection.refused[fault.depth]
        if fault.code == errors.CERT_HAS_EXPIRED:
            return f"{fault.text}: {certificate.name}, on {certificate.not_after:%Y-%m-%d}"
        if fault.code == errors.CERT_NOT_YET_VALID:
            return f"{fault.text}: {certificate.name}, from {certificate.not_before:%Y-%m-%d} on"
    return fault.text


def _path(inspection: Inspection, pen: Pen) -> Iterator[str]:
    drawing = inspection.drawing
    for position, row in enumerate(drawing.rows):
        if position:
            yield f"{_INDENT}{'':{_LABELS_WIDTH}} {'│' if pen.drawn else '|'}"
        yield from _station(row, inspection, pen)
    if drawing.unused:
        yield ""
        yield from pen.fact("Needless", ", ".join(drawing.unused) + " (sent, and not used)")


def _station(row: Row, inspection: Inspection, pen: Pen) -> Iterator[str]:
    label, colour, symbol, plain = _STATES[row.state]
    if not row.reached:
        label = "unreached"
    until = ""
    if row.certificate is not None:
        over = row.certificate.not_after < inspection.at
        until = f"{'EXPIRED' if over else 'until'} {row.valid_until}"
        colour = RED if over else colour
    mark = symbol if pen.drawn else plain
    room = WIDTH - len(_INDENT) - _LABELS_WIDTH - 3 - len(until) - len(_INDENT)
    name = fit(one_line(row.name), room)
    head = pen.paint(f"{label:{_LABELS_WIDTH}} {mark}", colour)
    yield f"{_INDENT}{head} {name}{_INDENT}{until}".rstrip()
    if words := _remark(row, inspection):
        line = " " if row.state in (State.ANCHOR, State.UNTRUSTED, State.MISSING) else "│"
        line = line if pen.drawn or line == " " else "|"
        yield f"{_INDENT}{'':{_LABELS_WIDTH}} {line} {pen.paint(one_line(words), DIM)}"


def _remark(row: Row, inspection: Inspection) -> str:
    """What there is to say of a station beyond its label; empty if nothing."""
    if row.state is State.SENT or row.words == "in the trust store":
        return ""
    if row.state is State.MISSING and inspection.outcome is None:
        return "not sent, and not looked for"
    where = f"{row.words.removeprefix('not sent; found')} {row.place}".strip()
    return f"in {row.cache}, first {where}" if row.cache else where


def what_may_help(inspection: Inspection, pen: Pen) -> Iterator[str]:
    """What to do where all that was wrong is that the chain led to no trust anchor."""
    if not inspection.lacks_trust_only:
        return
    rows = inspection.drawing.rows
    name = rows[-1].name
    below = rows[-2].certificate if len(rows) > 1 else None
    trust = (
        "--trust FILE tries another one, and mitmproxy takes it as ssl_verify_upstream_trusted_ca "
        "(in place of the public roots)."
    )
    text = f"If your browser trusts {name}, or a root above it, your trust file lacks that root: "
    # What names no URL of its issuer most often has a root above it.
    if rows[-1].state is State.MISSING and below and (len(rows) == 2 or below.ca_issuers):
        text = (
            f"Whoever issued the certificate can give you {name}: --intermediates FILE tries it, "
            "and mitmproxy takes it as aia_intermediates. If it is a root, and your browser "
            "trusts it, your trust file lacks it: "
        )
    yield ""
    yield from pen.fact("What to do", text + trust)


def advice(file: str, starttls: str, *, written: bool, pen: Pen) -> Iterator[str]:
    """What the operator of the server does, with a file of leaf and intermediates. `starttls` is
    what the server speaks before TLS, if anything."""
    name = os.path.basename(file)
    told = remedies(name, starttls=starttls)
    end = ":" if told else "."
    if written:
        text = f"{file} holds leaf and intermediates, in this order. Have the server send them{end}"
    else:
        text = (
            "Have the server send leaf and intermediates, in this order "
            f"(--fullchain {file} writes them){end}"
        )
    yield ""
    yield from pen.fact("What to do", text)
    width = max((len(remedy.server) for remedy in told), default=0) + 1
    for remedy in told:
        # The line that names the file; for HAProxy that is a command.
        line = next(each for each in remedy.lines.splitlines() if name in each)
        yield f"{_INDENT}{'':{_LABEL}}{remedy.server:{width}}{' '.join(line.lstrip('# ').split())}"
