"""Sending a GET to an address, or through an HTTP or SOCKS5 proxy at an address."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpcore
import httpx
from OpenSSL import SSL

from mitmproxy_aia.addresses import Address
from mitmproxy_aia.egress import HTTP_PORT, Proxy
from mitmproxy_aia.sources.bounded import BoundedBackend
from mitmproxy_aia.sources.http1 import ask
from mitmproxy_aia.sources.proxy_tls import Complete, Distrusted, TlsBackend
from mitmproxy_aia.trust import Trust

# Ten lines for each request are no help to someone who debugs his own traffic.
logging.getLogger("httpcore").setLevel(logging.INFO)

# httpcore looks for it several times with each request, and to look in vain through all folders
# of sys.path takes as long as half a download. A None here is how to say that it is not there.
if importlib.util.find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment] # see the import system's reference

NO_SOCKS = "does not speak SOCKS5"
"""What a proxy is called whose answers are nothing of the kind."""
_MOST_KEPT = 16
"""TLS contexts for https:// proxies that are kept. There is one, unless options change."""

_POOL: dict[str, Any] = {
    "max_connections": None,
    "max_keepalive_connections": 0,
}
_BACKEND = BoundedBackend()


class Response(Protocol):
    """What is needed of an `httpx.Response`."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Transports:
    """One connection for each request, and no httpx.AsyncClient: no cookie jar, no redirect is
    followed, and no environment read. Names are never looked up here. Errors are those of httpx.

    SOCKS5 is left to httpx, with a transport for each request, which takes microseconds: httpcore
    keeps what was cancelled in the wrong moment in its pool for good.

    `complete` completes the chain of an https:// proxy, if it takes that.
    """

    def __init__(self, complete: Complete | None = None) -> None:
        self._complete = complete
        # The SSL context is never used; without one, httpx takes 13-60 ms to load the roots of
        # certifi.
        self._unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._contexts: dict[Proxy, SSL.Context] = {}

    async def direct(
        self, address: Address, url: httpx.URL, headers: Mapping[str, str], patience: float | None
    ) -> Response:
        """The head of what `address` answers for `url`. It has `patience` seconds to take the
        connection."""
        place = str(address), url.port or HTTP_PORT
        return await self._send(_BACKEND, place, url.raw_path, headers, patience)

    async def through(
        self, proxy: Proxy, address: Address, url: httpx.URL, headers: Mapping[str, str]
    ) -> Response:
        """The same through `proxy`, which is at `address`."""
        if proxy.scheme == "socks5":
            transport = _Transport(self._socks(proxy, address))
            request = httpx.Request("GET", url, headers=headers)
            try:
                return await transport.handle_async_request(request)
            except (httpx.HTTPError, httpx.InvalidURL, OSError):
                raise
            except Exception as error:
                # socksio has errors of its own, and httpcore takes its answers for granted.
                raise httpx.ProxyError(NO_SOCKS) from error
        if proxy.credentials:
            token = base64.b64encode(proxy.credentials.encode()).decode("ascii")
            headers = {**headers, "Proxy-Authorization": f"Basic {token}"}
        # A proxy is asked for the whole URL ("absolute-form", RFC 9112 section 3.2.2).
        whole = b"http://" + url.netloc + url.raw_path
        backend = _BACKEND
        if proxy.scheme == "https":
            backend = TlsBackend(proxy, await self._context(proxy), self._complete)
        return await self._send(backend, (str(address), proxy.port), whole, headers)

    async def _send(
        self,
        backend: BoundedBackend,
        place: tuple[str, int],
        target: bytes,
        headers: Mapping[str, str],
        patience: float | None = None,
    ) -> Response:
        try:
            stream = await backend.connect_tcp(*place, timeout=patience)
        except httpcore.ConnectTimeout as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except httpcore.ConnectError as error:
            raise httpx.ConnectError(str(error)) from error
        return await ask(stream, target, headers)

    def _socks(self, proxy: Proxy, address: Address) -> httpcore.AsyncConnectionPool:
        user, _, password = proxy.credentials.partition(":")
        auth = (user.encode(), password.encode()) if proxy.credentials else None
        there = httpcore.URL(
            scheme=b"socks5", host=str(address).encode(), port=proxy.port, target=b"/"
        )
        return httpcore.AsyncSOCKSProxy(
            there, auth, self._unused, network_backend=_BACKEND, **_POOL
        )

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


class _Transport(httpx.AsyncHTTPTransport):
    """httpx does not let its users choose the backend of its pool of connections."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool
