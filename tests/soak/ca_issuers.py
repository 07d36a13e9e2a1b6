"""One process that is all the caIssuers servers: the first part of a path tells how it behaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.soak.pki import Hand
from tests.soak.sites import Internet

_FOREVER = 3600.0
_BOMB = gzip.compress(bytes(10_000_000))


def serve(internet: Internet, port: int) -> None:
    """The process. Listens on `port`; ends when it is ended."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_CaIssuers(internet, port).run())


class _CaIssuers:
    def __init__(self, internet: Internet, port: int) -> None:
        self._answers = internet.answers
        self._hand = Hand(internet.authorities)
        self._port = port
        self._url = f"http://127.0.0.1:{port}"
        self._behaviours: dict[str, Callable[[asyncio.StreamWriter, str], Awaitable[None]]] = {
            "hang": self._hang,
            "drip": self._drip,
            "long": self._long,
            "short": self._short,
            "reset": self._reset,
            "flood": self._flood,
            "header": self._header,
            "headers": self._headers,
            "bomb": self._bomb,
            "ssh": self._ssh,
        }

    async def run(self) -> None:
        server = await asyncio.start_server(self._converse, "127.0.0.1", self._port, backlog=512)
        await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode("ascii")
            first = path.split("/")[1]
            # A client that goes away ends whatever we were doing to it.
            behave = self._behaviours.get(first, self._well)
            doing = asyncio.ensure_future(behave(writer, path))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
            for task in (doing, gone):
                task.cancel()
            await asyncio.gather(doing, gone, return_exceptions=True)
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _well(self, writer: asyncio.StreamWriter, path: str) -> None:
        """A status, a Location or a body with its length."""
        _, first, *rest = path.split("/")
        number = int(rest[0]) if rest and rest[0].isdigit() else 0
        body, location = self._answers.get(path), ""
        match first:
            case "fresh":
                body = self._hand.fresh_issuer(number).der
            case "endless":
                depth = int(rest[1])
                url = f"{self._url}/endless/{number}/{depth + 1}"
                body = self._hand.endless(number, depth, [url]).der
            case "root":
                body = self._hand.self_signed(number).der
            case "crowd":
                body = self._answers["/crowd"]
            case "junk":
                body = b"<html>404 but with status 200</html>"
            case "redirect":
                location = f"{self._url}/fresh/{number}"
            case "circle":
                location = f"{self._url}{path}"
            case "https":
                location = f"https://127.0.0.1:{self._port}/fresh/{number}"
            case "file":
                location = "file:///etc/ssl/certs/ca-certificates.crt"
        status = "302 Found" if location else "404 Not Found" if body is None else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\n"
        if location:
            head += f"Location: {location}\r\n"
        await _send(writer, head.encode() + b"\r\n" + (body or b""))

    async def _hang(self, writer: asyncio.StreamWriter, path: str) -> None:
        await asyncio.sleep(_FOREVER)

    async def _drip(self, writer: asyncio.StreamWriter, path: str) -> None:
        await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        for _ in range(500):
            await _send(writer, b"0")
            await asyncio.sleep(0.5)

    async def _long(self, writer: asyncio.StreamWriter, path: str) -> None:
        body = self._hand.self_signed(0).der
        await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + body)

    async def _short(self, writer: asyncio.StreamWriter, path: str) -> None:
        body = self._hand.self_signed(0).der
        await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + body)

    async def _reset(self, writer: asyncio.StreamWriter, path: str) -> None:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def _flood(self, writer: asyncio.StreamWriter, path: str) -> None:
        await _send(writer, b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await _send(writer, bytes(16384))

    async def _header(self, writer: asyncio.StreamWriter, path: str) -> None:
        await _send(writer, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n")

    async def _headers(self, writer: asyncio.StreamWriter, path: str) -> None:
        await _send(writer, b"HTTP/1.1 200 OK\r\n")
        for number in itertools.count():
            await _send(writer, b"X-%d: %s\r\n" % (number, b"x" * 1000))

    async def _bomb(self, writer: asyncio.StreamWriter, path: str) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        await _send(writer, head % len(_BOMB) + _BOMB)

    async def _ssh(self, writer: asyncio.StreamWriter, path: str) -> None:
        await _send(writer, b"SSH-2.0-OpenSSH_9.9\r\n")


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
