"""What is spoken inside TLS: HTTP/1.1, HTTP/2, WebSocket, and what mitmproxy does not know."""

import contextlib
import socket
from collections.abc import Iterator

import h2.connection
import h2.events
import pytest
import wsproto
from wsproto import events

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy
from tests.lab.echo import GREETING, converse_echo, converse_websocket
from tests.lab.tunnel import read, tunnel, with_tls
from tests.three_chains import KINDS, VERIFY_FAILED, Kind, assert_nobody_there, make_chain


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    """A proxy to which whatever goes to localhost is raw TCP."""
    with (
        CaIssuersServer() as ca,
        Proxy("--tcp-hosts", "localhost", trust=[root], options={"aia_timeout": 5}) as proxy,
    ):
        yield World(root, ca, proxy)


def connect(world: World, port: int, *, host: str = "127.0.0.1", alpn: str = "") -> socket.socket:
    """TLS with a server, through CONNECT."""
    connection = tunnel(world.proxy.port, host, port)
    return with_tls(connection, world.proxy.ca_file, host, alpn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("http2", [False, True])
def test_http(own_world: World, kind: Kind, http2: bool) -> None:
    """The error page comes in the protocol that the client has chosen."""
    chain = make_chain(own_world, kind)
    with chain.server(alpn=["h2", "http/1.1"]) as server:
        reply = own_world.get(server.url(), http2=http2)
        chain.assert_answered(server, reply)
        assert reply.http_version == ("2" if http2 else "1.1")
        for handshake in server.handshakes:
            assert handshake.alpn == ("h2" if http2 else "http/1.1")


@pytest.mark.parametrize("kind", KINDS)
def test_http2_streams(own_world: World, kind: Kind) -> None:
    """Two requests at once on one connection: each has its answer on its own stream."""
    chain = make_chain(own_world, kind)
    with chain.server(alpn=["h2"]) as server:
        answers = get_at_once(own_world, server.port, ["/1", "/2"])
        statuses = [status for status, _ in answers]
        assert statuses == (["200", "200"] if chain.good else ["502", "502"])
        assert all((server.body in body) == chain.good for _, body in answers)
        assert all((VERIFY_FAILED.encode() in body) != chain.good for _, body in answers)
        assert sorted(server.requests) == (["/1", "/2"] if chain.good else [])
        assert bool(server.handshakes) == chain.good
    chain.assert_fetched()


def get_at_once(world: World, port: int, paths: list[str]) -> list[tuple[str, bytes]]:
    """Status and body of each."""
    protocol = h2.connection.H2Connection()
    protocol.initiate_connection()
    for number, path in enumerate(paths):
        authority = (":authority", f"127.0.0.1:{port}")
        request = [(":method", "GET"), (":scheme", "https"), authority, (":path", path)]
        protocol.send_headers(1 + 2 * number, request, end_stream=True)
    answers: dict[int, tuple[str, bytes]] = {}
    ended = 0
    with connect(world, port, alpn="h2") as client:
        client.sendall(protocol.data_to_send())
        while ended < len(paths):
            for event in protocol.receive_data(client.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    head = {_text(name): _text(value) for name, value in event.headers}
                    answers[event.stream_id] = head[":status"], b""
                elif isinstance(event, h2.events.DataReceived):
                    status, body = answers[event.stream_id]
                    answers[event.stream_id] = status, body + event.data
                elif isinstance(event, h2.events.StreamEnded):
                    ended += 1
                elif isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset):
                    pytest.fail(f"{event}")
            client.sendall(protocol.data_to_send())
    return [answers[stream] for stream in sorted(answers)]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_websocket(own_world: World, kind: Kind) -> None:
    """Messages go there and back; a broken chain is a 502 instead of the upgrade."""
    chain = make_chain(own_world, kind)
    with chain.server(converse=converse_websocket) as server:
        with connect(own_world, server.port) as connection:
            client = WebSocket(connection, f"127.0.0.1:{server.port}")
            if chain.good:
                assert isinstance(client.opened, events.AcceptConnection)
                for message in "hello", "hello " * 10_000:
                    assert client.echo(message) == message
            else:
                assert isinstance(client.opened, events.RejectConnection)
                assert client.opened.status_code == 502
        assert bool(server.handshakes) == chain.good
    chain.assert_fetched()


class WebSocket:
    """A client. `opened` is what the server has said to it."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self._connection = connection
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._send(events.Request(host=host, target="/"))
        self.opened = next(self._events())

    def echo(self, message: str) -> str:
        """What comes back."""
        self._send(events.Message(data=message))
        received = ""
        for event in self._events():
            assert isinstance(event, events.TextMessage)
            received += event.data
            if event.message_finished:
                break
        return received

    def _send(self, event: events.Event) -> None:
        self._connection.sendall(self._protocol.send(event))

    def _events(self) -> Iterator[events.Event]:
        while True:
            yield from self._protocol.events()
            data = self._connection.recv(65536)
            assert data, "closed"
            self._protocol.receive_data(data)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_tcp(own_world: World, kind: Kind) -> None:
    """TLS in a TCP flow (tcp_hosts), with a server that speaks before its client."""
    chain = make_chain(own_world, kind)
    with chain.server(converse=converse_echo) as server:
        with contextlib.closing(connect(own_world, server.port, host="localhost")) as client:
            if chain.good:
                assert read(client, len(GREETING)) == GREETING
                client.sendall(b"\0\1\2")
                assert read(client, 3) == b"\0\1\2"
            else:
                client.sendall(b"a secret")
                assert_nobody_there(own_world.proxy, server, client)
        assert bool(server.handshakes) == chain.good
    chain.assert_fetched()
