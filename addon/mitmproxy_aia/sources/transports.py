"""Sending a GET to an address, or through an HTTP or SOCKS5 proxy at an address."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

import httpcore
import httpx
from OpenSSL import SSL

from mitmproxy_aia.addresses import Address
from mitmproxy_aia.egress import HTTP_PORT, Proxy
from mitmproxy_aia.sources import socks
from mitmproxy_aia.sources.bounded import BoundedBackend
from mitmproxy_aia.sources.http1 import Answer, ask
from mitmproxy_aia.sources.proxy_tls import Complete, Distrusted, TlsBackend
from mitmproxy_aia.trust import Trust

_MOST_KEPT = 16
"""TLS contexts for https:// proxies that are kept. There is one, unless options change."""

_BACKEND = BoundedBackend()


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
        place = str(address), url.port or HTTP_PORT
        return await self._send(_BACKEND, place, url.raw_path, headers, patience)

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
            stream = await _connected(_BACKEND, place, patience)
            target = url.raw_host.decode("ascii"), url.port or HTTP_PORT
            try:
                await socks.connect(stream, *target, proxy.credentials)
            except BaseException:
                await stream.aclose()
                raise
            return await ask(stream, url.raw_path, headers)
        if proxy.credentials:
            # As mitmproxy does it: upstream_auth may hold what is no text in UTF-8.
            credentials = proxy.credentials.encode(errors="surrogateescape")
            token = base64.b64encode(credentials).decode("ascii")
            headers = {**headers, "Proxy-Authorization": f"Basic {token}"}
        backend = _BACKEND
        if proxy.scheme == "https":
            backend = TlsBackend(proxy, await self._context(proxy), self._complete)
        # A proxy is asked for the whole URL ("absolute-form", RFC 9112 section 3.2.2).
        whole = b"http://" + url.netloc + url.raw_path
        return await self._send(backend, place, whole, headers, patience)

    async def _send(
        self,
        backend: BoundedBackend,
        place: tuple[str, int],
        target: bytes,
        headers: Mapping[str, str],
        patience: float | None,
    ) -> Answer:
        return await ask(await _connected(backend, place, patience), target, headers)

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


async def _connected(
    backend: BoundedBackend, place: tuple[str, int], patience: float | None
) -> httpcore.AsyncNetworkStream:
    try:
        return await backend.connect_tcp(*place, timeout=patience)
    except httpcore.ConnectTimeout as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except httpcore.ConnectError as error:
        raise httpx.ConnectError(str(error)) from error
