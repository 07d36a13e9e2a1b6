"""Connections to a stranger who may send so many bytes and no more, whatever they are.

A body has a limit of its own. What comes before it and between its chunks has none in HTTP: a
server may say `100 Continue` a million times, or put kilobytes beside each byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import httpx

from mitmproxy_aia.slices import moment
from mitmproxy_aia.sources.download_errors import DownloadError

MAX_ANSWER = 256 * 1024
"""Bytes: four times what a body may have."""
MAX_READ = 4 * 1024
"""Bytes taken up at a time. The event loop gets its turn in between: in as many there may be 680
chunks of one byte, which take 10 ms."""
FREE_READS = MAX_ANSWER // MAX_READ
"""As many as the largest answer takes if it is there. Each byte that comes alone costs a round of
the event loop, so that whoever sends more pieces has to wait until there is more to take up."""
LONGER = 0.001
"""Seconds by which each wait is longer than the one before."""
LONGEST = 0.1
"""Seconds."""

_opened: ContextVar[list[_BoundedStream] | None] = ContextVar("opened", default=None)


class Stream(Protocol):
    """A connection. `peer` and `own` are the addresses at its ends, as sockets have them."""

    @property
    def peer(self) -> Any: ...

    @property
    def own(self) -> Any: ...

    async def read(self, most: int) -> bytes:
        """At least one byte and not more than `most`, or nothing at the end. Raises
        httpx.ReadError, and `DownloadError` if too much has come."""

    async def write(self, data: bytes) -> None:
        """Raises httpx.WriteError."""

    def close(self) -> None:
        """Without a farewell: there is nothing more to say. Twice is once."""


@contextlib.contextmanager
def closed_at_the_end() -> Iterator[None]:
    """For the connections that are made inside, wherever what was under way with them ends."""
    opened: list[_BoundedStream] = []
    token = _opened.set(opened)
    try:
        yield
    finally:
        _opened.reset(token)
        for stream in opened:
            stream.close()


async def connect(host: str, port: int, patience: float | None = None) -> Stream:
    """A connection that raises `DownloadError` with the first byte after `MAX_ANSWER`. `host` is an
    address: no name is looked up here. It has `patience` seconds, if that is not None. Raises
    httpx.ConnectTimeout and httpx.ConnectError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error
    try:
        made.setblocking(False)
        # As asyncio does it for its own: what is written in two parts is not to wait.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(patience):
            await loop.sock_connect(made, (host, port))
    except BaseException as error:
        made.close()
        if isinstance(error, TimeoutError):
            raise httpx.ConnectTimeout(str(error)) from error
        if isinstance(error, OSError):
            raise httpx.ConnectError(str(error)) from error
        raise
    stream = _BoundedStream(loop, made)
    if (opened := _opened.get()) is not None:
        opened.append(stream)
    return stream


class _BoundedStream:
    """A bare socket: asyncio's transports and streams would take longer than all the rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
        self._loop = loop
        self._socket = connected
        self._left = MAX_ANSWER
        self._reads = 0

    @property
    def peer(self) -> Any:
        return self._socket.getpeername()

    @property
    def own(self) -> Any:
        return self._socket.getsockname()

    async def read(self, most: int) -> bytes:
        self._reads += 1
        if self._reads > FREE_READS:
            await asyncio.sleep(min((self._reads - FREE_READS) * LONGER, LONGEST))
        try:
            data = await self._loop.sock_recv(self._socket, min(most, MAX_READ))
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise DownloadError(f"sent more than {MAX_ANSWER // 1024} KiB, head and all")
        # The caller parses it. More may be there already, for him and for many others.
        await moment()
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise httpx.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()
