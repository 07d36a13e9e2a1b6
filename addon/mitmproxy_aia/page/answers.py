"""Answers to requests for the page. It is imported when somebody first asks for it, in a thread:
with the templates and the drawing it takes a tenth of the whole addon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, urlsplit

from mitmproxy import ctx, http

from mitmproxy_aia.history import History
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.options import Settings
from mitmproxy_aia.page.cache_view import CacheView
from mitmproxy_aia.page.headers import HEADERS
from mitmproxy_aia.page.serving import settings_in_force
from mitmproxy_aia.page.site import Answer, Facts, Listing, respond
from mitmproxy_aia.tiers import Tiers

NEWS_AFTER = 25.0
"""Seconds after which who waits for news is told that there are none: each answer is one more
flow in mitmproxy's list, and proxies in between give up after 30 or 60."""


class Answers:
    """Makes answers of what `history` and `tiers` hold. `over` is whether the addon is gone: who
    waits for news is not to wait for that."""

    def __init__(
        self,
        history: History,
        tiers: Tiers,
        metrics: Metrics,
        settings: Callable[[], Settings],
        over: Callable[[], bool],
    ) -> None:
        self._history = history
        self._metrics = metrics
        self._settings = settings
        self._over = over
        self._cache = CacheView(tiers)
        self._news = asyncio.Event()
        self._drawing = asyncio.Lock()
        history.listeners.append(self.tell)

    async def response(self, request: http.Request) -> http.Response:
        answer = await self._answer(request)
        headers = {"Content-Type": answer.content_type, **HEADERS, **answer.headers}
        body = b"" if request.method == "HEAD" else answer.body
        return http.Response.make(answer.status, body, headers)

    def tell(self) -> None:
        """There is news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _answer(self, request: http.Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            allow = {"Allow": "GET, HEAD"}
            return Answer(b"This page can only be read.\n", "text/plain", 405, allow)
        target = request.path
        path = target.partition("?")[0]
        if path == "/changes":
            return await self._changes(target)
        listing = (
            await self._cache.look(self._settings().cache) if path == "/cache" else Listing("")
        )
        facts = self._facts(listing)
        # Many servers take a while to draw, and other connections are not to wait for that. Nor
        # for a free thread, to look up a name: any site can have a browser ask for this a lot.
        async with self._drawing:
            return await asyncio.to_thread(respond, target, facts)

    async def _changes(self, target: str) -> Answer:
        """Answers with the revision as soon as it is not the one after which it was asked."""
        [after] = parse_qs(urlsplit(target).query).get("after", [""])[:1]
        try:
            async with asyncio.timeout(NEWS_AFTER):
                while after == self._revision and not self._over():
                    await self._news.wait()
        except TimeoutError:
            pass
        return Answer(self._revision.encode(), "text/plain")

    @property
    def _revision(self) -> str:
        # A proxy that was started anew counts from the beginning.
        return f"{self._history.started.timestamp():.0f}-{self._history.revision}"

    def _facts(self, listing: Listing) -> Facts:
        return Facts(
            records=self._history.records(),
            revision=self._revision,
            complete=self._history.complete,
            settings=settings_in_force(self._settings()),
            notices=_notices(),
            listing=listing,
            metrics=lambda: (self._metrics.prometheus_text(), self._metrics.content_type),
        )


def _notices() -> Sequence[str]:
    """What a reader has to know to understand the rest."""
    if ctx.options.ssl_insecure:
        return ["Nothing is verified (ssl_insecure), so incomplete chains are not noticed."]
    modes = {
        "off": "The addon is switched off (aia_mode=off): incomplete chains are not noticed.",
        "audit": "Incomplete chains are only reported, and refused (aia_mode=audit).",
        "frozen": "Nothing is downloaded (aia_mode=frozen).",
    }
    mode = modes.get(ctx.options.aia_mode)
    return [mode] if mode else []
