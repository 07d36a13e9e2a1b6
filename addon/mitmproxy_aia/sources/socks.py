"""Being connected by a SOCKS5 proxy (RFC 1928, and RFC 1929 for user and password).

Each answer is read up to its last byte and no further: what follows is the server's.
"""

from __future__ import annotations

import ipaddress

import httpx

from mitmproxy_aia.sources.bounded import Stream

NO_SOCKS = "does not speak SOCKS5"
HUNG_UP = "has hung up"
NO_ENTRY = "wants other credentials"
MAX_HOST = 255
"""Characters: their number is in one byte."""

_VERSION = 5
_NO_AUTHENTICATION, _PASSWORD = 0, 2
_PASSWORD_VERSION = 1
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LENGTHS = {_IPV4: 4, _IPV6: 16}
_REASONS = {
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
}
"""Section 6."""


async def connect(stream: Stream, host: str, port: int, credentials: str = "") -> None:
    """Has the proxy at the other end of `stream` connect that to `host`, a name or an address.

    `credentials` are `user:password` or empty. Raises httpx.ProxyError, in words that follow "the
    proxy", and httpx.InvalidURL if such a host cannot be asked for.
    """
    place = _place(host) + port.to_bytes(2)
    try:
        await _connect(stream, place, credentials)
    except (httpx.ReadError, httpx.WriteError) as error:
        raise httpx.ProxyError(HUNG_UP) from error


async def _connect(stream: Stream, place: bytes, credentials: str) -> None:
    method = _PASSWORD if credentials else _NO_AUTHENTICATION
    await stream.write(bytes([_VERSION, 1, method]))
    if (await _answer(stream, 2, _VERSION))[1] != method:
        raise httpx.ProxyError(NO_ENTRY)
    if credentials:
        parts = [part.encode() for part in credentials.split(":", 1)]
        said = b"".join(bytes([len(part)]) + part for part in parts)
        await stream.write(bytes([_PASSWORD_VERSION]) + said)
        if (await _answer(stream, 2, _PASSWORD_VERSION))[1]:
            raise httpx.ProxyError(NO_ENTRY)
    await stream.write(bytes([_VERSION, _CONNECT, 0]) + place)
    _, reason, _, kind = await _answer(stream, 4, _VERSION)
    if reason:
        words = _REASONS.get(reason, f"SOCKS5 error {reason}")
        raise httpx.ProxyError(f"could not connect: {words}")
    # Where it has connected from is of no interest, but it stands before what is.
    length = (await _exactly(stream, 1))[0] if kind == _NAME else _LENGTHS.get(kind)
    if length is None:
        raise httpx.ProxyError(NO_SOCKS)
    await _exactly(stream, length + 2)


def _place(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if len(host) > MAX_HOST:
            raise httpx.InvalidURL(f"its host has more than {MAX_HOST} characters") from None
        return bytes([_NAME, len(host)]) + host.encode("ascii")
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


async def _answer(stream: Stream, size: int, version: int) -> bytes:
    answer = await _exactly(stream, size)
    if answer[0] != version:
        raise httpx.ProxyError(NO_SOCKS)
    return answer


async def _exactly(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.read(size - len(data))
        if not more:
            raise httpx.ProxyError(HUNG_UP)
        data += more
    return data
