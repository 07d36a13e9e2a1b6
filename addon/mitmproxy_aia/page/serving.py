"""The addon that answers requests for the page, as mitmproxy answers those for mitm.it.

What it shows and how is in `answers`, which most proxies never need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mitmproxy import ctx, http

from mitmproxy_aia.history import History
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.options import Settings
from mitmproxy_aia.page.headers import HEADERS
from mitmproxy_aia.tiers import Tiers

if TYPE_CHECKING:
    from mitmproxy_aia.page.answers import Answers
    from mitmproxy_aia.page.settings import Setting

logger = logging.getLogger(__name__)

RELATED = ("ssl_insecure", "ssl_verify_upstream_trusted_ca", "ssl_verify_upstream_trusted_confdir")
"""mitmproxy's own options that decide what is verified."""


class Page:
    """Serves what `history` and `tiers` hold at the host name that `settings` has; none:
    nowhere."""

    def __init__(
        self, history: History, tiers: Tiers, metrics: Metrics, settings: Callable[[], Settings]
    ) -> None:
        self._history = history
        self._tiers = tiers
        self._metrics = metrics
        self._settings = settings
        self._answers: Answers | None = None
        self._opening = asyncio.Lock()
        self._over = False

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
            flow.response = await (await self._opened()).response(flow.request)
        except Exception:
            logger.exception("the page cannot be shown")
            text = b"The page cannot be shown; see mitmproxy's log.\n"
            body = b"" if flow.request.method == "HEAD" else text
            flow.response = http.Response.make(500, body, {"Content-Type": "text/plain", **HEADERS})

    def close(self) -> None:
        # Whoever waits for news is not to wait for what is gone.
        self._over = True
        if self._answers is not None:
            self._answers.tell()

    async def _opened(self) -> Answers:
        """What answers, made when it is first needed."""
        async with self._opening:
            if self._answers is None:
                # Other connections are not to wait for what it imports.
                answers = await asyncio.to_thread(_imported)
                self._answers = answers(
                    self._history, self._tiers, self._metrics, self._settings, lambda: self._over
                )
            return self._answers


def _imported() -> type[Answers]:
    from mitmproxy_aia.page.answers import Answers

    return Answers


def _mentions(request: http.RequestData, host: bytes) -> bool:
    """Whether it can be to `host`. It takes mitmproxy a while to tell, and most are not."""
    headers = [value for _, value in request.headers.fields]
    places = request.host.encode(errors="replace"), request.authority, *headers
    return host in b"\n".join(places).lower()


def settings_in_force(settings: Settings) -> Sequence[Setting]:
    """Ours, and those of mitmproxy that matter here. No password is in them."""
    from mitmproxy_aia.page.settings import Setting, shown

    told = []
    for name, option in ctx.options._options.items():
        if name.startswith("aia_") or name in RELATED:
            value = option.current()
            changed = value != option.default
            if name == "aia_cache":
                value = settings.cache
            told.append(Setting(name, shown(value), " ".join(option.help.split()), changed))
    return sorted(told, key=lambda setting: setting.name in RELATED)
