"""The egress rule, through the downloader that keeps it, against a second opinion.

A byte string says where the server is, what the URL, the name service and the redirects are,
and what the user allows and denies. What would be connected to is written down, and judged
anew by `addresses.reach`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock
from urllib.parse import urlsplit

import h11
import httpx

from mitmproxy_aia.egress import Policy, Proxy, Server
from mitmproxy_aia.sources import bounded
from mitmproxy_aia.sources.bounded import Stream
from mitmproxy_aia.sources.download import MAX_REDIRECTS, Downloader
from mitmproxy_aia.sources.download_errors import DownloadError, Refused
from tests.fuzz.addresses import (
    CORNERS,
    Address,
    Reach,
    address,
    as_programs_read,
    disguised,
    reach,
)
from tests.fuzz.choices import Choices
from tests.fuzz.promises import one_line, promise

_NAMES = ("ca.example", "pki.corp.example", "localhost", "CA.EXAMPLE.", "bücher.example", "a")
_SCHEMES = (*10 * ("http://",), "HTTP://", "https://", "//", "http:", "\\\\", "")
_PORTS = (*10 * (None,), 80, 8080, 22, 443, 6667, 1, 65535, 65536, 0)
_SERVERS = ("93.184.215.14", "10.1.2.3", "127.0.0.1", "2606:4700::1", "fd12::1", "::1")
_OWN = (("127.0.0.1", 8080), ("0.0.0.0", 443))
_PROXY = Proxy("http", "proxy.example", 3128, "user:password")
_PROXY_ADDRESS = ipaddress.ip_address("198.51.100.7")
_BAD_PORTS = frozenset({1, 22, 6667})
"""Of `_PORTS`, those that the Fetch standard blocks."""


@dataclass(frozen=True)
class _Entry:
    """An entry of `aia_allow` or `aia_deny`, as it is written and as it is meant."""

    text: str
    name: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def fits(self, host: str, port: int, where: Address | None) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return where is not None and any(each in self.network for each in _forms(where))
        name = _idna(host.lower().rstrip("."))
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return name == self.name


@dataclass(frozen=True)
class _Connection:
    """What would be connected to, and what would be said there."""

    address: str
    port: int
    host: str
    headers: httpx.Headers
    target: str


class _Wire:
    """In place of the network. Redirects as `choices` say."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.connections: list[_Connection] = []

    async def connect(self, host: str, port: int, _patience: float | None = None) -> Stream:
        return _Stream(self, host, port)

    def asked(self, host: str, port: int, request: bytes) -> bytes:
        """The answer to a request that has arrived at this address."""
        http = h11.Connection(h11.SERVER)
        http.receive_data(request)
        head = http.next_event()
        assert isinstance(head, h11.Request)
        headers = httpx.Headers(list(head.headers))
        whole = b"" if head.target.startswith(b"/") else head.target
        named = urlsplit(whole).hostname or "" if whole else headers["host"]
        self.connections.append(_Connection(host, port, str(named), headers, whole.decode("ascii")))
        if self._choices.rarely():
            raise httpx.ConnectError("refused")
        if self._choices.flag():
            location = _url(self._choices).encode("utf-8", "surrogateescape")
            return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nno certificate"


class _Stream:
    peer = own = None

    def __init__(self, wire: _Wire, host: str, port: int) -> None:
        self._wire, self._place = wire, (host, port)
        self._answer = b""

    async def read(self, most: int) -> bytes:
        data, self._answer = self._answer[:most], self._answer[most:]
        return data

    async def write(self, data: bytes) -> None:
        self._answer = self._wire.asked(*self._place, data)

    def close(self) -> None:
        """There is nothing to close."""


