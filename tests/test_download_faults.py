"""Downloads from what is no URL, no server, or no HTTP: each is a DownloadError in words."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable

import httpx
import pytest

from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.download_errors import (
    BRIEFLY,
    FAILURE_REMEMBERED,
    DownloadError,
    NotTried,
)
from mitmproxy_aia.sources.http1 import ask
from mitmproxy_aia.sources.transports import Transports
from tests.lab import CaIssuersServer, Issued, dead_url
from tests.lab.listener import Listener
from tests.test_download import HERE, PATIENT, get, why_not


def answer(*parts: bytes) -> Callable[[socket.socket], None]:
    """A server that waits for a request and then says what it likes."""

    def say(connection: socket.socket) -> None:
        connection.recv(4096)
        for part in parts:
            connection.sendall(part)

    return say


def why_not_from(handle: Callable[[socket.socket], None]) -> str:
    server = Listener(handle)
    try:
        return why_not(f"http://127.0.0.1:{server.port}/")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"220 smtp.example ready\r\n\r\n"], "does not speak HTTP (illegal status line"),
        ([], "broke off (Server disconnected"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n0"], "broke off (peer closed"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"X: %b\r\n" % bytes(b"x" * 1000)] * 1000], "does not speak"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], "broke off (Server disconnected"),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "does not speak HTTP ("),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "does not speak HTTP ("),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: ", b"9" * 5000, b"\r\n\r\n"],
            "does not speak HTTP (bad Content-Length)",
        ),
    ],
    ids=["smtp", "closes", "breaks-off", "endless-headers", "100", "101", "length", "digits"],
)
def test_what_is_not_http(parts: list[bytes], reason: str) -> None:
    """Another protocol, or half of an answer."""
    assert why_not_from(answer(*parts)).startswith(reason)


@pytest.mark.parametrize(
    "header",
    [b"X: \xff\xfe", "X: \N{SNOWMAN}".encode(), b"x: 1\r\nX: 2", b"X:", b"X: a\tb"],
    ids=["latin-1", "utf-8", "twice", "empty", "tab"],
)
def test_header_that_nobody_asked_for(header: bytes, root: Issued) -> None:
    """Whatever is in it, the body counts."""
    server = Listener(answer(b"HTTP/1.1 200 OK\r\n", header, b"\r\n\r\n", root.der))
    try:
        assert get(f"http://127.0.0.1:{server.port}/") == ["CN=Lab Root"]
    finally:
        server.close()


def test_log_of_a_stranger_is_printable() -> None:
    """What a server sends instead of HTTP reaches the log escaped."""
    assert why_not_from(answer(b"HTTP/1.1 \x1b[31m\r\n\r\n")).isprintable()


class HangsUp:
    """One that has answered before it was asked, and does not take the request any more."""

    peer = own = None

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def read(self, most: int) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    async def write(self, data: bytes) -> None:
        raise httpx.WriteError("Broken pipe")

    def close(self) -> None:
        """There is nothing to close."""


def test_answer_of_one_who_has_hung_up() -> None:
    """It counts, although the request could not be sent."""

    async def status() -> int:
        stream = HangsUp(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return (await ask(stream, b"/", {"Host": "a.test"})).status_code

    assert asyncio.run(status()) == 404


@pytest.mark.parametrize("step", ["sock_connect", "sock_sendall", "sock_recv"])
def test_network_that_is_gone(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives up on a connection (ETIMEDOUT), which Python calls a TimeoutError."""

    async def gone(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    server = Listener(lambda client: client.sendall(reply))
    monkeypatch.setattr(asyncio.SelectorEventLoop, step, gone)
    try:
        reason = why_not(f"http://127.0.0.1:{server.port}/")
    finally:
        server.close()
    # Who does not take the request may have answered before.
    said = "answered 404" if step == "sock_sendall" else "could not be reached (Connection"
    assert reason.startswith(said)


def test_connection_refused() -> None:
    """The reason is that of the operating system."""
    assert why_not(dead_url()).startswith("could not be reached (")


def test_all_addresses_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses has no single reason."""
    port = int(dead_url("").rpartition(":")[2])
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: [address, address])
    assert why_not(f"http://two.invalid:{port}/").startswith("could not be reached")


def test_unknown_host() -> None:
    """A label of 64 characters is in no name server, and no name server is asked for it."""
    assert why_not(f"http://{'a' * 64}.invalid/").startswith("could not be reached (")


@pytest.mark.parametrize("url", ["http://\x00/", "http://☃.invalid/", "http://" + "a" * 70_000])
def test_not_a_url(url: str) -> None:
    """What stands in a certificate may be anything."""
    assert why_not(url).startswith("is not a URL that can be fetched (")


@pytest.mark.parametrize("url", ["http:///path", "http://", "ftp://127.0.0.1/", "path", ""])
def test_not_http(url: str) -> None:
    """Only http:// with a host is fetched."""
    assert why_not(url) == "is not an http:// URL"


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_impossible_port(port: int) -> None:
    """In the URL or after a redirect, it is a failed download like any other."""
    url = f"http://127.0.0.1:{port}/"
    with CaIssuersServer() as ca:
        for each in (url, ca.redirect("/port", url)):
            assert why_not(each).isprintable()


def test_broken_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure without words is named by its kind."""
    error = httpx.ReadError("")

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Transports, "direct", fail)
    assert why_not(dead_url()) == "broke off (ReadError)"


@pytest.mark.parametrize(
    ("code", "remembered"),
    [
        (errno.ECONNREFUSED, FAILURE_REMEMBERED),
        (errno.EHOSTUNREACH, FAILURE_REMEMBERED),
        (errno.ENETUNREACH, BRIEFLY),
        (errno.EADDRNOTAVAIL, BRIEFLY),
        (errno.ENOBUFS, BRIEFLY),
    ],
)
def test_how_long_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch, code: int, remembered: float
) -> None:
    """A machine without a network does not hold that against a URL for a minute."""

    async def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", fail)
    with pytest.raises(DownloadError) as error:
        get(dead_url())
    assert str(error.value) == f"could not be reached ({os.strerror(code)})"
    assert error.value.remembered == remembered


def test_too_many_open_files() -> None:
    """That is no fault of the URL, and is not remembered as one."""

    async def download() -> None:
        downloader, url = Downloader(lambda: PATIENT), dead_url()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            await downloader(url, HERE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    with pytest.raises(NotTried, match=r"^was not tried \(could .*Too many open"):
        asyncio.run(download())
