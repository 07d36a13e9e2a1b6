"""Accepting connections on loopback: what every server of the lab has in common."""

import contextlib
import socket
import threading
from collections.abc import Callable

Handler = Callable[[socket.socket], None]


class Listener:
    """Calls `handle` with every connection, each in a thread of its own, until closed.

    The port is known, and connections are queued, from the moment of creation. A handler
    may block in `recv` for as long as it likes: `close` ends the connection under it.
    """

    def __init__(self, handle: Handler, host: str = "127.0.0.1", port: int = 0) -> None:
        self._handle = handle
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), backlog=128, family=family)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._acceptor = threading.Thread(target=self._accept, name=f"accept-{self.port}")
        self._acceptor.start()

    def close(self) -> None:
        """End all connections and wait for their handlers."""
        self.closing.set()
        # Not every system lets `accept` return when its socket is closed. A connection does.
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port)).close()
        self._acceptor.join()
        self._socket.close()
        with self._lock:
            for connection in self._open:
                _shut_down(connection)
            threads = [*self._threads]
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            connection, _address = self._socket.accept()
            if self.closing.is_set():
                connection.close()
                return
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        # TLS takes the socket over. A duplicate still reaches the connection, to end it.
        handle = connection.dup()
        with self._lock:
            self._open.add(handle)
        try:
            if not self.closing.is_set():
                with connection, contextlib.suppress(OSError):
                    self._handle(connection)
        finally:
            with self._lock:
                self._open.discard(handle)
                self._threads.discard(threading.current_thread())
            _shut_down(handle)
            connection.close()
            handle.close()


def dead_url(path: str = "/issuer.cer") -> str:
    """A URL on a loopback port that refuses connections."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    # It stays bound, and nobody listens: no other process can be given the port meanwhile.
    reserved.detach()
    return f"http://127.0.0.1:{port}{path}"


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
