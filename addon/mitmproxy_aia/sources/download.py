"""The HTTP request behind one caIssuers URL, and its limits."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Hashable, Sequence

import httpx

from mitmproxy_aia.addresses import Address, bare, literal
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import HTTP_PORT, Policy, Proxy, Refusal, Server, is_own
from mitmproxy_aia.formats import pieces
from mitmproxy_aia.names import printable
from mitmproxy_aia.slices import moment
from mitmproxy_aia.sources.bounded import closed_at_the_end
from mitmproxy_aia.sources.download_errors import DownloadError, NotTried, Refused
from mitmproxy_aia.sources.failures import (
    FAILURES,
    answered,
    in_words,
    said_by,
    told,
    too_late,
    too_many_files,
)
from mitmproxy_aia.sources.http1 import Answer
from mitmproxy_aia.sources.proxy_tls import Complete
from mitmproxy_aia.sources.resolver import Resolver, TooManyLookups
from mitmproxy_aia.sources.transports import Transports
from mitmproxy_aia.sources.urls import flaw_of, joined, parsed

MAX_BODY = 64 * 1024
"""Bytes."""
MAX_REDIRECTS = 3
MAX_ADDRESSES = 8
"""Of a name, those that the system's resolver takes for the best. A stranger's name may have
thousands, and each is somebody whom we would knock at."""
CONNECT_SECONDS = 2.0
"""How long an address may keep us from the next one of the same name."""

_HEADERS = {
    # All that a download says. No cookies, no credentials, nothing about the user.
    "Accept": "application/pkix-cert, application/pkcs7-mime, */*;q=0.5",
    "Accept-Encoding": "identity",
    "User-Agent": "mitmproxy-aia",
    "Connection": "close",
}


class Downloader:
    """Gets certificates over plain HTTP. Call it with a URL and the server that is the cause.

    `timeout` gives the seconds that one URL may take with all its redirects, `policy` where a
    download may go, and `listeners` where this proxy itself listens.
    """

    def __init__(
        self,
        timeout: Callable[[], float],
        policy: Callable[[], Policy] = Policy,
        listeners: Callable[[], Sequence[tuple[str, int]]] = tuple,
        frozen: Callable[[], str] = str,
        complete: Complete | None = None,
    ) -> None:
        self._timeout = timeout
        self._policy = policy
        self._listeners = listeners
        self._frozen = frozen
        self._transports = Transports(complete)
        self._resolve = Resolver()

    async def __call__(self, url: str, server: Server) -> tuple[Certificate, ...]:
        """Raises `DownloadError`."""
        seconds = self._timeout()
        hops: list[httpx.URL] = []
        try:
            with closed_at_the_end():
                async with asyncio.timeout(seconds) as limit:
                    return await self._follow(url, server, hops)
        except FAILURES as error:
            where = f"led to {printable(str(hops[-1]))}, which " if hops[1:] else ""
            if limit.expired():
                raise too_late(seconds, where, server.proxy) from None
            raise told(error, where, server.proxy) from error

    async def _follow(
        self, url: str, server: Server, hops: list[httpx.URL]
    ) -> tuple[Certificate, ...]:
        """What `url` leads to, through redirects. Each hop is judged, and added to `hops`."""
        target = await parsed(url)
        while len(hops) <= MAX_REDIRECTS:
            hops.append(target)
            if reason := self._frozen():
                raise NotTried(f"was not downloaded ({reason})")
            certificates, location = await self._hop(target, server)
            if location is None:
                return certificates
            try:
                target = await joined(target, location)
            except (httpx.InvalidURL, ValueError) as error:
                what = printable(str(error))
                raise DownloadError(f"redirects to what is no URL ({what})") from error
        hops.clear()
        raise DownloadError(f"led to more than {MAX_REDIRECTS} redirects")

    async def _hop(
        self, url: httpx.URL, server: Server
    ) -> tuple[tuple[Certificate, ...], str | None]:
        """What `url` gives, or where it leads to."""
        if (flaw := flaw_of(url)) is not None:
            raise DownloadError(flaw)
        if url.userinfo or url.fragment:
            url = url.copy_with(userinfo=b"", fragment=None)
        status, location, body = await self._get(url, server)
        if status == httpx.codes.OK:
            return await _read(body), None
        if not location or status not in (301, 302, 303, 307, 308):
            raise answered(status, server.proxy)
        return (), location

    async def _get(self, url: httpx.URL, server: Server) -> tuple[int, str | None, bytes]:
        """Status, Location and, if the status is 200, the body."""
        response = await self._ask(url, server)
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
            response.close()

    async def _ask(self, url: httpx.URL, server: Server) -> Answer:
        """The head of the answer of `url`, if it may be asked at all."""
        # Without IDNA: as it will be looked up.
        host, port = url.raw_host.decode("ascii"), url.port or HTTP_PORT
        policy, address = self._policy(), literal(host)
        addresses: Sequence[Address | None] = [address]
        if server.proxy is None:
            if (refusal := policy.denies(host, port, address)) is not None:
                raise Refused(refusal)
            addresses = await self._addresses(host, server.group)
        good: list[Address] = []
        refusals: list[Refusal] = []
        for each in addresses:
            here = each is not None and _is_local(bare(each))
            refusal = policy.judge(server.permits, host, port, each, here=here)
            if refusal is None and each is not None and self._is_own(each, port):
                refusal = Refusal("is where this proxy itself listens", option="")
            if refusal is not None:
                refusals.append(refusal)
            elif each is not None:
                good.append(each)
        if refusals and not good:
            raise Refused(refusals[0])
        headers = {"Host": url.netloc.decode("ascii"), **_HEADERS}
        if server.proxy is not None:
            return await self._ask_through(server.proxy, url, headers)
        # The name is in the Host field only. It is not looked up once more: what was judged
        # is what is connected to, whatever the name service says next.
        failure: httpx.TransportError | None = None
        for number, each in enumerate(good, 1):
            try:
                patience = CONNECT_SECONDS if number < len(good) else None
                return await self._transports.direct(each, url, headers, patience)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or DownloadError("has a host without an address")

    async def _ask_through(self, proxy: Proxy, url: httpx.URL, headers: dict[str, str]) -> Answer:
        """The same, through a proxy. The user has named that, so its address is not judged."""
        failure: Exception | None = None
        try:
            addresses = await self._addresses(proxy.host, None)
            for number, address in enumerate(addresses, 1):
                if self._is_own(address, proxy.port):
                    raise NotTried(f"was not tried ({proxy.option} leads to this proxy itself)")
                patience = CONNECT_SECONDS if number < len(addresses) else None
                try:
                    return await self._transports.through(proxy, address, url, headers, patience)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    failure = error
        except (DownloadError, TooManyLookups):
            raise
        except httpx.TransportError as error:
            if proxy.answers or isinstance(error, httpx.ProxyError):
                raise said_by(proxy, error) from error
            raise
        except OSError as error:
            # Its name, or the roots for it.
            failure = error
        if failure is None:
            raise NotTried(f"was not tried (the proxy has no address; {proxy.option})")
        what = f"was not tried (the proxy {in_words(failure)}; {proxy.option})"
        # Nothing is known of the URL by that.
        raise NotTried(what) from failure

    async def _addresses(self, host: str, payer: Hashable | None) -> list[Address]:
        if (address := literal(host)) is not None:
            return [address]
        # Less than all, so that who waits in vain is told why.
        seconds = 0.9 * self._timeout()
        try:
            async with asyncio.timeout(seconds):
                found = await self._resolve(host, payer, seconds / 2)
        except TimeoutError:
            what = f"no name server has answered in {seconds:g} s"
            raise socket.gaierror(socket.EAI_AGAIN, what) from None
        return [ipaddress.ip_address(text) for text in found[:MAX_ADDRESSES]]

    def _is_own(self, address: Address, port: int) -> bool:
        return is_own(address, port, self._listeners(), _is_local)


def _is_local(address: Address) -> bool:
    """Whether `address` is one of this machine's. Nothing is sent."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unused:
            # Not `bind`: where the kernel is told to, that takes every address for its own.
            unused.connect((str(address), 9))
            return ipaddress.ip_address(unused.getsockname()[0]) == address
    except OSError as error:
        # Nothing can be said of it then.
        return too_many_files(error)


async def _read(body: bytes) -> tuple[Certificate, ...]:
    """In the event loop, which a thread would keep from running as well, and that for longer."""
    found: dict[Certificate, None] = {}
    try:
        await moment()
        for piece in pieces(body):
            if piece is not None:
                found[piece] = None
            # There may be hundreds of them.
            await moment()
    except ValueError as error:
        raise DownloadError(str(error)) from error
    return tuple(found)
