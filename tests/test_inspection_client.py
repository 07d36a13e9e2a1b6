"""Connecting to a server to see what it presents, and what can go wrong on the way."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.inspection import client
from mitmproxy_aia.inspection.client import How, Presented, Unreachable, ask
from mitmproxy_aia.inspection.targets import Target
from mitmproxy_aia.trust import Trust
from tests.lab import Issued, TlsServer, authority
from tests.lab.listener import Listener
from tests.test_costs import SLOW, line

LOCALHOST = "localhost"


def presented(
    port: int, addresses: list[str] | None = None, how: How | None = None, host: str = LOCALHOST
) -> Presented:
    """What a server presents that is looked up to be at `addresses`."""

    async def resolve(name: str) -> list[str]:
        if addresses is None:
            raise socket.gaierror(-2, "Name or service not known")
        return addresses

    async def run() -> Presented:
        target = Target(host, port, f"{host}:{port}")
        return await ask(target, how or How(seconds=5), Trust().context(), resolve)

    return asyncio.run(run())


def problem(port: int, addresses: list[str] | None, how: How | None = None) -> str:
    with pytest.raises(Unreachable) as raised:
        presented(port, addresses, how)
    return str(raised.value)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def test_addresses_one_after_the_other(root: Issued) -> None:
    """The second address is tried when the first takes no connection."""
    leaf = root.issue()
    with TlsServer(leaf) as server:
        found = presented(server.port, ["127.0.0.9", "127.0.0.1"])
    assert found.chain == (Certificate(leaf.der),)
    assert (found.link.address, found.server.port) == ("127.0.0.1", server.port)
    assert found.server.here


def test_an_unknown_zone() -> None:
    """Of an IPv6 address: it is no error of connecting, and has words of its own."""
    with pytest.raises(Unreachable, match="cannot be connected to") as raised:
        presented(443, host="fe80::1%nowhere")
    assert "Unknown error" not in str(raised.value)


def test_a_chain_that_takes_too_long(root: Issued) -> None:
    """leaf <- 28 slow ones <- unknown: OpenSSL is not asked to verify them: in mitmproxy
    `aia.check` would keep all others waiting."""
    chain = line(authority("Unknown", key=SLOW), 28, key=SLOW)
    with TlsServer(*chain) as server:
        assert problem(server.port, ["127.0.0.1"]).startswith(
            "presented certificates that would take too long to verify"
        )


def test_an_address_that_is_silent(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps us from the next one for a moment only."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.2)
    with TlsServer(root.issue()) as server, full("127.0.0.3", server.port):
        assert presented(server.port, ["127.0.0.3", "127.0.0.1"]).link.address == "127.0.0.1"
        text = problem(server.port, ["127.0.0.3", "127.0.0.9"])
        assert "takes no connections" in text
        assert text.startswith(f"127.0.0.3 port {server.port} and 1 more ")
        monkeypatch.setattr(client, "CONNECT_SECONDS", None)
        assert problem(server.port, ["127.0.0.3"], How(seconds=0.2)).startswith("gave no answer")


@contextlib.contextmanager
def full(host: str, port: int) -> Iterator[None]:
    """A listener that takes no more connections, and does not say so either."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield


def test_the_last_address_is_silent() -> None:
    """Until all the time is over."""
    port = unused_port()
    with full("127.0.0.3", port):
        text = problem(port, ["127.0.0.3"], How(seconds=0.3))
    assert text.startswith("gave no answer in 0.3 s")


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        (None, "localhost has no address (Name or service not known); check the name"),
        ([], "localhost has no address; check the name"),
        (["255.255.255.255"], "255.255.255.255 port 9 cannot be connected to ("),
    ],
)
def test_no_way_there(addresses: list[str] | None, words: str) -> None:
    """Names without addresses, and addresses that lead nowhere."""
    assert problem(9, addresses).startswith(words)


def test_where_to_connect_to_is_looked_up(root: Issued) -> None:
    """--connect may be a name; its port, if there is one, is the one that counts."""
    with TlsServer(root.issue()) as server:
        for port in 0, server.port:
            how = How(Target("elsewhere.test", port, ""), seconds=5)
            assert presented(server.port, ["127.0.0.1"], how, "127.0.0.1").link.port == server.port


