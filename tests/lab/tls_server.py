"""A TLS server that presents exactly the certificates it is told to."""

import socket
import ssl
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tests.lab.bundles import pem_bundle
from tests.lab.certificates import Issued
from tests.lab.http_server import converse_http1, converse_http2
from tests.lab.listener import Listener

TlsVersion = Literal["1.0", "1.1", "1.2", "1.3"]
_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True)
class Handshake:
    """A handshake the client has completed: it has accepted our certificate."""

    tls: str
    alpn: str | None
    client_certificate: bytes | None
    cipher: str


class TlsServer:
    """Presents `leaf` and then `presented`, in this order, and answers any HTTP request.

    TlsServer(leaf) is the fault this project is about. Duplicates, strangers, weak keys and
    wrong orders are presented as given. With `client_ca` the client must have a certificate
    that this authority has issued. `curve` is the only one it does ECDHE with. `converse` is
    what it does with a client instead of HTTP.
    """

    def __init__(
        self,
        leaf: Issued,
        *presented: Issued,
        tls: TlsVersion | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        body: bytes = b"hello from the lab",
        client_ca: Issued | None = None,
        host: str = "127.0.0.1",
        curve: str | None = None,
        converse: Callable[[ssl.SSLSocket], None] | None = None,
        port: int = 0,
    ) -> None:
        self.body = body
        self.handshakes: list[Handshake] = []
        self.requests: list[str] = []
        self.failures: list[OSError] = []
        self._speak = converse or self._speak_http
        self._context = server_context(leaf, presented, tls, alpn, client_ca)
        if curve:
            self._context.set_ecdh_curve(curve)
        self._listener = Listener(self._converse, host, port)
        self.port = self._listener.port
        self.address = (host, self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._listener.close()

    def present(self, leaf: Issued, *presented: Issued) -> None:
        """Presents these from the next connection on, over HTTP/1.1."""
        self._context = server_context(leaf, presented)

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted, whatever became of them."""
        return self._listener.connections

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    def _converse(self, connection: socket.socket) -> None:
        try:
            tls = self._context.wrap_socket(connection, server_side=True)
        except OSError as error:
            # A client that refuses our certificate breaks off here.
            self.failures.append(error)
            return
        with tls:
            cipher, alpn = tls.cipher(), tls.selected_alpn_protocol()
            self.handshakes.append(
                Handshake(
                    tls.version() or "", alpn, tls.getpeercert(True), cipher[0] if cipher else ""
                )
            )
            self._speak(tls)

    def _speak_http(self, tls: ssl.SSLSocket) -> None:
        converse = converse_http2 if tls.selected_alpn_protocol() == "h2" else converse_http1
        converse(tls, self.body, self.requests.append)


def server_context(
    leaf: Issued,
    presented: Sequence[Issued] = (),
    tls: TlsVersion | None = None,
    alpn: Sequence[str] = ("http/1.1",),
    client_ca: Issued | None = None,
) -> ssl.SSLContext:
    """What presents `leaf` and then `presented`; the rest as in `TlsServer`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # At the default level OpenSSL would not even load a weak certificate.
    context.set_ciphers("ALL:@SECLEVEL=0")
    if tls:
        with warnings.catch_warnings():
            # Some of them are out of date, which is what they are here for.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = _VERSIONS[tls]
    context.set_alpn_protocols(list(alpn))
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(pem_bundle(leaf, *presented))
        key.write_bytes(leaf.key_pem)
        context.load_cert_chain(chain, key)
    if client_ca:
        context.load_verify_locations(cadata=client_ca.pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context
