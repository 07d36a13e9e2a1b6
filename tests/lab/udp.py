"""A UDP socket with a thread that reads from it, and a relay made of one."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.lab.relay import Chunk, Direction

_READ_SIZE = 65536
_LOOK_UP = 0.05
"""Seconds after which a reader looks whether it is to end."""

Address = tuple[str, int]


class UdpListener:
    """Calls `handle` with each datagram that arrives on a free loopback port, and with who sent
    it; and `idle` every now and then, for whoever has timers."""

    def __init__(
        self, handle: Callable[[bytes, Address], None], idle: Callable[[], None] = lambda: None
    ) -> None:
        self._handle = handle
        self._idle = idle
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(_LOOK_UP)
        self.port: int = self._socket.getsockname()[1]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"udp-{self.port}")
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def send(self, data: bytes, to: Address) -> None:
        # Whoever it is for may be gone: the answer to an earlier datagram tells us so.
        with contextlib.suppress(OSError):
            self._socket.sendto(data, to)

    def _read(self) -> None:
        while not self._closing.is_set():
            try:
                data, address = self._socket.recvfrom(_READ_SIZE)
            except TimeoutError:
                self._idle()
            except OSError:
                continue
            else:
                self._handle(data, address)


def udp_echo(port: int, data: bytes, *, patience: float = 10.0) -> bytes:
    """What comes back for one datagram to a loopback port. Raises TimeoutError if nothing does for
    `patience` seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        client.connect(("127.0.0.1", port))
        client.send(data)
        return client.recv(_READ_SIZE)


class UdpRelay:
    """Stands in front of a server, and writes down what passes."""

    def __init__(self, target_port: int) -> None:
        self.chunks: list[Chunk] = []
        self._target = ("127.0.0.1", target_port)
        # For each client one port, by which the server tells them apart.
        self._to_server: dict[Address, UdpListener] = {}
        self._to_clients = UdpListener(self._from_client)
        self.port = self._to_clients.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._to_clients, *self._to_server.values():
            listener.close()

    def passed(
        self, direction: Direction, *, since: float = 0.0, until: float = float("inf")
    ) -> list[bytes]:
        """The datagrams that went in one direction within a span of time."""
        return [
            chunk.data
            for chunk in self.chunks
            if chunk.direction == direction and since <= chunk.time <= until
        ]

    def flood(self, data: bytes) -> None:
        """A thousand of it to the newest client, as if they came from the server. They are not so
        many at a time that the kernel would drop some, and those that come after them."""
        for _ in range(50):
            for _ in range(20):
                self._to_clients.send(data, [*self._to_server][-1])
            time.sleep(0.01)

    def _from_client(self, data: bytes, client: Address) -> None:
        if client not in self._to_server:
            number = len(self._to_server) + 1

            def from_server(data: bytes, _: Address) -> None:
                self.chunks.append(Chunk(number, "to_client", data, time.monotonic()))
                self._to_clients.send(data, client)

            self._to_server[client] = UdpListener(from_server)
        number_of = [*self._to_server].index(client) + 1
        self.chunks.append(Chunk(number_of, "to_server", data, time.monotonic()))
        self._to_server[client].send(data, self._target)