def close(connection: socket.socket) -> None:
    connection.recv(4096)


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (close, "broke off the TLS handshake; does it want another name (--sni)"),
        (lambda connection: connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28"), "refused the TLS"),
        (
            lambda connection: connection.sendall(b"\x15\x03\x01\x00\x02\x02\x70"),
            "does not know the name",
        ),
        (
            lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "does not speak TLS there (",
        ),
        (
            lambda connection: connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46"),
            "speaks no TLS as",
        ),
    ],
    ids=["closes", "alert", "name", "http", "version"],
)
def test_no_handshake(handle: Callable[[socket.socket], None], words: str) -> None:
    """Alerts 40, 112 and 70 (RFC 8446 section 6), no answer, and an answer in HTTP."""

    def answer(connection: socket.socket) -> None:
        handle(connection)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    with contextlib.closing(Listener(answer)) as listener:
        assert problem(listener.port, ["127.0.0.1"]).startswith(words)


def test_broken_off_after_the_certificate(root: Issued) -> None:
    """What was presented until then counts, with a remark."""
    with TlsServer(root.issue(), tls="1.2") as server:

        def until_the_second_flight(connection: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", server.port)) as onward:
                onward.sendall(connection.recv(65536))
                connection.settimeout(0.02)
                for _ in range(500):
                    onward.settimeout(0.02)
                    with contextlib.suppress(TimeoutError):
                        connection.sendall(onward.recv(65536))
                    with contextlib.suppress(TimeoutError):
                        if connection.recv(65536):
                            return

        with contextlib.closing(Listener(until_the_second_flight)) as listener:
            found = presented(listener.port, ["127.0.0.1"])
    assert len(found.chain) == 1
    assert found.link.note == "it broke off the handshake after its certificate"


def test_refused_after_the_certificate(root: Issued) -> None:
    """A server of TLS 1.2 that insists on a certificate of ours."""
    with TlsServer(root.issue(), tls="1.2", client_ca=root) as server:
        found = presented(server.port, ["127.0.0.1"])
    assert found.link.note.startswith("it refused the handshake after its certificate (")


def test_a_certificate_that_only_openssl_can_read(
    root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out, unless it is the leaf, without which there is nothing to say."""
    odd = root.issue("Odd", ca=True)
    leaf = odd.issue()
    unreadable = [odd.der]
    real = Certificate.from_der

    def from_der(der: bytes) -> Certificate:
        if der in unreadable:
            raise ValueError("odd\x1b")
        return real(der)

    monkeypatch.setattr(Certificate, "from_der", from_der)
    with TlsServer(leaf, odd) as server:
        assert presented(server.port, ["127.0.0.1"]).chain == (Certificate(leaf.der),)
        unreadable = [leaf.der]
        text = problem(server.port, ["127.0.0.1"])
    assert text == "presented a certificate that cannot be read (odd\\x1b)"


def test_a_server_without_a_certificate(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cipher suites without one are not offered; if a library did, it would be said."""
    monkeypatch.setattr(client, "_certificates", lambda _chain: iter(()))
    with TlsServer(root.issue()) as server:
        assert problem(server.port, ["127.0.0.1"]) == "presented no certificate"


def test_reset() -> None:
    """A connection that is reset in the middle of a dialogue."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"220 x\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.recv(1)

    with contextlib.closing(Listener(answer)) as listener:
        text = problem(listener.port, ["127.0.0.1"], How(starttls="smtp", seconds=5))
    assert text.startswith(("broke off the connection", "ended the connection"))


def test_order(root: Issued) -> None:
    """What is presented comes in the server's order, whatever that is."""
    first, second = root.issue("One", ca=True), root.issue("Two", ca=True)
    leaf = first.issue()
    with TlsServer(leaf, second, first) as server:
        chain = presented(server.port, ["127.0.0.1"]).chain
    assert [each.der for each in chain] == [leaf.der, second.der, first.der]
