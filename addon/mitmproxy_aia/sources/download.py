"""The HTTP request behind one caIssuers URL, and its limits."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable

import httpx

from mitmproxy_aia.certificates import Certificate, printable, read_certificates
from mitmproxy_aia.sources.aia import DownloadError, NotTried
from mitmproxy_aia.sources.resolver import Resolver

# Ten lines for each request are no help to someone who debugs his own traffic.
logging.getLogger("httpcore").setLevel(logging.INFO)

MAX_BODY = 64 * 1024
"""Bytes."""
SMALL_BODY = 4 * 1024
"""Bytes that take no time worth mentioning to parse. There may be hundreds of certificates in
more than that, which would keep the event loop for tens of milliseconds."""
MAX_REDIRECTS = 3
MAX_DOWNLOADS = 256
"""Downloads at the same time."""

_HEADERS = {
    # All that a download says. No cookies, no credentials, nothing about the user.
    "Accept": "application/pkix-cert, application/pkcs7-mime, */*;q=0.5",
    "Accept-Encoding": "identity",
    "User-Agent": "mitmproxy-aia",
    "Connection": "close",
}


class Downloader:
    """Gets certificates over plain HTTP. Call it with a URL.

    `timeout` gives the seconds that one URL may take with all its redirects.
    """

    def __init__(self, timeout: Callable[[], float]) -> None:
        self._timeout = timeout
        # The bare transport instead of an httpx.AsyncClient: it has no cookie jar, follows no
        # redirect and reads no environment. The SSL context is never used; without one,
        # httpx takes 13-60 ms to load the roots of certifi.
        self._transport = httpx.AsyncHTTPTransport(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._resolve = Resolver()

    async def __call__(self, url: str) -> tuple[Certificate, ...]:
        """Raises `DownloadError`."""
        timeout = self._timeout()
        try:
            async with asyncio.timeout(timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise NotTried(f"was not tried ({MAX_DOWNLOADS} downloads are under way)") from None
        try:
            return await self._certificates_at(url, timeout)
        finally:
            self._slots.release()

    async def _certificates_at(self, url: str, seconds: float) -> tuple[Certificate, ...]:
        try:
            async with asyncio.timeout(seconds):
                body = await self._follow(url)
        except TimeoutError:
            raise DownloadError(f"gave no answer in {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            if isinstance(error, DownloadError):
                raise
            raise DownloadError(_in_words(error)) from error
        try:
            if len(body) <= SMALL_BODY:
                return read_certificates(body)
            return await asyncio.to_thread(read_certificates, body)
        except ValueError as error:
            raise DownloadError(str(error)) from error

    async def _follow(self, url: str) -> bytes:
        """The body that `url` leads to, through redirects; each hop is checked again."""
        target = httpx.URL(url)
        for redirects in range(MAX_REDIRECTS + 1):
            if (flaw := _flaw(target)) is not None:
                where = f"led to {printable(str(target))}, which " if redirects else ""
                raise DownloadError(where + flaw)
            status, location, body = await self._get(target.copy_with(userinfo=b"", fragment=None))
            if status == httpx.codes.OK:
                return body
            if location is None or status not in (301, 302, 303, 307, 308):
                raise DownloadError(f"answered {status}")
            target = target.join(location)
        raise DownloadError(f"led to more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: httpx.URL) -> tuple[int, str | None, bytes]:
        """Status, Location and, if the status is 200, the body."""
        response = await self._connect(url)
        try:
            if response.status_code != httpx.codes.OK:
                return response.status_code, response.headers.get("location"), b""
            encoding = response.headers.get("content-encoding", "")
            if encoding.lower() not in ("", "identity"):
                raise DownloadError(f"sent {printable(encoding)} data, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY:
                    raise DownloadError(f"is larger than {MAX_BODY // 1024} KiB")
            return response.status_code, None, bytes(body)
        finally:
            await response.aclose()

    async def _connect(self, url: httpx.URL) -> httpx.Response:
        """The head of the answer, from the first of the host's addresses that can be reached."""
        failure: httpx.ConnectError | None = None
        for address in await self._addresses(url.host):
            # The name is in the Host field only, so that nobody looks it up once more.
            headers = {"Host": url.netloc.decode("ascii"), **_HEADERS}
            request = httpx.Request("GET", url.copy_with(host=address), headers=headers)
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError as error:
                failure = error
        raise failure or DownloadError("has a host without an address")

    async def _addresses(self, host: str) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        return await self._resolve(host)


def _flaw(url: httpx.URL) -> str | None:
    """Why `url` is not one that we would ask."""
    if url.scheme != "http" or not url.host:
        return "is not an http:// URL"
    if url.port is not None and not 0 < url.port <= 65535:
        return f"names the port {url.port}, which does not exist"
    return None


def _in_words(error: Exception) -> str:
    """What a failed request means to a person."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"could not be reached ({cause.strerror})"
        if isinstance(cause, OSError) and cause.errno:
            return f"could not be reached ({os.strerror(cause.errno)})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError):
        return f"could not be reached ({error})"
    if isinstance(error, httpx.ConnectError):
        return "could not be reached"
    # httpx calls it a protocol error, too, when a server ends a connection too early.
    closed = any(words in str(error) for words in ("disconnected", "peer closed"))
    if isinstance(error, httpx.ProtocolError) and not closed:
        return f"does not speak HTTP ({printable(str(error))})"
    if isinstance(error, httpx.TransportError):
        return f"broke off ({printable(str(error)) or type(error).__name__})"
    return f"is not a URL that can be fetched ({printable(str(error))})"
