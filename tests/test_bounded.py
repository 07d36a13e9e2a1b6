"""All that a caIssuers server sends is counted: what comes before a body and between its parts."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import httpx
import pytest

from mitmproxy_aia import formats, slices
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import bounded, download, urls
from mitmproxy_aia.sources.bounded import MAX_ANSWER, MAX_READ
from mitmproxy_aia.sources.http1 import MAX_PARTS
from tests.lab import Issued, pkcs7_der
from tests.lab.listener import Listener
from tests.test_download import HERE, PATIENT, get, why_not
from tests.test_slices import Rounds

CONTINUE = b"HTTP/1.1 100 Continue\r\nY: " + b"y" * 60 + b"\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
TOO_MUCH = "sent more than 256 KiB, head and all"


class Server:
    """Says `parts` to whoever asks. `taken` is how many bytes the other side took."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self.taken = 0
        self._listener = Listener(self._say)
        self.url = f"http://127.0.0.1:{self._listener.port}/"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _say(self, connection: socket.socket) -> None:
        connection.recv(4096)
        for part in self._parts:
            connection.sendall(part)
            self.taken += len(part)


def padded(size: int, body: bytes) -> bytes:
    """An answer of just `size` bytes with `body`, after many that say 100 Continue."""
    end = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    number, rest = divmod(size - len(end), len(CONTINUE))
    # The last of them has a header, and so is larger by what is missing.
    filled = CONTINUE[:-2] + b"X:" + b"x" * (len(CONTINUE) + rest - 4) + b"\r\n\r\n"
    answer = CONTINUE * (number - 2) + filled + end
    assert len(answer) == size
    return answer


def test_at_the_limit(root: Issued) -> None:
    """As much as may be is read to the end."""
    with Server([padded(MAX_ANSWER, root.der)]) as server:
        assert get(server.url) == ["CN=Lab Root"]


def test_one_byte_beyond(root: Issued) -> None:
    """The same answer with one byte more is none."""
    with Server([padded(MAX_ANSWER + 1, root.der)]) as server:
        assert why_not(server.url) == TOO_MUCH


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MANY: dict[str, tuple[bytes, bytes]] = {
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"\r\n"),
    "chunks": (b"1\r\nx\r\n", b"0\r\n\r\n"),
}


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("what", MANY)
def test_parts(what: str, more: bool) -> None:
    """They take time, however small they are; so their number has a limit too."""
    piece, end = MANY[what]
    start = CHUNKED if what == "chunks" else b""
    # The head and the end of the body are parts as well.
    with Server([start, piece * (MAX_PARTS - 2 + more), end]) as server:
        said = why_not(server.url)
    if more:
        assert said == f"does not speak HTTP (more than {MAX_PARTS} parts)"
    else:
        assert said.startswith("is ")  # no certificate


def without_end(piece: bytes, start: bytes = b"") -> Iterator[bytes]:
    """64 MiB of it: more than ever fits into the buffers of two sockets."""
    many = piece * (65536 // len(piece))
    yield start
    for _ in range(1024):
        yield many


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a million times 100 Continue": lambda: without_end(CONTINUE),
    "early hints": lambda: without_end(
        b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"a" * 10_000 + b">\r\n\r\n"
    ),
    "kilobytes beside each byte": lambda: without_end(
        b"1;" + b"x" * 16_000 + b"\r\n0\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_without_end(what: str) -> None:
    """It ends with the limit, and does not last until the time is up."""
    with Server(ENDLESS[what]()) as server:
        assert why_not(server.url) == TOO_MUCH
    assert server.taken < 32 * 2**20


def test_little_at_a_time(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much has arrived, the event loop gets its turn after some of it."""
    sizes = []
    read = bounded._BoundedStream.read

    async def watched(self: bounded._BoundedStream, size: int) -> bytes:
        data = await read(self, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(bounded._BoundedStream, "read", watched)
    with Server([padded(MAX_ANSWER, root.der)]) as server:
        assert get(server.url) == ["CN=Lab Root"]
    assert max(sizes) <= MAX_READ
    assert sum(sizes) == MAX_ANSWER


def test_certificates_one_at_a_time(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have got a bundle: when that takes time, one certificate of it is read in each
    round of the event loop."""
    monkeypatch.setattr(slices, "SHARED", 0.0)
    bundle = pkcs7_der(*(root.issue(ca=True) for _ in range(20)))
    rounds: list[int] = []
    pieces = formats.pieces

    async def main(url: str) -> None:
        counter = Rounds()

        def watched(data: bytes) -> Iterator[Certificate | None]:
            for piece in pieces(data):
                rounds.append(counter.number)
                yield piece

        monkeypatch.setattr(download, "pieces", watched)
        downloader = download.Downloader(lambda: PATIENT)
        for found in await asyncio.gather(*(downloader(url, HERE) for _ in range(4))):
            assert len(found) == 20
        counter.stop()

    with Server([OK + b"\r\n" + bundle]) as server:
        asyncio.run(main(server.url))
    assert len({*rounds}) == len(rounds) == 4 * 20


def test_trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who sends his answer byte by byte does not have each of them taken up by itself."""
    reads = []
    read = bounded._BoundedStream.read

    async def watched(self: bounded._BoundedStream, size: int) -> bytes:
        reads.append(await read(self, size))
        return reads[-1]

    def bytewise() -> Iterator[bytes]:
        yield OK + b"Content-Length: 60000\r\n\r\n"
        for _ in range(60_000):
            time.sleep(0.0001)
            yield b"x"

    monkeypatch.setattr(bounded._BoundedStream, "read", watched)
    with Server(bytewise()) as server:
        assert why_not(server.url, timeout=1.0) == "gave no answer in 1 s"
        assert server.taken > 1000
    # The waits of one second are 1, 2, 3, ... 44 ms.
    assert len(reads) <= bounded.FREE_READS + 45


def test_one_at_a_time(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have got something, or have a URL to read: when that takes time, one of them is
    served in each round of the event loop."""
    monkeypatch.setattr(slices, "SHARED", 0.0)
    rounds: list[int] = []

    async def main(url: str) -> None:
        counter = Rounds()
        read = bounded._BoundedStream.read

        async def watched(self: bounded._BoundedStream, size: int) -> bytes:
            data = await read(self, size)
            rounds.append(counter.number)
            return data

        def parsed(text: str) -> httpx.URL:
            rounds.append(counter.number)
            return httpx.URL(text)

        monkeypatch.setattr(bounded._BoundedStream, "read", watched)
        monkeypatch.setattr(urls, "httpx", SimpleNamespace(**vars(httpx) | {"URL": parsed}))
        downloader = download.Downloader(lambda: PATIENT)
        await asyncio.gather(*(downloader(url, HERE) for _ in range(4)))
        counter.stop()

    with Server([padded(MAX_ANSWER // 2, root.der)]) as server:
        asyncio.run(main(server.url))
    assert len(rounds) >= 4 * (1 + MAX_ANSWER // 2 // MAX_READ)
    assert len({*rounds}) == len(rounds)
