"""A SOCKS5 proxy (RFC 1928, RFC 1929) that knows names of its own."""

import contextlib
import socket
from dataclasses import dataclass

from tests.lab.listener import Listener


@dataclass(frozen=True)
class Wanted:
    """What a client has asked for."""

    host: str
    port: int
    credentials: str


class SocksServer:
    """Connects every client to `target`, a loopback port, whatever it has asked for.

    With `credentials` ("user:password") it wants to be told these. Without `target` it says
    that the connection was refused.
    """

    def __init__(self, target: int | None, credentials: str = "") -> None:
        self.wanted: list[Wanted] = []
        self._target = target
        self._credentials = credentials
        self._listener = Listener(self._converse)
        self.port = self._listener.port

    def __enter__(self) -> "SocksServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _converse(self, client: socket.socket) -> None:
        # Who goes away leaves less than what is read.
        with contextlib.suppress(IndexError, ValueError):
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as reader:
            _version, count = reader.read(2)
            methods = reader.read(count)
            method = 2 if self._credentials else 0
            if method not in methods:
                client.sendall(b"\x05\xff")
                return
            client.sendall(bytes([5, method]))
            told = ""
            if self._credentials:
                user = reader.read(reader.read(2)[1])
                password = reader.read(reader.read(1)[0])
                told = f"{user.decode()}:{password.decode()}"
                client.sendall(bytes([1, told != self._credentials]))
                if told != self._credentials:
                    return
            kind = reader.read(4)[3]
            if kind == 3:
                host = reader.read(reader.read(1)[0]).decode()
            else:
                family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
                host = socket.inet_ntop(family, reader.read(size))
            port = int.from_bytes(reader.read(2), "big")
            self.wanted.append(Wanted(host, port, told))
            status = 5 if self._target is None else 0
            client.sendall(bytes([5, status, 0, 1, 0, 0, 0, 0, 0, 0]))
            if self._target is None:
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                # One request is all that a download is.
                server.sendall(client.recv(65536))
                server.shutdown(socket.SHUT_WR)
                while data := server.recv(65536):
                    client.sendall(data)
