"""What the first download would otherwise have to wait for, and a look at what the proxy is to work
with, when it is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mitmproxy import ctx

from mitmproxy_aia.sources.late import download_incompatibility

logger = logging.getLogger(__name__)

SOON = 0.5
"""Seconds until then: first the proxy and its front end start, and many a replay is over."""


class Preparation:
    """Needs a running event loop to begin in. `looks` are what else is looked at, one after the
    other; each says itself what it finds."""

    def __init__(self, *looks: Callable[[], Awaitable[None]]) -> None:
        self._looks = looks
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
        for look in self._looks:
            await look()


async def look_at_roots() -> None:
    """Says what is wrong with the roots that mitmproxy is to trust."""
    file = ctx.options.ssl_verify_upstream_trusted_ca
    folder = ctx.options.ssl_verify_upstream_trusted_confdir
    if not (file or folder) or ctx.options.ssl_insecure:
        return
    from mitmproxy_aia import trust  # for few

    for option, place, flaw_of in (
        ("ca", file, trust.flaw_of_file),
        ("confdir", folder, trust.flaw_of_folder),
    ):
        if place and (flaw := await asyncio.to_thread(flaw_of, place)):
            logger.warning(f"ssl_verify_upstream_trusted_{option}: {flaw}")
