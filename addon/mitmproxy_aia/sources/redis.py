"""Issuers shared by a fleet of proxies through Redis or Valkey.

On a cold fleet one node downloads while the others wait: after a miss a node takes a *lease*
for what it is going to download, and others who would download the same look again until what
it found is there, the lease is gone, or their patience is.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.sources.redis_link import PAUSE, TIMEOUT, Link, Unavailable
from mitmproxy_aia.sources.redis_records import (
    READ,
    RELEASE,
    WRITE,
    issuers_key,
    lease_key,
    read_answer,
    read_number,
    write_arguments,
)
from mitmproxy_aia.sources.redis_url import check_url, redis_library

NAME = "Redis"
LEASE = 4.0
"""Seconds. Most downloads take less than one, and a caIssuers URL that hangs is passed by
after half of one; and a node that dies with a lease in hand must leave the others enough of
their ten seconds to download for themselves."""
POLL = (0.05, 0.2)
"""Seconds between two looks of one who waits: at first, and at most."""
USE_WRITTEN = 3_600
"""Seconds. `last_used` is not more exact than this, so that a warm fleet writes nothing."""
SEEN = 300.0
"""Seconds for which what was seen there is taken to be there still. Then it is handed in once
more, which writes nothing unless it was flushed, evicted or removed meanwhile."""
KNOWN = 10_000
"""How many certificates are remembered to be there."""

logger = logging.getLogger(__name__)


@dataclass
class _Lookup:
    """One question for a name, shared by all completions that ask it at the same time.

    `token` is that of the lease, if it was got and nobody has taken charge of it yet.
    """

    task: asyncio.Task[tuple[Found, ...]] = field(init=False)
    waiting: int = 0
    token: str = ""


class RedisSource:
    """An `IssuerSource`. Must be used from one event loop.

    `url` is as `check_url` wants it. `timeout` (for one question), `pause` (after a failure)
    and `lease` are in seconds. Raises ValueError for a URL that names no Redis. Without
    redis-py it logs one warning and does nothing.
    """

    def __init__(
        self, url: str, *, timeout: float = TIMEOUT, pause: float = PAUSE, lease: float = LEASE
    ) -> None:
        check_url(url)
        self._link = Link(url, timeout, pause)
        self._lease = lease
        self._lookups: dict[tuple[bytes, str], _Lookup] = {}
        self._leases: dict[str, float] = {}
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._recoveries = 0
        self._writes: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            redis_library()
        except CacheError as error:
            logger.warning("The cache %s is not used: %s", self._link.name, error)
            self.close()

    def __repr__(self) -> str:
        return f"RedisSource({self._link.name})"

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        """Nothing is known without asking."""
        return ()

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        """One attempt if the fleet knows issuers, and none otherwise. May then have taken a
        lease, which ends with the completion."""
        started = time.monotonic()
        subject = certificate.issuer
        lease = ""
        if budget.downloads > 0 and not budget.frozen:
            urls = [url for url in certificate.ca_issuers if url.lower().startswith("http://")]
            lease = lease_key(subject, urls) if urls else ""
        if not self._link.usable or self._holds(lease):
            return
        lookup = self._lookup(subject, lease)
        # Never more than half of what is left: the rest is for a download.
        patience = min(self._lease, (budget.deadline - started) / 2)
        lookup.waiting += 1
        try:
            await asyncio.wait({lookup.task}, timeout=max(patience, 0))
        finally:
            # Not cancelled when nobody waits any more: its failure is to be learnt from.
            lookup.waiting -= 1
            if lookup.token:
                token, lookup.token = lookup.token, ""
                budget.when_done.append(lambda: self._release(lease, token))
        if lookup.task.done() and not lookup.task.cancelled() and lookup.task.result():
            found = lookup.task.result()
            names = ", ".join(item.certificate.name for item in found[:3])
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            took = time.monotonic() - started
            yield Attempt(self._link.name, f"had {names}{more}", found, took)

    def keep(self, found: Sequence[Found]) -> None:
        """Writes in the background what is not known to be there."""
        if not self._link.usable:
            return
        if self._link.recoveries != self._recoveries:
            # It may have come back empty.
            self._recoveries = self._link.recoveries
            self._known.clear()
        now = time.monotonic()
        new = [
            item
            for item in found
            if now - self._known.get(item.certificate.fingerprint, -math.inf) >= SEEN
        ]
        if new:
            for item in new:
                self._remember(item.certificate, now)
            task = self._start(self._write(new), "aia redis write")
            if task is not None:
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)

    def close(self) -> None:
        """Gives up what is under way and drops the connections. Safe twice, and also when the
        event loop is gone."""
        self._link.close()
        tasks = [*self._tasks, *(lookup.task for lookup in self._lookups.values())]
        for task in [task for task in tasks if not task.get_loop().is_closed()]:
            task.cancel()

    def _lookup(self, subject: bytes, lease: str) -> _Lookup:
        there = self._lookups.get((subject, lease))
        if there is not None and not there.task.done():
            return there
        lookup = self._lookups[subject, lease] = _Lookup()
        looking = self._look(lookup, subject, lease)
        lookup.task = asyncio.create_task(looking, name="aia redis lookup")

        def forget(_: object) -> None:
            # The task was done before this is called, and may have been replaced meanwhile.
            if self._lookups.get((subject, lease)) is lookup:
                del self._lookups[subject, lease]

        lookup.task.add_done_callback(forget)
        return lookup

    async def _look(self, lookup: _Lookup, subject: bytes, lease: str) -> tuple[Found, ...]:
        """Looks once or, where a download may follow, until there is no need to wait."""
        token, ends = secrets.token_hex(16), time.monotonic() + self._lease
        keys = [issuers_key(subject), lease]
        arguments: list[str | bytes | int] = [token, int(self._lease * 1000) if lease else 0]
        wait, longest = POLL
        try:
            while True:
                state, entries = await self._link.ask(READ, keys, arguments, read_answer)
                if entries or state != 0 or time.monotonic() + wait >= ends:
                    break
                await asyncio.sleep(wait)
                if not lookup.waiting:
                    break
                wait = min(wait * 1.5, longest)
        except Unavailable:
            return ()
        if state == 1:
            self._leases[lease] = time.monotonic() + self._lease
            if lookup.waiting:
                lookup.token = token
            else:
                self._release(lease, token)
        return self._usable(subject, entries)

    def _usable(self, subject: bytes, entries: Sequence[Entry]) -> tuple[Found, ...]:
        now, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
        found = []
        for entry in entries:
            certificate = entry.certificate
            if certificate.subject == subject and certificate.not_after > now:
                found.append(Found(certificate, entry.origin, cache=NAME))
                if (now - entry.last_used).total_seconds() < USE_WRITTEN:
                    self._remember(certificate, clock)
        return tuple(found)

    def _remember(self, certificate: Certificate, seen: float) -> None:
        self._known[certificate.fingerprint] = seen
        self._known.move_to_end(certificate.fingerprint)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    async def _write(self, found: Sequence[Found]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        entries = [Entry(item.certificate, item.origin, now, now) for item in found]
        keys, arguments = write_arguments(entries, now)
        arguments = [int(now.timestamp()), USE_WRITTEN, *arguments]
        try:
            await self._link.ask(WRITE, keys, arguments, read_number)
        except Unavailable:
            for item in found:
                self._known.pop(item.certificate.fingerprint, None)

    def _holds(self, lease: str) -> bool:
        return self._leases.get(lease, 0.0) > time.monotonic()

    def _release(self, lease: str, token: str) -> None:
        self._start(self._give_back(lease, token), "aia redis release")

    async def _give_back(self, lease: str, token: str) -> None:
        """Ends a lease, after what it was taken for has been written."""
        if self._writes:
            await asyncio.wait([*self._writes])
        try:
            await self._link.ask(RELEASE, [lease], [token], read_number)
        except Unavailable:
            return  # it ends by itself
        finally:
            self._leases.pop(lease, None)

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None] | None:
        try:
            task = asyncio.get_running_loop().create_task(work, name=name)
        except RuntimeError:  # no event loop: the command line, or the end of the process
            work.close()
            return None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
