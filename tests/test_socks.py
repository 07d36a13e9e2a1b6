"""Being connected by a SOCKS5 proxy, byte by byte over a socket."""

import asyncio
import socket
import struct

import httpx
import pytest

from mitmproxy_aia.sources import bounded, socks
from tests.lab.listener import Listener

METHOD, CONNECTED = b"\x05\x00", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
GREETING = b"\x05\x01\x00"


def connected(
    *answers: bytes, host: str = "ca.example", credentials: str = "", at_a_time: int = 99
) -> tuple[bytes, bytes]:
    """What a proxy hears that gives these answers, one to each request, so many bytes at a time;
    and what then comes from the server."""
    heard: list[bytes] = []

    def talk(client: socket.socket) -> None:
        for answer in answers:
            heard.append(client.recv(4096))
            for start in range(0, len(answer), at_a_time):
                client.sendall(answer[start : start + at_a_time])

    async def connect(port: int) -> bytes:
        stream = await bounded.connect("127.0.0.1", port)
        try:
            await socks.connect(stream, host, 80, credentials)
            return await stream.read(4096)
        finally:
            stream.close()

    proxy = Listener(talk)
    try:
        server = asyncio.run(connect(proxy.port))
    finally:
        proxy.close()
    return b"|".join(heard), server


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("ca.example", b"\x03\x0aca.example"),
        ("8.8.4.4", b"\x01\x08\x08\x04\x04"),
        ("2001:4860::8", b"\x04\x20\x01\x48\x60" + bytes(11) + b"\x08"),
        ("a" * 255, b"\x03\xff" + b"a" * 255),
    ],
)
def test_place(host: str, place: bytes) -> None:
    """Names are the proxy's to look up; addresses go as such."""
    heard, _ = connected(METHOD, CONNECTED, host=host)
    assert heard == GREETING + b"|\x05\x01\x00" + place + b"\x00\x50"


def test_host_that_is_too_long() -> None:
    """Nobody is asked for it."""
    with pytest.raises(httpx.InvalidURL, match="more than 255 characters"):
        connected(METHOD, CONNECTED, host="a" * 256)


def test_credentials() -> None:
    """In bytes of UTF-8, a password with colons in it, and one that is empty."""
    for said, told in {
        "me:p@ss:ü": b"\x01\x02me\x07p@ss:\xc3\xbc",
        "me:": b"\x01\x02me\x00",
    }.items():
        heard, _ = connected(b"\x05\x02", b"\x01\x00", CONNECTED, credentials=said)
        assert heard.split(b"|")[:2] == [b"\x05\x01\x02", told]


@pytest.mark.parametrize("at_a_time", [1, 3, 99])
@pytest.mark.parametrize(
    "place", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x00", b"\x03\x0bproxy.local"]
)
def test_where_the_answer_ends(place: bytes, at_a_time: int) -> None:
    """What follows is the server's, however it arrives."""
    answer = b"\x05\x00\x00" + place + b"\x00\x50" + b"H"
    _, server = connected(METHOD, answer, at_a_time=at_a_time)
    assert server == b"H"


@pytest.mark.parametrize(
    ("answers", "credentials", "what"),
    [
        ([b"\x05\xff"], "", socks.NO_ENTRY),
        ([b"\x05\x02"], "", socks.NO_ENTRY),
        ([b"\x05\x00"], "me:pw", socks.NO_ENTRY),
        ([b"\x05\x02", b"\x01\x01"], "me:pw", socks.NO_ENTRY),
        ([b"\x05\x02", b"\x05\x00"], "me:pw", socks.NO_SOCKS),
        ([METHOD, b"\x05\x02\x00\x01"], "", "could not connect: its rules do not allow it"),
        ([METHOD, b"\x05\x05\x00\x01"], "", "could not connect: connection refused"),
        ([METHOD, b"\x05\x63\x00\x01"], "", "could not connect: SOCKS5 error 99"),
        ([METHOD, b"\x05\x00\x00\x09"], "", socks.NO_SOCKS),
        ([METHOD, CONNECTED[:-1]], "", socks.HUNG_UP),
    ],
)
def test_refusals(answers: list[bytes], credentials: str, what: str) -> None:
    """In words that follow "the proxy"."""
    with pytest.raises(httpx.ProxyError) as error:
        connected(*answers, credentials=credentials)
    assert str(error.value) == what


def test_reset() -> None:
    """A connection that breaks is one that was hung up."""

    async def main(proxy: socket.socket) -> None:
        stream = await bounded.connect(*proxy.getsockname())
        client, _ = proxy.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        try:
            await socks.connect(stream, "ca.example", 80)
        finally:
            stream.close()

    with (
        socket.create_server(("127.0.0.1", 0)) as proxy,
        pytest.raises(httpx.ProxyError, match=socks.HUNG_UP) as error,
    ):
        asyncio.run(main(proxy))
    assert error.value.__cause__ is not None
