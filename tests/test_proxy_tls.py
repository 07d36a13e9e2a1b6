"""TLS with an https:// proxy that downloads go through: real sockets, no mitmproxy."""

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.egress import Proxy, Server
from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.download_errors import DownloadError
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued, Relay, TlsServer, authority, trust_file
from tests.lab.listener import Listener
from tests.lab.tls_server import TlsVersion, server_context
from tests.test_completion import Shelf
from tests.test_costs import SLOW, line
from tests.test_download import PATIENT
from tests.test_end_to_end import wait_until
from tests.test_resolver import Names, names

__all__ = ["names"]

URL = "http://ca.example/x.der"
HOST = "proxy.test"
VERSIONS = ["1.2", "1.3"]
UNTRUSTED = "was not tried (the proxy has a certificate that is not trusted ("
MISSING_ISSUER = "unable to get local issuer certificate"


@dataclass
class Shop:
    """Completes chains with what is on its shelf. `customers` are the servers it was asked for."""

    stock: Sequence[Issued] = ()
    broken: Exception | None = None
    customers: list[Server] = field(default_factory=list)

    async def complete(
        self, presented: Iterable[Certificate], verifier: Verifier, server: Server
    ) -> Outcome:
        self.customers.append(server)
        if self.broken is not None:
            raise self.broken
        source = Shelf(fetched=self.stock)
        return await Completion(presented, verifier, [source], server=lambda: server).complete()


@dataclass
class Lab:
    """`root` is what proxies are verified with, `issuer` is below it."""

    root: Issued
    issuer: Issued
    proxy: Proxy
    shop: Shop

    def leaf(self, *, host: str = HOST) -> Issued:
        return self.issuer.issue(hosts=[host])

    def get(self, port: int, *, host: str = HOST) -> list[str]:
        """The names of the certificates that `URL` gives, through the proxy at this port."""
        proxy = replace(self.proxy, host=host, port=port)

        async def main() -> list[str]:
            downloader = Downloader(lambda: PATIENT, complete=self.shop.complete)
            return [each.name for each in await downloader(URL, Server("a", proxy=proxy))]

        return asyncio.run(main())


