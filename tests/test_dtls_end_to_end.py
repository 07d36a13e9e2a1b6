"""DTLS: a real mitmdump in reverse mode, from plain datagrams to a server that speaks DTLS."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, authority, pem_bundle
from tests.lab.dtls import DtlsServer
from tests.lab.udp import UdpRelay, udp_echo
from tests.test_end_to_end import wait_until
from tests.test_quic_end_to_end import CRASH, REFUSED, reverse

MISSING = "Certificate verify failed: unable to get local issuer certificate"
QUIET = 0.3
"""Seconds in which no answer comes to whoever is refused: mitmproxy does not tell its client."""


@dataclass(kw_only=True)
class Field(World):
    """One server whose certificates can be changed, and `proxy` in front of it, with a relay in
    between. The proxy has a certificate of its own, which the server wants to see."""

    server: DtlsServer
    relay: UdpRelay
    intermediates: Path

    def echo(self) -> bytes:
        return udp_echo(self.proxy.port, b"hello")

    def incomplete(self, path: str, gate: threading.Event | None = None) -> Issued:
        """The leaf of a chain whose intermediate is at `path`, once `gate` is open."""
        issuer = self.authority()
        return issuer.issue(aia=[self.ca.serve(path, issuer.der, gate=gate)])

    def refused(self) -> str:
        """Why the server is refused. It gets no handshake done."""
        start = len(self.proxy.log)
        with pytest.raises(TimeoutError):
            udp_echo(self.proxy.port, b"hello", patience=QUIET)
        found = self.proxy.wait_for(r"Server TLS handshake failed\. (.*)", after=start)
        assert self.server.handshakes == []
        return found[1]


@pytest.fixture(scope="module")
def field(root: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("dtls")
    intermediates = folder / "intermediates"
    intermediates.mkdir()
    client = root.issue("The Proxy", extended_key_usage=["clientAuth"])
    certificate = folder / "client.pem"
    certificate.write_bytes(client.key_pem + pem_bundle(client))
    with (
        CaIssuersServer() as ca,
        DtlsServer(root.issue(), client_ca=root) as server,
        UdpRelay(server.port) as relay,
        Proxy(
            trust=[root],
            mode=f"reverse:dtls://127.0.0.1:{relay.port}",
            options={
                "aia_timeout": 2,
                "aia_intermediates": str(intermediates),
                "client_certs": str(certificate),
            },
        ) as proxy,
    ):
        yield Field(
            root=root,
            ca=ca,
            proxy=proxy,
            server=server,
            relay=relay,
            intermediates=intermediates,
        )
        for crash in CRASH:
            assert crash not in proxy.log


def test_leaf_only(field: Field) -> None:
    """Completed on the first connection, and known to the second."""
    path = field.path()
    field.server.present(field.incomplete(path))
    for number in 1, 2:
        assert field.echo() == b"hello"
        assert field.server.handshakes == ["The Proxy"] * number
    assert field.ca.downloads[path] == 1


def test_local_file(field: Field) -> None:
    """The intermediate is in a file, and there is no AIA."""
    issuer = field.authority()
    (field.intermediates / f"{issuer.name}.crt").write_bytes(issuer.pem)
    field.server.present(issuer.issue())
    assert field.echo() == b"hello"


def test_complete_chain(field: Field) -> None:
    """No download, no line in the log."""
    issuer = field.authority()
    path = field.path()
    field.server.present(issuer.issue(aia=[field.ca.serve(path, issuer.der)]), issuer)
    start = len(field.proxy.log)
    assert field.echo() == b"hello"
    assert field.ca.downloads[path] == 0
    assert "incomplete" not in field.proxy.log[start:]


WORDS = {
    "another host": "IP address mismatch",
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
}
"""OpenSSL's, where aioquic has its own."""


# A pyOpenSSL server presents nothing that it cannot read; aioquic's does.
@pytest.mark.parametrize("fault", [fault for fault in REFUSED if "unreadable" not in fault])
def test_refused(field: Field, fault: str) -> None:
    """The same chains as over QUIC, and OpenSSL's words."""
    make, words = REFUSED[fault]
    field.server.present(*make(field, field.authority()))  # type: ignore[arg-type] # a World does
    words = f"Certificate verify failed: {WORDS.get(fault, words)}"
    assert field.refused().startswith(words)


