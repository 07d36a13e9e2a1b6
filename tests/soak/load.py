"""Steady load on one proxy, and the count of what came of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.client import Client
from tests.soak.expectation import Conditions, Verdict, judge
from tests.soak.sites import Internet, Kind, Site

SHARES = {
    Kind.COMPLETE: 0.32,
    Kind.INCOMPLETE: 0.32,
    Kind.BROKEN: 0.10,
    Kind.HOSTILE: 0.18,
    Kind.FRESH: 0.03,
}
"""Of the requests; the rest are clients that go away."""
MOST_AT_ONCE = 400
PROBLEMS_KEPT = 20
TUNNELS = 0.2
"""The share of requests inside a CONNECT with TLS, which cost a proxy twice as much."""


@dataclass
class Tally:
    """What came of the requests, by the kind of server."""

    requests: Counter[Kind] = field(default_factory=Counter)
    wrong: Counter[Kind] = field(default_factory=Counter)
    errors: Counter[Kind] = field(default_factory=Counter)
    gone: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """What each request to a complete server has taken."""


class Load:
    """Load through one proxy. `history` are the conditions it was under, the present last."""

    def __init__(
        self, client: Client, internet: Internet, port: int, history: list[Conditions]
    ) -> None:
        self.tally = Tally()
        self.history = history
        self._client = client
        self._port = port
        self._internet = internet
        self._running: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        return len(self._running)

    def request(self, site: Site, tunnel: bool) -> None:
        """Starts one, unless there are too many already: the load is to stay steady."""
        if self.under_way < MOST_AT_ONCE:
            self._start(self._judged(site, tunnel))

    def leave(self, site: Site, after: float) -> None:
        self._start(self._leave(site, after))

    async def visit(self, sites: Sequence[Site], at_once: int = 24) -> None:
        """One judged request to each of these."""
        left = iter(sites)

        async def visitor() -> None:
            for site in left:
                await self._judged(site, False)

        await asyncio.gather(*(visitor() for _ in range(at_once)))

    async def finish(self) -> None:
        """Until all requests have ended."""
        while self._running:
            await asyncio.wait(self._running)

    def _start(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        task.result()

    async def _judged(self, site: Site, tunnel: bool) -> None:
        since, started = len(self.history) - 1, time.monotonic()
        answer = await self._client.get(site.host, self._port, tunnel=tunnel)
        verdict = judge(site, answer, self.history[since:])
        self.tally.requests[site.kind] += 1
        if site.kind is Kind.COMPLETE:
            self.tally.seconds.append(time.monotonic() - started)
        if verdict is Verdict.RIGHT:
            return
        counter = self.tally.wrong if verdict is Verdict.WRONG else self.tally.errors
        counter[site.kind] += 1
        if len(self.tally.problems) < PROBLEMS_KEPT:
            self.tally.problems.append(
                f"{verdict.value}: {site.host} ({site.kind.value}: {site.what}) answered "
                f"{answer.status} {answer.text[:200]!r} under {self.history[since:]}"
            )

    async def _leave(self, site: Site, after: float) -> None:
        await self._client.leave(site.host, self._port, after)
        self.tally.gone += 1


async def steadily(
    loads: Sequence[Load], internet: Internet, rate: float, until: float, seed: int = 1
) -> None:
    """The same requests through all `loads`, `rate` a second through each, until that time of
    the monotonic clock."""
    chance = random.Random(seed)  # noqa: S311 - the same each time
    turns = {kind: _in_turn(internet.of(kind), chance) for kind in SHARES}
    start = time.monotonic()
    for number in itertools.count():
        due = start + number / rate
        if due >= until:
            return
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        kind = _pick(chance.random())
        tunnel = chance.random() < TUNNELS
        if kind is None:
            site = next(turns[chance.choice([Kind.HOSTILE, Kind.FRESH])])
            after = chance.uniform(0.005, 0.6)
            for load in loads:
                load.leave(site, after)
        else:
            site = next(turns[kind])
            for load in loads:
                load.request(site, tunnel)


def _pick(number: float) -> Kind | None:
    for kind, share in SHARES.items():
        number -= share
        if number < 0:
            return kind
    return None


def _in_turn(sites: Sequence[Site], chance: random.Random) -> Iterator[Site]:
    while True:
        yield from chance.sample(sites, len(sites))
