"""What a proxy holds: its memory as the kernel counts it, and what the probe in it tells."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.client import Client

PATIENCE = 20.0
"""Seconds until what is still there counts as left."""
_POOL = re.compile(r"asyncio_\d+")
"""A thread of the event loop's own pool, which has a size of its own and is mitmproxy's."""


@dataclass(frozen=True)
class Memory:
    """MiB: resident, and with what is shared divided by those who share it."""

    rss: float
    pss: float


@dataclass
class Holdings:
    """What a proxy holds at rest; `levels` and `errors` are what it has logged so far."""

    tasks: list[str]
    threads: list[str]
    files: list[str]
    levels: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def beyond(self, before: Holdings) -> dict[str, list[str]]:
        """What there is more of than there was before: tasks, threads and files."""
        threads = [name for name in self.threads if not _POOL.fullmatch(name)]
        return {
            "tasks": _more(self.tasks, before.tasks),
            "threads": _more(threads, before.threads),
            "files": _more(self.files, before.files),
        }


def memory(pid: int) -> Memory:
    """Of the process `pid`. Needs Linux."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kibibytes = {name: int(size) for name, size in re.findall(r"^(Rss|Pss): +(\d+)", text, re.M)}
    return Memory(kibibytes["Rss"] / 1024, kibibytes["Pss"] / 1024)


async def memory_in_use(client: Client, pid: int) -> Memory:
    """Of a proxy at rest, without what its allocator keeps: that follows the highest peak, which
    chance decides."""
    await client.probe("trim")
    return memory(pid)


class Peaks:
    """The highest RSS of some processes, by name, while they are under load."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.rss = dict.fromkeys(pids, 0.0)
        self._pids = pids

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for name, pid in self._pids.items():
                self.rss[name] = max(self.rss[name], memory(pid).rss)
            await asyncio.sleep(1)


async def holdings(client: Client) -> Holdings:
    return Holdings(**json.loads(await client.probe("")))


async def at_rest(client: Client, than: Holdings | None = None) -> Holdings:
    """What a proxy holds when that no longer changes, or is not more than `than`."""
    deadline, last = time.monotonic() + PATIENCE, await holdings(client)
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        now = await holdings(client)
        more = [now.beyond(than or last)]
        if than is None:
            more.append(last.beyond(now))
        if not any(names for each in more for names in each.values()):
            return now
        last = now
    return last


async def objects(client: Client) -> Counter[str]:
    """How many Python objects a proxy has, by type."""
    counted: dict[str, Any] = json.loads(await client.probe("objects"))
    return Counter(counted)


def _more(now: Sequence[str], then: Sequence[str]) -> list[str]:
    """What there is more of, and of its kind what was not there before."""
    surplus = Counter(map(_kind, now)) - Counter(map(_kind, then))
    more = []
    for name in sorted(now, key=lambda name: name in then):
        if surplus[_kind(name)] > 0:
            surplus[_kind(name)] -= 1
            more.append(name)
    return sorted(more)


def _kind(name: str) -> str:
    """Without the numbers of sockets, pipes and tasks, which are others each time. That a file
    was removed while it is open is a fault of ours, and makes it no other file."""
    return re.sub(r"\[\d+\].*|(?<=^Task-)\d+$| \(deleted\)$", "", name)