def test_nothing_leaves_before_the_verdict(field: Field) -> None:
    """The server repeats itself during the pause, and gets no answer: no certificate of the
    client, and no Finished."""
    path, gate = field.path(), threading.Event()
    field.server.present(field.incomplete(path, gate))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(field.echo)
        wait_until(lambda: field.ca.downloads[path] == 1)
        began = field.ca.requests[-1].time
        wait_until(lambda: field.relay.passed("to_client", since=began) != [])
        assert field.relay.passed("to_server", since=began) == []
        assert field.server.handshakes == []
        gate.set()
        assert answer.result() == b"hello"
    assert (field.server.connections, field.server.handshakes) == (1, ["The Proxy"])


def test_server_closes_during_the_pause(field: Field) -> None:
    """An alert is all there is of it in DTLS. It is read after the verdict, and ends the
    connection; the next one finds what was downloaded."""
    path, gate = field.path(), threading.Event()
    field.server.present(field.incomplete(path, gate))
    start = len(field.proxy.log)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(udp_echo, field.proxy.port, b"hello", patience=1)
        wait_until(lambda: field.ca.downloads[path] == 1)
        field.server.close_connections()
        gate.set()
        field.proxy.wait_for("sent an incomplete chain; found", after=start)
        with pytest.raises(TimeoutError):
            answer.result()
    assert field.echo() == b"hello"
    assert field.ca.downloads[path] == 1


def test_server_floods_during_the_pause(field: Field) -> None:
    """What does not fit is lost, as in the buffer of a socket, and the handshake goes on."""
    path, gate = field.path(), threading.Event()
    field.server.present(field.incomplete(path, gate))
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(field.echo)
        wait_until(lambda: field.ca.downloads[path] == 1)
        field.relay.flood(bytes(1_200))
        gate.set()
        assert reply.result() == b"hello"


def test_client_goes_away_during_the_pause(field: Field) -> None:
    """The download still ends, and what it brought is kept."""
    path, gate = field.path(), threading.Event()
    field.server.present(field.incomplete(path, gate))
    start = len(field.proxy.log)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", ("127.0.0.1", field.proxy.port))
        wait_until(lambda: field.ca.downloads[path] == 1)
    gate.set()
    field.proxy.wait_for("sent an incomplete chain; found", after=start)
    assert field.echo() == b"hello"
    assert field.ca.downloads[path] == 1


def test_proxy_is_shut_down_during_the_pause(field: Field, root: Issued) -> None:
    """At once, without a word of tasks that were left behind, and the server has got nothing."""
    path, gate = field.path(), threading.Event()
    with DtlsServer(field.incomplete(path, gate)) as server:
        with reverse("dtls", server.port, root, aia_timeout=60) as proxy:
            with pytest.raises(TimeoutError):
                udp_echo(proxy.port, b"hello", patience=QUIET)
            wait_until(lambda: field.ca.downloads[path] == 1)
            proxy.process.stop()
            # mitmproxy_rs sometimes crashes when it ends with UDP open; also without the addon.
            assert proxy.wait() in (0, -signal.SIGSEGV)
        assert server.handshakes == []


@pytest.mark.parametrize("mode", ["audit", "frozen"])
def test_modes(field: Field, root: Issued, mode: str) -> None:
    """audit says in the log what it would have done; frozen names what it would have
    downloaded."""
    path = field.path()
    with (
        DtlsServer(field.incomplete(path)) as server,
        reverse("dtls", server.port, root, aia_mode=mode) as proxy,
    ):
        with pytest.raises(TimeoutError):
            udp_echo(proxy.port, b"hello", patience=QUIET)
        proxy.wait_for(f"Server TLS handshake failed. {MISSING}")
        proxy.wait_for(f"aia_mode={mode}")
        assert field.ca.downloads[path] == (mode == "audit")
        assert server.handshakes == []


def test_untrusted_server_sees_no_client_certificate(field: Field) -> None:
    """It wants one, and is refused before."""
    field.server.present(authority("Stranger").issue())
    assert "unable to get local issuer certificate" in field.refused()
