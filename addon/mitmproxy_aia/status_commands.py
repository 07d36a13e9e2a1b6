"""The commands aia.servers and aia.status, for the console UI, mitmweb and scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from mitmproxy import command, types

from mitmproxy_aia.counters import DOWNLOADS, SOURCES, Counters
from mitmproxy_aia.history import History, Record
from mitmproxy_aia.names import printable

if TYPE_CHECKING:
    from mitmproxy_aia.page.settings import Setting

MAX_CELL = 300
"""Characters of a stranger's text in a table."""


class StatusCommands:
    """`remembered` gives the number of intermediates in memory, and `settings` those in force,
    without passwords."""

    def __init__(
        self,
        history: History,
        counters: Counters,
        remembered: Callable[[], int],
        settings: Callable[[], Sequence[Setting]] = tuple,
    ) -> None:
        self._history = history
        self._counters = counters
        self._remembered = remembered
        self._settings = settings

    @command.command("aia.servers")
    def servers(self) -> types.Data:
        """The servers whose certificate chain was incomplete or broken, the last one first: what
        is missing and where it was found, or why it could not be completed."""
        # Few columns: the console gives them all the same width.
        rows = [["server", "verdict", "missing, or why it is broken", "last time (UTC)"]]
        rows += [_row(record) for record in self._history.records()]
        return cast(types.Data, rows)

    @command.command("aia.status")
    def status(self) -> types.Data:
        """What the addon has done since it was loaded, in numbers, and the settings in force."""
        rows = [["what", "value"], *map(list, self._facts())]
        rows += [
            [setting.name, setting.value or "(not set)"]
            for setting in self._settings()
            if setting.value or setting.name.startswith("aia_")
        ]
        return cast(types.Data, rows)

    def _facts(self) -> Sequence[tuple[str, str]]:
        counters, history = self._counters, self._history
        facts = [
            ("since", f"{history.started:%Y-%m-%d %H:%M:%S} UTC"),
            ("handshakes with a complete chain", f"{history.complete:,}"),
        ]
        for source in (*SOURCES, "none"):
            facts += [
                (_completion(source, outcome), f"{number:,}")
                for (asked, outcome), number in sorted(counters.completions.items())
                if asked == source
            ]
        pauses = counters.pauses
        if pauses.count:
            mean = pauses.total / pauses.count * 1000
            facts.append(("paused, in all", f"{pauses.total:.1f} s, {mean:,.0f} ms on average"))
        facts += [
            (f"downloads: {outcome}", f"{counters.downloads[outcome]:,}")
            for outcome in DOWNLOADS
            if counters.downloads[outcome] or outcome in ("ok", "failed")
        ]
        facts += [
            (f"missing intermediates found in {_NAMES[source]}", f"{counters.hits[source]:,}")
            for source in SOURCES
            if counters.hits[source]
        ]
        facts.append(("intermediates in memory", f"{self._remembered():,}"))
        facts.append(("servers in aia.servers", f"{len(history):,}"))
        return facts


_NAMES = {
    "presented": "what they sent",
    "memory": "memory",
    "files": "files",
    "sqlite": "the SQLite cache",
    "redis": "Redis",
    "aia": "downloads (AIA)",
}


def _completion(source: str, outcome: str) -> str:
    if outcome == "broken":
        return "broken chains"
    refused = ", and refused (audit)" if outcome == "audited" else ""
    return f"chains completed from {_NAMES[source]}{refused}"


def _row(record: Record) -> list[str]:
    verdict = "complete now" if record.verdict == "complete" else record.verdict
    missing = record.reason
    if record.path:
        missing = ", ".join(f"{item.certificate.name} {item.home}" for item in record.found)
        missing = missing or "nothing: the path was hard to find in what it sent"
    times = record.incomplete + record.broken
    return [
        printable(record.where),
        verdict + (", refused (audit)" if record.audit else ""),
        printable(missing, MAX_CELL),
        f"{record.last:%Y-%m-%d %H:%M:%S}" + (f", {times:,} times" if times > 1 else ""),
    ]