@pytest.fixture
def lab(root: Issued, tmp_path: Path, names: Names) -> Lab:
    issuer = root.issue("Proxy CA", ca=True)
    names.addresses = {HOST: ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    roots = str(trust_file(tmp_path / "roots.pem", root))
    return Lab(root, issuer, Proxy("https", HOST, 0, ca_file=roots), Shop([issuer]))


@pytest.mark.parametrize("tls", VERSIONS)
@pytest.mark.parametrize("presented", [0, 1])
def test_good(lab: Lab, tls: TlsVersion, presented: int) -> None:
    """A chain is completed only if it has to be; egress gets to know where the proxy is."""
    with TlsServer(lab.leaf(), *[lab.issuer] * presented, tls=tls, body=lab.root.der) as server:
        assert lab.get(server.port) == ["CN=Lab Root"]
        assert server.requests == [URL]
        (handshake,) = server.handshakes
        assert handshake.alpn == "http/1.1"
        asked = [(each.name, str(each.address), each.port) for each in lab.shop.customers]
        assert asked == [(HOST, "127.0.0.1", server.port)] * (1 - presented)
        assert all(each.here and each.proxy is None for each in lab.shop.customers)


@pytest.mark.parametrize("tls", VERSIONS)
@pytest.mark.parametrize("fault", ["untrusted root", "nothing in stock", "exception"])
def test_refused(lab: Lab, tls: TlsVersion, fault: str) -> None:
    """Nothing is said to the proxy after its certificate."""
    if fault == "untrusted root":
        lab.issuer = authority("Stranger").issue("Proxy CA", ca=True)
    lab.shop.stock = [] if fault == "nothing in stock" else [lab.issuer]
    lab.shop.broken = RuntimeError("a bug") if fault == "exception" else None
    with TlsServer(lab.leaf(), tls=tls) as server, Relay(server.port) as relay:
        with pytest.raises((DownloadError, RuntimeError)) as caught:
            lab.get(relay.port)
        wait_until(lambda: server.failures != [])
        flight = [chunk.time for chunk in relay.chunks if chunk.direction == "to_client"]
        assert relay.passed("to_server", since=flight[0]) == b""
        assert (server.handshakes, len(lab.shop.customers)) == ([], 1)
    if fault != "exception":
        assert str(caught.value).startswith(f"{UNTRUSTED}{MISSING_ISSUER} (AIA: ")
        assert str(caught.value).endswith("); aia_proxy)")


@pytest.mark.parametrize("tls", VERSIONS)
def test_fault_that_no_path_can_cure(lab: Lab, tls: TlsVersion) -> None:
    """Nobody is asked to complete the chain of another host."""
    with TlsServer(lab.leaf(host="other.test"), tls=tls, body=lab.root.der) as server:
        with pytest.raises(DownloadError) as caught:
            lab.get(server.port)
        assert str(caught.value) == f"{UNTRUSTED}hostname mismatch); aia_proxy)"
        assert (server.requests, lab.shop.customers) == ([], [])
        assert lab.get(server.port, host="other.test") == ["CN=Lab Root"]


def test_name_that_is_not_ascii(lab: Lab, names: Names) -> None:
    """It is asked for as the name service knows it."""
    names.addresses["bücher.test"] = ["127.0.0.1"]
    with TlsServer(lab.leaf(host="xn--bcher-kva.test"), body=lab.root.der) as server:
        assert lab.get(server.port, host="bücher.test") == ["CN=Lab Root"]


def test_certificates_that_cannot_be_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable leaf is a reason; another certificate is done without."""
    stranger = authority("Stranger")
    real = Certificate.from_der

    def from_der(data: bytes) -> Certificate:
        if data in unreadable:
            raise ValueError("made unreadable")
        return real(data)

    monkeypatch.setattr(Certificate, "from_der", from_der)
    leaf = lab.leaf()
    with TlsServer(leaf, stranger, body=lab.root.der) as server:
        unreadable = [stranger.der]
        assert lab.get(server.port) == ["CN=Lab Root"]
        unreadable = [leaf.der]
        with pytest.raises(DownloadError, match=r"certificate cannot be read: made unreadable\)"):
            lab.get(server.port)
        assert len(server.requests) == 1


def test_chain_that_takes_too_long(lab: Lab) -> None:
    """leaf <- 28 slow ones <- unknown: the first fault is the last, so that nobody has to wait."""
    with TlsServer(*line(authority("Unknown", key=SLOW), 28, key=SLOW)) as server:
        with pytest.raises(DownloadError) as caught:
            lab.get(server.port)
        words = f"{MISSING_ISSUER}, and its chain would take too long to verify); aia_proxy)"
        assert str(caught.value) == UNTRUSTED + words
        assert (server.requests, lab.shop.customers) == ([], [])


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("at once", "the proxy could not be reached (Connection reset by peer)"),
        ("in the body", "broke off ("),
        ("in the body, politely", "broke off ("),
        ("with rubbish", "broke off (decryption failed or bad record mac)"),
    ],
)
def test_proxy_that_breaks_off(lab: Lab, end: str, words: str) -> None:
    """Half an answer is none."""
    context = server_context(lab.leaf(), [lab.issuer])

    def converse(connection: socket.socket) -> None:
        if end == "at once":
            connection.recv(1)
            return
        raw = socket.socket(fileno=os.dup(connection.fileno()))
        with raw, context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(50))
            if end == "with rubbish":
                raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            elif end.endswith("politely"):
                tls.unwrap()

    server = Listener(converse)
    try:
        with pytest.raises(DownloadError) as caught:
            lab.get(server.port)
    finally:
        server.close()
    assert words in str(caught.value)
