"""What came of a soak: whether it is as promised, a table to read, and JSON. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.load import Tally
from tests.soak.sites import Kind
from tests.soak.watch import Memory

TOLERANCE = 0.04
"""The share of its memory by which two runs of the same proxy differ."""
BUSY = 3.0
"""Seconds, which stock mitmproxy exceeds for one request in a hundred only on a machine that has
too much else to do. What the addon answers then is about that machine."""
KINDS = {
    Kind.COMPLETE: "complete",
    Kind.INCOMPLETE: "incomplete",
    Kind.FRESH: "incomplete, a new one each time",
    Kind.BROKEN: "broken",
    Kind.HOSTILE: "hostile",
}


@dataclass(frozen=True)
class Side:
    """What came of the load on one proxy. `memory` is what was in use at each of the shares of
    the run, `peak` the highest RSS in MiB, `objects` are its Python objects by type, early and
    late, and `left` are tasks, threads and files at the end that were not there before."""

    tally: Tally
    memory: Sequence[Memory]
    peak: float
    objects: tuple[Counter[str], Counter[str]]
    left: Mapping[str, Sequence[str]]
    errors: Sequence[str]


@dataclass(frozen=True)
class Result:
    minutes: float
    rate: float
    shares: Sequence[float]
    servers: Mapping[Kind, int]
    addon: Side
    stock: Side
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def broken_promises(self) -> list[str]:
        """In words; empty if all is as promised."""
        return [*_of_addon(self.addon), *_of_stock(self.stock), *self._of_both()]

    def _of_both(self) -> Iterator[str]:
        allowed = max(_growth(self.stock), 0.0) + TOLERANCE * self.addon.memory[0].rss
        if _growth(self.addon) > allowed:
            yield (
                f"memory grew by {_growth(self.addon):.1f} MiB, and by {_growth(self.stock):.1f} "
                f"without the addon"
            )
        for fault, times in self.faults.items():
            if not times:
                yield f"the run was too short for a fault: {fault}"


def _of_addon(side: Side) -> Iterator[str]:
    for kind in Kind:
        if not side.tally.requests[kind]:
            yield f"no request was made to a server that is {kind.value}"
        if wrong := side.tally.wrong[kind]:
            yield f"{wrong} wrong answers for servers that are {kind.value}"
        if errors := side.tally.errors[kind]:
            yield f"{errors} unexpected errors for servers that are {kind.value}"
    for what, names in side.left.items():
        if names:
            yield f"{len(names)} {what} were left: {', '.join(names[:5])}"
    if side.errors:
        yield f"errors were logged, the first: {side.errors[0]}"


def _of_stock(side: Side) -> Iterator[str]:
    """Where the comparison is no good, nothing is shown."""
    if wrong := side.tally.wrong.total() + side.tally.errors.total():
        yield f"stock mitmproxy gave {wrong} answers that do not fit the servers"
    if (slowest := _seconds(side, 0.99)) > BUSY:
        yield (
            f"stock mitmproxy took {slowest:.1f} s for a complete server: the machine is too busy "
            f"for this to say anything"
        )


def table(result: Result) -> str:
    """For people."""
    addon, stock = result.addon, result.stock
    total = addon.tally.requests.total()
    lines = [
        f"{result.minutes:g} minutes, {sum(result.servers.values())} servers, {total:,} requests "
        f"({result.rate:g} a second), and the same through stock mitmproxy",
        "",
        f"{'servers that are':<34}{'servers':>9}{'requests':>10}{'wrong':>7}{'errors':>8}",
    ]
    for kind, name in KINDS.items():
        counted = (result.servers[kind], addon.tally.requests[kind])
        faults = (addon.tally.wrong[kind], addon.tally.errors[kind])
        lines.append(f"{name:<34}{counted[0]:>9,}{counted[1]:>10,}{faults[0]:>7,}{faults[1]:>8,}")
    lines.append(f"{'clients that went away':<34}{'':>9}{addon.tally.gone:>10,}")
    lines += ["", f"{'':<34}{'addon':>13}{'stock':>13}"]
    rows: list[tuple[str, str, str]] = [
        *(
            (f"memory in use at {share:.0%}, MiB (PSS)", _memory(ours), _memory(theirs))
            for share, ours, theirs in zip(result.shares, addon.memory, stock.memory, strict=True)
        ),
        ("growth", f"{_growth(addon):+.1f}", f"{_growth(stock):+.1f}"),
        ("highest RSS under load", f"{addon.peak:.1f}", f"{stock.peak:.1f}"),
        ("Python objects at the first", _total(addon, 0), _total(stock, 0)),
        ("Python objects at the last", _total(addon, 1), _total(stock, 1)),
        ("tasks left", _left(addon, "tasks"), _left(stock, "tasks")),
        ("threads left", _left(addon, "threads"), _left(stock, "threads")),
        ("open files left", _left(addon, "files"), _left(stock, "files")),
        ("errors logged", str(len(addon.errors)), str(len(stock.errors))),
        ("a complete server, median ms", _quantile(addon, 0.5), _quantile(stock, 0.5)),
        ("a complete server, 99 % ms", _quantile(addon, 0.99), _quantile(stock, 0.99)),
    ]
    lines += [f"{name:<34}{ours:>13}{theirs:>13}" for name, ours, theirs in rows]
    lines += ["", "faults meanwhile:"]
    lines += [f"{times:>5} x {fault}" for fault, times in result.faults.items()]
    lines += ["", "as promised" if not result.broken_promises else "NOT AS PROMISED:"]
    lines += [f"  {promise}" for promise in result.broken_promises]
    lines += [f"  {problem}" for problem in addon.tally.problems]
    return "\n".join(lines)


def as_json(result: Result) -> dict[str, object]:
    """All of it, for programs."""
    return {
        "minutes": result.minutes,
        "rate": result.rate,
        "broken_promises": result.broken_promises,
        "servers": {kind.value: number for kind, number in result.servers.items()},
        "faults": dict(result.faults),
        "shares": list(result.shares),
        "addon": _side_as_json(result.addon),
        "stock": _side_as_json(result.stock),
    }


def _side_as_json(side: Side) -> dict[str, object]:
    tally = side.tally
    return {
        "requests": {kind.value: tally.requests[kind] for kind in Kind},
        "wrong": {kind.value: tally.wrong[kind] for kind in Kind},
        "errors": {kind.value: tally.errors[kind] for kind in Kind},
        "problems": tally.problems,
        "went_away": tally.gone,
        "rss_mib": [each.rss for each in side.memory],
        "pss_mib": [each.pss for each in side.memory],
        "peak_rss_mib": side.peak,
        "objects": [each.total() for each in side.objects],
        "more_objects": dict((side.objects[1] - side.objects[0]).most_common(12)),
        "left": {what: list(names) for what, names in side.left.items()},
        "logged_errors": list(side.errors),
        "complete_ms": {"median": _quantile(side, 0.5), "99 %": _quantile(side, 0.99)},
    }


def _growth(side: Side) -> float:
    return side.memory[-1].rss - side.memory[0].rss


def _memory(memory: Memory) -> str:
    return f"{memory.rss:.1f} ({memory.pss:.1f})"


def _total(side: Side, when: int) -> str:
    return f"{side.objects[when].total():,}"


def _left(side: Side, what: str) -> str:
    return str(len(side.left.get(what, ())))


def _quantile(side: Side, share: float) -> str:
    return f"{_seconds(side, share) * 1000:.0f}"


def _seconds(side: Side, share: float) -> float:
    """Which this share of the requests to complete servers took at most."""
    seconds = sorted(side.tally.seconds) or [0.0]
    if share == 0.5:
        return statistics.median(seconds)
    return seconds[int((len(seconds) - 1) * share)]
