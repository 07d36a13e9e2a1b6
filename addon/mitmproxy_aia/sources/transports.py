"""Sending a GET to an address, or through an HTTP or SOCKS5 proxy at an address."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import Mapping
from typing import Any

import certifi
import httpcore
import httpx

from mitmproxy_aia.addresses import Address
from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.sources.bounded import BoundedBackend

# Ten lines for each request are no help to someone who debugs his own traffic.
logging.getLogger("httpcore").setLevel(logging.INFO)

_MOST_KEPT = 16
"""Transports for proxies that are kept. There is one, unless options change."""

_POOL: dict[str, Any] = {
    "max_connections": None,
    "max_keepalive_connections": 0,
    "network_backend": BoundedBackend(),
}


class Transports:
    """The bare transports of httpx instead of an httpx.AsyncClient: they have no cookie jar,
    follow no redirect and read no environment. Names are never looked up here."""

    def __init__(self) -> None:
        # The SSL context is never used; without one, httpx takes 13-60 ms to load the roots of
        # certifi.
        self._unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._direct = _Transport(httpcore.AsyncConnectionPool(self._unused, **_POOL))
        self._by_proxy: dict[tuple[Proxy, str], httpx.AsyncHTTPTransport] = {}

    async def direct(
        self, address: Address, url: httpx.URL, headers: Mapping[str, str], patience: float | None
    ) -> httpx.Response:
        """The head of what `address` answers for `url`. It has `patience` seconds to take the
        connection."""
        there, limits = url.copy_with(host=str(address)), {"timeout": {"connect": patience}}
        request = httpx.Request("GET", there, headers=headers, extensions=limits)
        return await self._direct.handle_async_request(request)

    async def through(
        self, proxy: Proxy, address: Address, url: httpx.URL, headers: Mapping[str, str]
    ) -> httpx.Response:
        """The same through `proxy`, which is at `address`."""
        if proxy.scheme == "socks5":
            transport = await self._for(proxy, str(address))
            return await _negotiate(transport, url, headers)
        there = httpx.URL(scheme=proxy.scheme, host=str(address), port=proxy.port, path="/")
        if proxy.credentials:
            token = base64.b64encode(proxy.credentials.encode()).decode("ascii")
            headers = {**headers, "Proxy-Authorization": f"Basic {token}"}
        # A proxy is asked for the whole URL ("absolute-form", RFC 9112 section 3.2.2).
        whole = b"http://" + url.netloc + url.raw_path
        extensions = {"target": whole, "sni_hostname": proxy.host}
        request = httpx.Request("GET", there, headers=headers, extensions=extensions)
        transport = await self._for(proxy, "") if proxy.scheme == "https" else self._direct
        return await transport.handle_async_request(request)

    async def _for(self, proxy: Proxy, address: str) -> httpx.AsyncHTTPTransport:
        """The transport for a proxy that takes one of its own, kept for the next time."""
        key = (proxy, address)
        if key not in self._by_proxy:
            if proxy.scheme == "https":
                context = await asyncio.to_thread(_context, proxy)
                made = _Transport(httpcore.AsyncConnectionPool(context, **_POOL))
            else:
                user, _, password = proxy.credentials.partition(":")
                there = httpcore.URL(
                    scheme=b"socks5", host=address.encode(), port=proxy.port, target=b"/"
                )
                auth = (user.encode(), password.encode()) if proxy.credentials else None
                made = _Transport(httpcore.AsyncSOCKSProxy(there, auth, self._unused, **_POOL))
            while len(self._by_proxy) >= _MOST_KEPT:
                del self._by_proxy[next(iter(self._by_proxy))]
            self._by_proxy[key] = made
        return self._by_proxy[key]


class _Transport(httpx.AsyncHTTPTransport):
    """httpx does not let its users choose the backend of its pool of connections."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool


async def _negotiate(
    transport: httpx.AsyncHTTPTransport, url: httpx.URL, headers: Mapping[str, str]
) -> httpx.Response:
    """The head of the answer, through a SOCKS5 proxy. httpcore does not close a connection on
    which the negotiation has failed or was cut off."""
    opened = []

    async def trace(event: str, facts: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            opened.append(facts["return_value"])

    request = httpx.Request("GET", url, headers=headers, extensions={"trace": trace})
    try:
        return await transport.handle_async_request(request)
    except BaseException:
        for stream in opened:
            await stream.aclose()
        raise


def _context(proxy: Proxy) -> ssl.SSLContext:
    """Verifies an https:// proxy with the roots that mitmproxy verifies it with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = proxy.ca_file or (None if proxy.ca_folder else certifi.where())
    context.load_verify_locations(file, proxy.ca_folder or None)
    return context
