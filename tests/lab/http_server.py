"""HTTP/1.1 and HTTP/2, the server's side: every request is answered with 200 and one body.

A client that breaks the protocol, or takes its request back, is hung up on.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

Record = Callable[[str], None]
_READ_SIZE = 65536


class Stream(Protocol):
    """The two methods of a socket that a conversation needs."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...


def converse_http1(connection: Stream, body: bytes, record: Record) -> None:
    """Answer requests until the client closes; `record` is told the path of each."""
    with contextlib.suppress(h11.RemoteProtocolError):
        _converse_http1(connection, body, record)


def _converse_http1(connection: Stream, body: bytes, record: Record) -> None:
    protocol = h11.Connection(h11.SERVER)
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(connection.recv(_READ_SIZE))
        elif isinstance(event, h11.Request):
            record(event.target.decode("latin-1"))
        elif isinstance(event, h11.EndOfMessage):
            for part in (
                h11.Response(
                    status_code=200,
                    headers=[("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
                ),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                connection.sendall(protocol.send(part) or b"")
            if protocol.our_state is h11.MUST_CLOSE:
                return
            protocol.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


def converse_http2(connection: Stream, body: bytes, record: Record) -> None:
    """The same over HTTP/2."""
    with contextlib.suppress(h2.exceptions.ProtocolError):
        _converse_http2(connection, body, record)


def _converse_http2(connection: Stream, body: bytes, record: Record) -> None:
    protocol = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    protocol.initiate_connection()
    connection.sendall(protocol.data_to_send())
    while data := connection.recv(_READ_SIZE):
        for event in protocol.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {_text(name): _text(value) for name, value in event.headers}
                record(headers[":path"])
            elif isinstance(event, h2.events.StreamEnded):
                length = ("content-length", str(len(body)))
                protocol.send_headers(event.stream_id, [(":status", "200"), length])
                protocol.send_data(event.stream_id, body, end_stream=True)
            elif isinstance(event, h2.events.ConnectionTerminated):
                return
        connection.sendall(protocol.data_to_send())


def _text(value: str | bytes) -> str:
    # h2 gives bytes or str, depending on its version.
    return value if isinstance(value, str) else value.decode()
