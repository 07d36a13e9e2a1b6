"""What the first download would otherwise have to wait for, and a look at the cache, when the proxy
is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mitmproxy_aia.sources.late import download_incompatibility

logger = logging.getLogger(__name__)

SOON = 0.5
"""Seconds until then: first the proxy and its front end start, and many a replay is over."""


class Preparation:
    """Needs a running event loop to begin in. `try_cache` finds out whether that works."""

    def __init__(self, try_cache: Callable[[], Awaitable[None]]) -> None:
        self._try_cache = try_cache
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._prepare(), name="aia preparation")

    def end(self) -> None:
        """Also safe when the event loop is gone, and without a beginning."""
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    async def _prepare(self) -> None:
        await asyncio.sleep(SOON)
        # In a thread that the end of the event loop waits for: a process may end at any time.
        if (flaw := await asyncio.to_thread(download_incompatibility)) is not None:
            logger.error(f"{flaw}; until then nothing is downloaded")
        await self._try_cache()
