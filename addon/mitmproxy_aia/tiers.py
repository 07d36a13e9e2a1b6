"""The issuer sources in force, in order of cost: memory, files, cache, AIA."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mitmproxy_aia import selftest
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.egress import Policy, Server
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.sources import Budget, ClosableSource, Found, IssuerSource
from mitmproxy_aia.sources.aia import AiaSource, Download
from mitmproxy_aia.sources.caches import MEMORY_ONLY, Where, open_cache, open_source
from mitmproxy_aia.sources.late import LateDownloader
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.verification import Verifier

TRY_SECONDS = 2.0
"""That a cache has to answer a first question."""


class Tiers:
    """`timeout` gives the seconds that one download may take, `policy` where one may go,
    `listeners` where this proxy itself listens, and `frozen` why nothing may be downloaded now,
    if so. `counted` is given what downloads, and gives what counts that. `at` is the time at
    which what is remembered has to be valid, if that is not now: proxies have no use for it."""

    def __init__(
        self,
        timeout: Callable[[], float],
        policy: Callable[[], Policy] = Policy,
        listeners: Callable[[], Sequence[tuple[str, int]]] = tuple,
        frozen: Callable[[], str] = str,
        counted: Callable[[Download], Download] = lambda download: download,
        *,
        at: datetime.datetime | None = None,
    ) -> None:
        self._at = at
        self._timeout = timeout
        self._policy = policy
        self._listeners = listeners
        self._frozen = frozen
        self._counted = counted
        self._where: Where = MEMORY_ONLY
        self._paths: tuple[Path, ...] = ()
        self._memory = MemorySource()
        self._files: ClosableSource | None = None
        self._cache: ClosableSource | None = None
        self._aia: AiaSource | None = None

    def set(self, where: Where, paths: Sequence[Path]) -> None:
        """Uses the cache and the files with intermediates that these name from now on.

        Raises OSError or ValueError with one sentence, and then changes nothing.
        """
        files, cache = self._files, self._cache
        if tuple(paths) != self._paths:
            files = _files(paths, self._at)
        if where != self._where:
            cache = open_source(where, at=self._at)
        if files is not self._files and self._files is not None:
            self._files.close()
        if cache is not self._cache and self._cache is not None:
            self._cache.close()
        self._files, self._paths = files, tuple(paths)
        self._cache, self._where = cache, where

    @property
    def sources(self) -> Sequence[IssuerSource]:
        """Needs a running event loop."""
        if self._aia is None:
            download = LateDownloader(
                self._timeout, self._policy, self._listeners, self._frozen, self._complete
            )
            self._aia = AiaSource(self._counted(download))
        # Not whether they are true: a folder that is empty now is one to look into.
        named = (each for each in (self._files, self._cache) if each is not None)
        return (self._memory, *named, self._aia)

    async def _complete(
        self, presented: Iterable[Certificate], verifier: Verifier, server: Server
    ) -> Outcome:
        """Completes the chain of an https:// proxy that downloads go through."""
        limits = Limits(seconds=self._timeout(), frozen=self._frozen())
        completion = Completion(presented, verifier, self.sources, limits, lambda: server)
        outcome = completion.complete_at_once()
        return outcome if outcome.verified else await completion.complete()

    async def try_cache(self) -> None:
        """Asks the cache once. What is wrong with it is then logged now, and not when the first
        server needs it."""
        if (cache := self._cache) is None:
            return
        unknown, _ = selftest.leaf_and_stranger()
        cache.known_issuers(unknown)
        # Without a download to follow it takes no lease.
        async with contextlib.aclosing(
            cache.fetch_issuers(unknown, Budget(time.monotonic() + TRY_SECONDS, downloads=0))
        ) as answers:
            async for _ in answers:
                pass

    def keep(self, found: Sequence[Found]) -> None:
        """Remembers intermediates of a verified path."""
        for source in self.sources:
            source.keep(found)

    def remembered(self) -> int:
        """How many intermediates are in memory."""
        return len(self._memory)

    def entries(self) -> Sequence[Entry]:
        """What is remembered in memory."""
        return self._memory.entries()

    def cached(self) -> Iterator[Entry]:
        """What is remembered in the cache, in the order of the subjects. Blocks; may be called
        in another thread. Raises CacheError."""
        if self._where != MEMORY_ONLY:
            with contextlib.closing(open_cache(self._where)) as cache:
                yield from cache.entries()

    async def clear(self) -> int:
        """Forgets all that is remembered, and returns how many certificates it was. Raises
        CacheError."""
        number = len(self._memory)
        self._memory.clear()
        where, source = self._where, self._cache
        if source is None:
            return number
        # It writes in the background, and knows what it has written: another takes its place.
        self._cache = None
        try:
            if isinstance(where, Path):
                await asyncio.to_thread(source.close)
            else:
                source.close()
            return await asyncio.to_thread(_clear, where)
        finally:
            self._reopen(where)

    def _reopen(self, where: Where) -> None:
        """Unless the option was changed meanwhile."""
        if self._cache is None and self._where == where:
            self._cache = open_source(where, at=self._at)

    def close(self) -> None:
        """Safe when the event loop is gone, and twice."""
        self.set(MEMORY_ONLY, ())
        self._memory.clear()
        if self._aia is not None:
            self._aia.close()
            self._aia = None


def _files(paths: Sequence[Path], at: datetime.datetime | None) -> ClosableSource | None:
    if not paths:
        return None
    from mitmproxy_aia.sources.files import FilesSource  # for few

    return FilesSource(paths, at=at)


def _clear(where: Where) -> int:
    with contextlib.closing(open_cache(where)) as cache:
        return cache.clear()
