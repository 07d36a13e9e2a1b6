"""The addon that answers requests for the page, as mitmproxy answers those for mitm.it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, urlsplit

from mitmproxy import ctx, http

from mitmproxy_aia.history import History
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.options import Settings
from mitmproxy_aia.page.cache_view import CacheView
from mitmproxy_aia.page.settings import Setting, shown
from mitmproxy_aia.page.site import HEADERS, Answer, Facts, Listing, respond
from mitmproxy_aia.tiers import Tiers

logger = logging.getLogger(__name__)

NEWS_AFTER = 25.0
"""Seconds after which who waits for news is told that there are none: each answer is one more
flow in mitmproxy's list, and proxies in between give up after 30 or 60."""
RELATED = ("ssl_insecure", "ssl_verify_upstream_trusted_ca", "ssl_verify_upstream_trusted_confdir")
"""mitmproxy's own options that decide what is verified."""


class Page:
    """Serves what `history` and `tiers` hold at the host name that `settings` has; none:
    nowhere."""

    def __init__(
        self, history: History, tiers: Tiers, metrics: Metrics, settings: Callable[[], Settings]
    ) -> None:
        self._history = history
        self._metrics = metrics
        self._settings = settings
        self._cache = CacheView(tiers)
        self._news = asyncio.Event()
        self._over = False
        self._drawing = asyncio.Lock()
        history.listeners.append(self._tell)

    def is_asked(self, flow: http.HTTPFlow) -> bool:
        """Whether the request is to the page."""
        host = self._settings().page
        if not host or not flow.live or flow.response or flow.error:
            return False
        if not _mentions(flow.request.data, host.encode()):
            return False
        return flow.request.pretty_host.lower().rstrip(".") == host

    async def answer(self, flow: http.HTTPFlow) -> None:
        """Gives it its response."""
        try:
            answer = await self._answer(flow.request)
        except Exception:
            logger.exception("the page cannot be shown")
            answer = Answer(b"The page cannot be shown; see mitmproxy's log.\n", "text/plain", 500)
        body = answer.body
        headers = {"Content-Type": answer.content_type, **HEADERS, **answer.headers}
        if flow.request.method == "HEAD":
            body = b""
        flow.response = http.Response.make(answer.status, body, headers)

    def close(self) -> None:
        # Whoever waits for news is not to wait for what is gone.
        self._over = True
        self._tell()

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
                while after == self._revision and not self._over:
                    await self._news.wait()
        except TimeoutError:
            pass
        return Answer(self._revision.encode(), "text/plain")

    @property
    def _revision(self) -> str:
        # A proxy that was started anew counts from the beginning.
        return f"{self._history.started.timestamp():.0f}-{self._history.revision}"

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

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


def _mentions(request: http.RequestData, host: bytes) -> bool:
    """Whether it can be to `host`. It takes mitmproxy a while to tell, and most are not."""
    places = (request.host.encode(errors="replace"), request.authority)
    headers = (value for _, value in request.headers.fields)
    return any(host in place.lower() for place in (*places, *headers))


def settings_in_force(settings: Settings) -> Sequence[Setting]:
    """Ours, and those of mitmproxy that matter here. No password is in them."""
    told = []
    for name, option in ctx.options._options.items():
        if name.startswith("aia_") or name in RELATED:
            value = option.current()
            changed = value != option.default
            if name == "aia_cache":
                value = settings.cache
            told.append(Setting(name, shown(value), " ".join(option.help.split()), changed))
    return sorted(told, key=lambda setting: setting.name in RELATED)


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
