"""Connections to a stranger who may send so many bytes and no more, whatever they are.

A body has a limit of its own. What comes before it and between its chunks has none in HTTP: a
server may say `100 Continue` a million times, or put kilobytes beside each byte.
"""

from __future__ import annotations

# ruff: noqa: ASYNC109 -- the parameters are httpcore's
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from mitmproxy_aia.sources.aia import DownloadError

MAX_ANSWER = 256 * 1024
"""Bytes: four times what a body may have, and more than any head that httpcore takes."""
MAX_READ = 4 * 1024
"""Bytes taken up at a time. The event loop gets its turn in between; in as many there may be
160 answers `100 Continue`, which take 2 ms."""


class BoundedBackend(httpcore.AnyIOBackend):
    """Makes connections that raise `DownloadError` with the first byte after `MAX_ANSWER`."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(
            await super().connect_tcp(host, port, timeout, local_address, socket_options)
        )


class _BoundedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(min(max_bytes, MAX_READ), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise DownloadError(f"sent more than {MAX_ANSWER // 1024} KiB, head and all")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        tls = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BoundedStream(tls)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
