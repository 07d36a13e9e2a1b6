"""Connections to a stranger who may send so many bytes and no more, whatever they are.

A body has a limit of its own. What comes before it and between its chunks has none in HTTP: a
server may say `100 Continue` a million times, or put kilobytes beside each byte.
"""

from __future__ import annotations

# ruff: noqa: ASYNC109 -- the parameters are httpcore's
import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import httpcore

from mitmproxy_aia.sources.aia import DownloadError

MAX_ANSWER = 256 * 1024
"""Bytes: four times what a body may have, and more than any head that httpcore takes."""
MAX_READ = 4 * 1024
"""Bytes taken up at a time. The event loop gets its turn in between; in as many there may be
160 answers `100 Continue`, which take 2 ms."""

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
    """Makes connections that raise `DownloadError` with the first byte after `MAX_ANSWER`."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                # anyio, which httpcore would use, loses a connection that is made just when
                # its task is cancelled.
                reader, writer = await asyncio.open_connection(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        stream = _BoundedStream(reader, writer)
        if (opened := _opened.get()) is not None:
            opened.append(stream)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _BoundedStream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = MAX_ANSWER

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                data = await self._reader.read(min(max_bytes, MAX_READ))
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise DownloadError(f"sent more than {MAX_ANSWER // 1024} KiB, head and all")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Closes it without a farewell: there is nothing more to say."""
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        return self._writer.get_extra_info(info)
