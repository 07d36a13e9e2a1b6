"""What the addon has done since it was loaded, in numbers. Pure, and cheap enough to be always
counted. Nothing that a stranger chooses decides how many numbers there are.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.egress import Server
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.aia import Download
from mitmproxy_aia.sources.download_errors import DownloadError, NotTried, Refused

SOURCES = ("presented", "memory", "files", "sqlite", "redis", "aia")
"""Where the certificates of a path may come from, the cheapest first."""
OUTCOMES = ("completed", "audited", "broken")
DOWNLOADS = ("ok", "failed", "refused", "not tried", "given up")
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""

_CACHES = {"memory": "memory", "Redis": "redis"}


@dataclass
class Histogram:
    """How many of the values were not more than each of `bounds`, and more than the one before;
    the last number is of those beyond."""

    bounds: Sequence[float] = BOUNDS
    numbers: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.numbers = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.numbers[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.numbers)


class Counters:
    """`completions` counts by (source, outcome): the dearest source that had to be asked, or
    "none" for a broken chain. `hits` are intermediates that a cache or a file had. `pauses` and
    `transfers` are the seconds that handshakes waited and that downloads took."""

    def __init__(self) -> None:
        self.completions: Counter[tuple[str, str]] = Counter()
        self.hits: Counter[str] = Counter()
        self.downloads: Counter[str] = Counter()
        self.pauses = Histogram()
        self.transfers = Histogram()

    def note(self, outcome: Outcome, *, audit: bool = False) -> None:
        """Counts a completion. `audit`: the connection was refused whatever came of it."""
        self.pauses.add(outcome.seconds)
        if not outcome.verified:
            self.completions["none", "broken"] += 1
            return
        used = [source_of(item) for item in outcome.found]
        dearest = max(used, key=SOURCES.index, default="presented")
        self.completions[dearest, "audited" if audit else "completed"] += 1
        for source in used:
            if source != "aia":
                self.hits[source] += 1

    def counted(self, download: Download) -> Download:
        """The same, counted: each request to a caIssuers URL once, whoever waits for it."""

        async def fetch(url: str, server: Server) -> tuple[Certificate, ...]:
            started, outcome = time.monotonic(), "failed"
            try:
                certificates = await download(url, server)
                outcome = "ok"
                return certificates
            except Refused:
                outcome = "refused"
                raise
            except NotTried:
                outcome = "not tried"
                raise
            except DownloadError:
                raise
            except asyncio.CancelledError:
                outcome = "given up"
                raise
            finally:
                self.downloads[outcome] += 1
                if outcome in ("ok", "failed"):
                    self.transfers.add(time.monotonic() - started)

        return fetch


def source_of(found: Found) -> str:
    """One of `SOURCES`."""
    if found.cache:
        # An SQLite cache is called by the name of its file.
        return _CACHES.get(found.cache, "sqlite")
    return "files" if found.at_hand else "aia"
