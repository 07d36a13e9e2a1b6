"""What goes wrong during the soak, one thing after the other, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from tests.lab import RedisServer
from tests.soak.client import Client
from tests.soak.expectation import Conditions
from tests.soak.load import Load
from tests.soak.processes import CaIssuers
from tests.soak.sites import Internet, Kind

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Faults for the proxy behind `load`. `beat` is how long each lasts, in seconds.

    Each leaves things as they were, and tells `load` before and after what may come of it.
    """

    def __init__(
        self,
        load: Load,
        client: Client,
        internet: Internet,
        ca: CaIssuers,
        cache: Path,
        redis: RedisServer | None,
        beat: float,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._load = load
        self._client = client
        self._internet = internet
        self._ca = ca
        self._cache = cache
        self._redis = redis
        self._beat = beat
        self._turns = itertools.cycle(self.all().items())

    async def once(self, beat: float) -> None:
        """Each of them one time, with this length."""
        usual, self._beat = self._beat, beat
        try:
            for name, fault in self.all().items():
                await fault()
                self.done[name] += 1
        finally:
            self._beat = usual

    async def run(self, until: float) -> None:
        """The next ones in turn, the last one before that time of the monotonic clock."""
        while time.monotonic() + self._beat < until:
            await asyncio.sleep(self._beat)
            name, fault = next(self._turns)
            await fault()
            self.done[name] += 1

    def all(self) -> dict[str, Fault]:
        faults: dict[str, Fault] = {
            "caIssuers server killed and started": self._ca_killed,
            "all that was remembered forgotten": self._forget,
            "cache file removed": self._cache_removed,
            "caIssuers server stopped and continued": self._ca_stopped,
            "cache file overwritten": self._cache_overwritten,
            "aia_mode=off and back": lambda: self._mode("off"),
            "cache locked": self._cache_locked,
            "aia_mode=frozen and back": lambda: self._mode("frozen"),
            "aia_learn and aia_timeout changed and back": self._options,
            "aia_mode=audit and back": lambda: self._mode("audit"),
        }
        if self._redis is not None:
            faults["Redis used, stopped, started, and no longer used"] = self._redis_used
        return faults

    @contextlib.asynccontextmanager
    async def _meanwhile(self, conditions: Conditions) -> AsyncIterator[None]:
        """The change to `conditions`, which takes a moment, and the one back."""
        before = self._load.history[-1]
        either = Conditions(
            before.modes | conditions.modes, before.published | conditions.published
        )
        self._load.history.append(either)
        try:
            yield
        finally:
            self._load.history.append(before)

    async def _ca_killed(self) -> None:
        async with self._meanwhile(Conditions(published=frozenset({False}))):
            self._ca.kill()
            await asyncio.sleep(self._beat)
            await self._ca.start()

    async def _ca_stopped(self) -> None:
        async with self._meanwhile(Conditions(published=frozenset({False}))):
            os.kill(self._ca.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._beat)
            finally:
                os.kill(self._ca.pid, signal.SIGCONT)
            # What has come in meanwhile is answered now.
            await asyncio.sleep(min(self._beat, 1))

    async def _forget(self) -> None:
        """What follows is downloaded again, and nothing of it may fail."""
        await self._client.probe("run/aia.cache.clear")
        await self._load.visit(self._internet.of(Kind.INCOMPLETE))

    async def _hold(self) -> None:
        """The length of a fault of a cache. What was never seen before is completed meanwhile."""
        sites = [site for site in self._internet.of(Kind.FRESH) if len(site.urls) == 1]
        await asyncio.gather(asyncio.sleep(self._beat), self._load.visit(sites))

    async def _cache_removed(self) -> None:
        self._cache.unlink(missing_ok=True)
        await self._hold()

    async def _cache_overwritten(self) -> None:
        self._cache.write_bytes(b"SQLite format 3\0 and then nonsense" * 1000)
        await self._hold()

    async def _cache_locked(self) -> None:
        connection = sqlite3.connect(self._cache, timeout=0, isolation_level=None)
        try:
            # Where the file is damaged or busy just now, this is another kind of the same.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("BEGIN EXCLUSIVE")
            await self._hold()
        finally:
            connection.close()

    async def _mode(self, mode: str) -> None:
        now = self._load.history[-1]
        async with self._meanwhile(replace(now, modes=frozenset({mode}))):
            await self._client.probe(f"set/aia_mode={mode}")
            self._load.history.append(replace(now, modes=frozenset({mode})))
            await asyncio.sleep(self._beat)
            self._load.history.append(replace(now, modes=now.modes | {mode}))
            await self._client.probe("set/aia_mode=complete")

    async def _options(self) -> None:
        await self._client.probe("set/aia_learn=false")
        await self._client.probe("set/aia_timeout=4")
        await asyncio.sleep(self._beat)
        await self._client.probe("set/aia_timeout=3")
        await self._client.probe("set/aia_learn=true")

    async def _redis_used(self) -> None:
        assert self._redis is not None
        await asyncio.to_thread(self._redis.start)
        await self._client.probe(f"set/aia_cache={self._redis.url}")
        await self._hold()
        await asyncio.to_thread(self._redis.stop)
        await self._hold()
        await asyncio.to_thread(self._redis.start)
        await self._hold()
        await self._client.probe(f"set/aia_cache={self._cache}")
