"""Sending a GET to an address, or through an HTTP or SOCKS5 proxy at an address."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

import httpx
from OpenSSL import SSL

from mitmproxy_aia.addresses import Address
from mitmproxy_aia.egress import HTTP_PORT, Proxy
from mitmproxy_aia.sources import bounded, proxy_tls, socks
from mitmproxy_aia.sources.http1 import Answer, ask
from mitmproxy_aia.sources.proxy_tls import Complete, Distrusted
from mitmproxy_aia.trust import Trust

_MOST_KEPT = 16
"""TLS contexts for https:// proxies that are kept. There is one, unless options change."""


class Transports:
    """One connection for each request, and no httpx.AsyncClient: no cookie jar, no redirect is
    followed, and no environment read. Names are never looked up here. Errors are those of httpx.

    `complete` completes the chain of an https:// proxy, if it takes that.
    """

    def __init__(self, complete: Complete | None = None) -> None:
        self._complete = complete
        self._contexts: dict[Proxy, SSL.Context] = {}

    async def direct(
        self, address: Address, url: httpx.URL, headers: Mapping[str, str], patience: float | None
    ) -> Answer:
        """The head of what `address` answers for `url`. It has `patience` seconds to take the
        connection."""
        stream = await bounded.connect(str(address), url.port or HTTP_PORT, patience)
        return await ask(stream, url.raw_path, headers)

    async def through(
        self,
        proxy: Proxy,
        address: Address,
        url: httpx.URL,
        headers: Mapping[str, str],
        patience: float | None,
    ) -> Answer:
        """The same through `proxy`, which is at `address`."""
        place = str(address), proxy.port
        if proxy.scheme == "socks5":
            stream = await bounded.connect(*place, patience)
            target = url.raw_host.decode("ascii"), url.port or HTTP_PORT
            try:
                await socks.connect(stream, *target, proxy.credentials)
            except BaseException:
                stream.close()
                raise
            return await ask(stream, url.raw_path, headers)
        if proxy.credentials:
            # As mitmproxy does it: upstream_auth may hold what is no text in UTF-8.
            credentials = proxy.credentials.encode(errors="surrogateescape")
            token = base64.b64encode(credentials).decode("ascii")
            headers = {**headers, "Proxy-Authorization": f"Basic {token}"}
        if proxy.scheme == "https":
            context = await self._context(proxy)
            stream = await proxy_tls.connect(place, patience, proxy, context, self._complete)
        else:
            stream = await bounded.connect(*place, patience)
        # A proxy is asked for the whole URL ("absolute-form", RFC 9112 section 3.2.2).
        return await ask(stream, b"http://" + url.netloc + url.raw_path, headers)

    async def _context(self, proxy: Proxy) -> SSL.Context:
        """What an https:// proxy is verified with, which are mitmproxy's roots; kept for the next
        time."""
        if proxy not in self._contexts:
            trust = Trust(proxy.ca_file, proxy.ca_folder)
            try:
                made = await asyncio.to_thread(trust.context)
            except OSError as error:
                raise Distrusted(f"cannot be verified: {error}") from error
            while len(self._contexts) >= _MOST_KEPT:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[proxy] = made
        return self._contexts[proxy]
