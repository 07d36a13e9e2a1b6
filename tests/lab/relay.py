"""A TCP relay that writes down what passes, and when."""

import itertools
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from tests.lab.certificates import Issued
from tests.lab.listener import Listener
from tests.lab.tls_server import server_context

Direction = Literal["to_server", "to_client"]
_READ_SIZE = 65536


@dataclass(frozen=True)
class Chunk:
    """Bytes that passed together, at a time of `time.monotonic()`."""

    connection: int
    direction: Direction
    data: bytes
    time: float


class Relay:
    """Stands in front of a server. `split` passes the server's bytes on in small pieces. With
    `leaf` its clients speak TLS, and what passes is what is in it; it presents `leaf` and
    `presented`."""

    def __init__(
        self,
        target_port: int,
        *,
        split: int | None = None,
        leaf: Issued | None = None,
        presented: Sequence[Issued] = (),
    ) -> None:
        self.chunks: list[Chunk] = []
        self._numbers = itertools.count(1)
        self._target_port = target_port
        self._split = split
        self._tls = server_context(leaf, presented) if leaf else None
        self._listener = Listener(self._converse)
        self.port = self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._listener.close()

    @property
    def connections(self) -> int:
        return self._listener.connections

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    def passed(
        self, direction: Direction, *, since: float = 0.0, until: float = float("inf")
    ) -> bytes:
        """All bytes that went in one direction within a span of time."""
        return b"".join(
            chunk.data
            for chunk in self.chunks
            if chunk.direction == direction and since <= chunk.time <= until
        )

    def _converse(self, client: socket.socket) -> None:
        if self._tls is None:
            self._relay(client)
        else:
            with self._tls.wrap_socket(client, server_side=True) as tls:
                self._relay(tls)

    def _relay(self, client: socket.socket) -> None:
        number = next(self._numbers)
        with (
            socket.create_connection(("127.0.0.1", self._target_port)) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, ("to_server", server))
            ready.register(server, selectors.EVENT_READ, ("to_client", client))
            while True:
                for key, _events in ready.select():
                    direction, target = key.data
                    source = client if direction == "to_server" else server
                    data = source.recv(_READ_SIZE)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        # Already read from the network: no selector knows of it.
                        data += source.recv(_READ_SIZE)
                    if not data:
                        return
                    self._pass_on(number, direction, data, target)

    def _pass_on(
        self, connection: int, direction: Direction, data: bytes, target: socket.socket
    ) -> None:
        size = self._split if self._split and direction == "to_client" else len(data)
        for start in range(0, len(data), size):
            if start:
                # So that the client reads the pieces one by one.
                time.sleep(0.001)
            piece = data[start : start + size]
            self.chunks.append(Chunk(connection, direction, piece, time.monotonic()))
            target.sendall(piece)
