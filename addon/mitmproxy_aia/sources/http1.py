"""One GET on a connection of its own, by h11, which is what httpx speaks HTTP/1.1 with.

The layers of httpx and httpcore above it manage what is not there: other connections, other
versions of HTTP, and their reuse. They would take most of the time that a download takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping

import h11
import httpx

from mitmproxy_aia.sources.bounded import MAX_READ, Stream

MAX_HEAD = 16 * 1024
"""Bytes. h11 parses a head at once: in 100 KiB, as in httpcore, there may be 25,000 fields, which
take 160 ms."""
MAX_PARTS = 4 * 1024
"""Chunks of a body, as far as they arrive, and answers `100 Continue`. Each takes 16 us; as many
as there may be bytes would take 0.7 s."""


class Answer:
    """What `ask` got: the head of an answer, and its body while it arrives. The names are those
    of an `httpx.Response`, and so are the errors."""

    def __init__(self, connection: _Connection, head: h11.Response) -> None:
        self._connection = connection
        self.status_code = head.status_code
        self.headers: dict[str, str] = {}
        for raw, value in head.headers:
            name, text = raw.decode("ascii"), _text(value)
            said = self.headers.get(name)
            self.headers[name] = text if said is None else f"{said}, {text}"

    async def aiter_raw(self) -> AsyncGenerator[bytes, None]:
        while isinstance(event := await self._connection.hear(), h11.Data):
            yield bytes(event.data)

    def close(self) -> None:
        self._connection.close()


async def ask(stream: Stream, target: bytes, headers: Mapping[str, str]) -> Answer:
    """Asks for `target`. The stream is closed with the answer, or if there is none."""
    connection = _Connection(stream)
    try:
        await connection.say(h11.Request(method="GET", target=target, headers=[*headers.items()]))
        while isinstance(head := await connection.hear(), h11.InformationalResponse):
            pass
        if not isinstance(head, h11.Response):
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
    except BaseException:
        connection.close()
        raise
    return Answer(connection, head)


class _Connection:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parts = 0
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    async def say(self, request: h11.Request) -> None:
        data = self._state.send(request) or b""
        self._state.send(h11.EndOfMessage())
        # Who hangs up on the request may have answered before.
        with contextlib.suppress(httpx.WriteError):
            await self._stream.write(data)

    async def hear(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                data = await self._stream.read(MAX_READ)
                if not data and self._state.their_state is h11.SEND_RESPONSE:
                    what = "Server disconnected without sending a response."
                    raise httpx.RemoteProtocolError(what)
                self._state.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except ValueError as error:
            # From int(): before 0.15, h11 takes any number of digits for a length.
            raise httpx.RemoteProtocolError("bad Content-Length") from error
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise httpx.RemoteProtocolError(f"more than {MAX_PARTS} parts")
        return event

    def close(self) -> None:
        self._stream.close()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
