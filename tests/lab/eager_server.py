"""A TLS 1.3 server that speaks before the client has said a word: 0.5-RTT data.

Right after its own Finished a server may send application data, and large sites send their
HTTP/2 SETTINGS there. Such bytes arrive together with the certificate, before the client has
decided about it. Python's ssl cannot do that; OpenSSL can, and pyOpenSSL carries the functions.
"""

import socket
from collections.abc import Callable
from typing import Any, Self

from OpenSSL import SSL

from tests.lab.certificates import Issued
from tests.lab.http_server import converse_http2
from tests.lab.listener import Listener
from tests.lab.presenting import present

# pyOpenSSL's type hints know neither its bindings nor what an ALPN callback returns.
_ssl: Any = SSL
_ffi, _lib = _ssl._ffi, _ssl._lib
_READ_SIZE = 65536


class EagerServer:
    """Presents `leaf` and `presented`, sends its HTTP/2 SETTINGS at once, and answers requests."""

    def __init__(
        self, leaf: Issued, *presented: Issued, body: bytes = b"hello from the eager server"
    ) -> None:
        self.body = body
        self.requests: list[str] = []
        self.spoke_early = 0
        self.handshakes = 0
        self._context = _ssl.Context(SSL.TLS_SERVER_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)
        present(self._context, leaf, presented)
        self._context.set_alpn_select_callback(lambda _connection, _offered: b"h2")
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

    def _converse(self, connection: socket.socket) -> None:
        # Without a socket pyOpenSSL works in memory. So the certificate and the early data
        # leave in one piece, and the client cannot refuse the one before the other is out.
        tls = _ssl.Connection(self._context, None)
        tls.set_accept_state()
        try:
            converse_http2(_EarlyStream(self, tls, connection), self.body, self.requests.append)
        except (SSL.Error, EOFError):
            # The client has refused our certificate.
            return


class _EarlyStream:
    """Sends before the handshake is complete, and completes it when it has to read."""

    def __init__(self, server: EagerServer, tls: Any, connection: socket.socket) -> None:
        self._server = server
        self._tls = tls
        self._connection = connection
        self._established = False

    def sendall(self, data: bytes) -> None:
        if self._established:
            self._tls.sendall(data)
        else:
            self._pump(self._accept_early)
            self._call(_lib.SSL_write_early_data, data, len(data))
            self._server.spoke_early += 1
        self._flush()

    def recv(self, size: int) -> bytes:
        if not self._established:
            self._pump(self._tls.do_handshake)
            self._established = True
            self._server.handshakes += 1
        try:
            data: bytes = self._pump(lambda: self._tls.recv(size))
        except (SSL.ZeroReturnError, EOFError):
            return b""
        return data

    def _accept_early(self) -> None:
        """Answer the client's hello. OpenSSL writes early only after reading early."""
        self._call(_lib.SSL_read_early_data, _ffi.new("char[]", 1), 1)

    def _call(self, function: Any, buffer: Any, size: int) -> None:
        result = function(self._tls._ssl, buffer, size, _ffi.new("size_t *"))
        if not result:
            self._tls._raise_ssl_error(self._tls._ssl, result)

    def _pump(self, operation: Callable[[], Any]) -> Any:
        """Do it, and carry bytes between OpenSSL and the socket for as long as it takes."""
        while True:
            try:
                return operation()
            except SSL.WantReadError:
                self._flush()
                data = self._connection.recv(_READ_SIZE)
                if not data:
                    raise EOFError from None
                self._tls.bio_write(data)

    def _flush(self) -> None:
        while True:
            try:
                data = self._tls.bio_read(_READ_SIZE)
            except SSL.WantReadError:
                return
            self._connection.sendall(data)
