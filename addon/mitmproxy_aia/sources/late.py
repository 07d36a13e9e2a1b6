"""Downloads without what they import, until the first one is wanted.

httpx and what is around it take as long to import as all of this package. Most connections need
no download, and no proxy needs one before it listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Policy, Server
from mitmproxy_aia.lacking import first_flaw
from mitmproxy_aia.sources.aia import Download
from mitmproxy_aia.sources.download_errors import NotTried

if TYPE_CHECKING:
    from mitmproxy_aia.sources.download import Downloader
    from mitmproxy_aia.sources.proxy_tls import Complete


def download_incompatibility() -> str | None:
    """Imports what downloads need, which takes a while. One line that says what is not as they
    need it, or None."""
    return first_flaw([("httpx", _import)])


class LateDownloader:
    """A `Downloader`, and called as one, that imports what it needs when it is first called, off
    the event loop. Where that cannot work, nothing is downloaded, and each attempt says why."""

    def __init__(
        self,
        timeout: Callable[[], float],
        policy: Callable[[], Policy] = Policy,
        listeners: Callable[[], Sequence[tuple[str, int]]] = tuple,
        frozen: Callable[[], str] = str,
        complete: Complete | None = None,
    ) -> None:
        self._how = (timeout, policy, listeners, frozen, complete)
        self._lock = asyncio.Lock()
        self._download: Download | None = None

    async def __call__(self, url: str, server: Server) -> tuple[Certificate, ...]:
        """Raises `DownloadError`."""
        download = self._download or await self._made()
        return await download(url, server)

    async def _made(self) -> Download:
        # Those who ask at the same time wait in one thread, not in one each.
        async with self._lock:
            if self._download is None:
                self._download = await self._make()
            return self._download

    async def _make(self) -> Download:
        flaw = await asyncio.to_thread(download_incompatibility)
        if flaw is None:
            return _import()(*self._how)

        async def refuse(url: str, server: Server) -> tuple[Certificate, ...]:
            raise NotTried(f"was not tried ({flaw})")

        return refuse


def _import() -> type[Downloader]:
    from mitmproxy_aia.sources.download import Downloader

    return Downloader
