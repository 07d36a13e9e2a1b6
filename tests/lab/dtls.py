"""A server that speaks DTLS 1.2 (RFC 6347), over pyOpenSSL, and sends everything back."""

import contextlib
from typing import Any, Self

from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from tests.lab.certificates import Issued
from tests.lab.udp import Address, UdpListener

# pyOpenSSL's type hints do not take what `cryptography` makes, in all of its versions.
_ssl: Any = SSL
_READ_SIZE = 65536
_MTU = 1400


class DtlsServer:
    """Presents `leaf` and then `presented`, in this order. With `client_ca` a client has to have a
    certificate that this authority has issued.

    `handshakes` has an entry for each that a client has completed: the subject of the client's
    certificate, or None. `closed` counts the connections that clients have ended.
    """

    def __init__(self, leaf: Issued, *presented: Issued, client_ca: Issued | None = None) -> None:
        self.handshakes: list[str | None] = []
        self.connections = 0
        self._client_ca = client_ca
        self._peers: dict[Address, _Peer] = {}
        self.present(leaf, *presented)
        self._listener = UdpListener(self._receive, self._resend)
        self.port = self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End without a word to the clients."""
        self._listener.close()

    def present(self, leaf: Issued, *presented: Issued) -> None:
        """From the next connection on, which is the first one that is counted."""
        context = _ssl.Context(SSL.DTLS_SERVER_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.use_certificate(leaf.certificate)
        context.use_privatekey(leaf.key)
        for each in presented:
            context.add_extra_chain_cert(each.certificate)
        if self._client_ca is not None:
            context.get_cert_store().add_cert(
                crypto.X509.from_cryptography(self._client_ca.certificate)
            )
            context.set_verify(
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: arguments[-1]
            )
        self._context = context
        self.handshakes, self.connections = [], 0

    def close_connections(self) -> None:
        """Tell every client that this is the end: a fatal alert, as there is no other in the
        middle of a handshake."""
        for address, peer in [*self._peers.items()]:
            # A record of DTLS 1.2 that is not encrypted: epoch 0, a late number, handshake_failure.
            number = (1000).to_bytes(6, "big")
            self._listener.send(b"\x15\xfe\xfd\x00\x00" + number + b"\x00\x02\x02\x28", address)
            peer.over = True

    def _receive(self, data: bytes, address: Address) -> None:
        if address not in self._peers:
            self.connections += 1
            self._peers[address] = _Peer(self._context)
        peer = self._peers[address]
        if peer.over:
            return
        peer.tls.bio_write(data)
        peer.work(self.handshakes.append)
        self._flush(address, peer)

    def _resend(self) -> None:
        for address, peer in [*self._peers.items()]:
            if not peer.over and not peer.established:
                with contextlib.suppress(SSL.Error):
                    peer.tls.DTLSv1_handle_timeout()
                self._flush(address, peer)

    def _flush(self, address: Address, peer: "_Peer") -> None:
        for record in peer.records():
            self._listener.send(record, address)


class _Peer:
    """Our side of a connection, in memory."""

    def __init__(self, context: Any) -> None:
        self.tls = _ssl.Connection(context)
        self.tls.set_accept_state()
        self.tls.set_ciphertext_mtu(_MTU)
        self.established = self.over = False

    def work(self, established: Any) -> None:
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
                certificate = self.tls.get_peer_certificate()
                established(certificate and _name(certificate))
            while True:
                self.tls.send(self.tls.recv(_READ_SIZE))
        except SSL.WantReadError:
            pass
        except SSL.Error:
            self.over = True

    def records(self) -> list[bytes]:
        """What is to be sent, one record in each datagram."""
        data = b""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data += self.tls.bio_read(_READ_SIZE)
        records = []
        while data:
            # RFC 6347 section 4.1: the last two of 13 bytes are the length of what follows.
            size = 13 + int.from_bytes(data[11:13], "big")
            records.append(data[:size])
            data = data[size:]
        return records


def _name(certificate: crypto.X509) -> str:
    subject = certificate.to_cryptography().subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