class _Names:
    """In place of the name service, which may say something else each time."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    async def __call__(
        self, host: str, payer: object = None, patience: float | None = None
    ) -> list[str]:
        if host == _PROXY.host:
            return [str(_PROXY_ADDRESS)]
        if (written := as_programs_read(host)) is not None:
            return [str(written)]
        found = [str(address(self._choices)) for _ in range(self._choices.below(4))]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


def egress(data: bytes) -> None:
    """Whatever URL, names and redirects: no connection to where the rules do not let it go."""
    choices = Choices(data)
    where = ipaddress.ip_address(choices.pick(_SERVERS))
    server = Server("server.example", address(choices) if choices.rarely() else where)
    if choices.rarely():
        server = Server("server.example", None, proxy=_PROXY)
    allow = [_entry(choices) for _ in range(choices.below(3))]
    deny = [_entry(choices) for _ in range(choices.below(2))]
    try:
        policy = Policy.parse([each.text for each in allow], [each.text for each in deny])
    except ValueError as error:
        one_line(str(error))
        return
    url = _url(choices)
    wire = _Wire(choices)
    downloader = Downloader(lambda: 10.0, lambda: policy, lambda: _OWN)
    downloader._resolve = _Names(choices)  # type: ignore[assignment] # stands in
    with mock.patch.object(bounded, "connect", wire.connect):
        reason = asyncio.run(_download(downloader, url, server))
    one_line(reason)
    promise(len(wire.connections) <= 4 * (MAX_REDIRECTS + 1), "too many connections")
    for connection in wire.connections:
        promise("@" not in connection.headers["host"], "credentials in the Host field")
        promise("cookie" not in connection.headers, "a cookie")
        if server.proxy is None:
            _promise_direct(connection, server, allow, deny)
        else:
            _promise_through(connection, allow, deny)


async def _download(downloader: Downloader, url: str, server: Server) -> str:
    try:
        await downloader(url, server)
    except Refused as refused:
        return refused.refusal.words(server)
    except DownloadError as error:
        return str(error)
    return ""


def _promise_direct(
    connection: _Connection, server: Server, allow: Sequence[_Entry], deny: Sequence[_Entry]
) -> None:
    where, port = ipaddress.ip_address(connection.address), connection.port
    host = httpx.URL(f"http://{connection.host}/").raw_host.decode("ascii")
    there, own = reach(where), reach(server.address) if server.address else Reach.PUBLIC
    own = own if own <= Reach.LOOPBACK else Reach.PUBLIC
    shown = f"a connection to {where} port {port} (for {host}) from {server.address}"
    promise(there is not Reach.NEVER, f"{shown}: never")
    promise(not any(each.fits(host, port, where) for each in deny), f"{shown}: denied")
    promise("authorization" not in connection.headers, f"{shown}: with credentials")
    for listener, listening in _OWN:
        mine = listener == "0.0.0.0" and there is Reach.LOOPBACK
        promise(port != listening or not (mine or listener in map(str, _forms(where))), "itself")
    if any(each.fits(host, port, where) and each.port for each in allow):
        return
    promise(port not in _BAD_PORTS, f"{shown}: not a port for HTTP")
    if any(each.fits(host, port, where) for each in allow):
        return
    promise(there <= own, f"{shown}: from a more public place")
    promise(there is not Reach.PUBLIC or port == 80, f"{shown}: not a port to use in public")


def _promise_through(
    connection: _Connection, allow: Sequence[_Entry], deny: Sequence[_Entry]
) -> None:
    promise(connection.address == str(_PROXY_ADDRESS), "not the proxy")
    parts = urlsplit(connection.target)
    host, port = parts.hostname or "", parts.port or 80
    # A zone is no part of an address.
    written = as_programs_read(host.partition("%")[0])
    shown = f"a request for {connection.target} to the proxy"
    promise(not any(each.fits(host, port, written) for each in deny), f"{shown}: denied")
    promise(written is None or reach(written) is not Reach.NEVER, f"{shown}: never")
    if any(each.fits(host, port, written) for each in allow):
        return
    promise(port == 80, f"{shown}: not a port to use in public")
    promise(written is None or reach(written) is Reach.PUBLIC, f"{shown}: not public")
    promise(host.rstrip(".").lower() not in ("localhost", "a"), f"{shown}: its own network")


def _url(choices: Choices) -> str:
    scheme = choices.pick(_SCHEMES)
    user = choices.pick(
        ("", "", "", "", "", "", "8.8.8.8@", "8.8.8.8:80@", "a%40b@", "8.8.8.8\\@", "@")
    )
    named = choices.below(3) == 0
    host = choices.pick(_NAMES) if named else disguised(address(choices), choices)
    port = choices.pick(_PORTS)
    path = choices.pick(
        ("/x", "/x", "", "\\@8.8.8.8/", "?@8.8.8.8", "#@8.8.8.8/", ";@8.8.8.8", "/\t\n")
    )
    text = f"{scheme}{user}{host}{'' if port is None else f':{port}'}{path}"
    if choices.rarely():
        at = choices.below(len(text) + 1)
        text = text[:at] + choices.take(3).decode("latin-1") + text[at:]
    return text


def _entry(choices: Choices) -> _Entry:
    port = choices.pick((None, None, None, *(each for each in _PORTS if each)))
    suffix = "" if port is None else f":{port}"
    match choices.below(4):
        case 0:
            name = choices.pick(("ca.example", "bücher.example", "localhost", "Pki.Corp.Example"))
            return _Entry(f"{name}{suffix}", name=_idna(name.lower()), port=port)
        case 1:
            return _Entry(f"*.example{suffix}", name="*.example", port=port)
        case 2:
            where = address(choices)
            text = f"[{where}]" if where.version == 6 else str(where)
            return _Entry(text + suffix, network=ipaddress.ip_network(where), port=port)
        case _:
            where = address(choices)
            bits = choices.below(where.max_prefixlen + 1)
            network = ipaddress.ip_network((where, bits), strict=False)
            text = f"[{network}]" if network.version == 6 else str(network)
            return _Entry(text + suffix, network=network, port=port)


def _forms(where: Address) -> Iterator[Address]:
    """An address, and the IPv4 address that it leads to."""
    yield where
    if where.version == 6 and int(where) >> 32 in (0xFFFF, 0x64_FF9B << 64):
        yield ipaddress.IPv4Address(int(where) & 0xFFFF_FFFF)


def _idna(name: str) -> str:
    return name.encode("idna").decode("ascii") if not name.isascii() else name


def seeds() -> Iterator[bytes]:
    yield b""
    none, plain = bytes([0, 0, 0, 0]), bytes([0, 0, 1])
    corners, ports, end = range(CORNERS), range(len(_PORTS)), bytes(4)
    for corner in corners:
        where = bytes([7, corner])
        direct, named = plain + where + bytes([0, 7, 0, 0]), bytes([0, 0, 0, 0, 0, 0, 1]) + where
        led = plain + bytes([7, 0, 0, 7, 0, 0, 0, 1])
        denied = bytes([0, 0, 0, 1, 0, 2]) + where
        allowed = bytes([0, 0, 1, 0, 2]) + where + b"\0"
        for server in range(3):
            for url in direct, named, led + direct:
                yield bytes([server]) + none + url + end
        for rules in denied, allowed:
            yield b"\0" + rules + direct + end
    # From everywhere to itself, at each port: to 8.8.8.8, 10.0.0.1, and both ways to write
    # 127.0.0.1.
    for server, corner in (0, 0), (1, 4), (2, 2), (2, 27):
        for port in ports:
            yield bytes([server]) + none + plain + bytes([7, corner, 0, 7, port, 0]) + end
