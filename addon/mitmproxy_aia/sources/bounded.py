"""Connections to a stranger who may send so many bytes and no more, whatever they are.

A body has a limit of its own. What comes before it and between its chunks has none in HTTP: a
server may say `100 Continue` a million times, or put kilobytes beside each byte.
"""

from __future__ import annotations

# ruff: noqa: ASYNC109 -- the parameters are httpcore's
import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import httpcore

from mitmproxy_aia.slices import moment
from mitmproxy_aia.sources.download_errors import DownloadError

MAX_ANSWER = 256 * 1024
"""Bytes: four times what a body may have, and more than any head that httpcore takes."""
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

_T = TypeVar("_T")

_opened: ContextVar[list[_BoundedStream] | None] = ContextVar("opened", default=None)


@contextlib.contextmanager
def closed_at_the_end() -> Iterator[None]:
    """For the connections that are made inside. httpcore forgets to close one if it is cancelled
    in the wrong moment."""
    opened: list[_BoundedStream] = []
    token = _opened.set(opened)
    try:
        yield
    finally:
        _opened.reset(token)
        for stream in opened:
            stream.abort()


class BoundedBackend(httpcore.AsyncNetworkBackend):
    """Makes connections that raise `DownloadError` with the first byte after `MAX_ANSWER`. They
    are made to addresses: no name is looked up here."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            made = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        try:
            made.setblocking(False)
            # As asyncio does it for its own: what is written in two parts is not to wait.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _within(timeout, loop.sock_connect(made, (host, port)))
        except BaseException as error:
            made.close()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout(str(error)) from error
            if isinstance(error, OSError):
                raise httpcore.ConnectError(str(error)) from error
            raise
        stream = _BoundedStream(loop, made)
        if (opened := _opened.get()) is not None:
            opened.append(stream)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A bare socket: asyncio's transports and streams would take longer than all the rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
        self._loop = loop
        self._socket = connected
        self._left = MAX_ANSWER
        self._reads = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._reads += 1
        if self._reads > FREE_READS:
            await asyncio.sleep(min((self._reads - FREE_READS) * LONGER, LONGEST))
        try:
            size = min(max_bytes, MAX_READ)
            data = await _within(timeout, self._loop.sock_recv(self._socket, size))
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise DownloadError(f"sent more than {MAX_ANSWER // 1024} KiB, head and all")
        # The caller parses it. More may be there already, for him and for many others.
        await moment()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await _within(timeout, self._loop.sock_sendall(self._socket, buffer))
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Closes it without a farewell: there is nothing more to say."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "peername":
            return self._socket.getpeername()
        return self._socket.getsockname() if info == "sockname" else None


async def _within(seconds: float | None, what: Coroutine[Any, Any, _T]) -> _T:
    """`what` gives, if that takes no more than `seconds`. Raises TimeoutError."""
    if seconds is None:
        return await what
    async with asyncio.timeout(seconds):
        return await what
