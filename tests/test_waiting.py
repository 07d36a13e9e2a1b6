"""What a server sends in advance, while nobody knows whether it is verified."""

from collections import deque

import pytest
from mitmproxy import connection
from mitmproxy.proxy import commands, events
from OpenSSL import SSL

from mitmproxy_aia import pausing
from mitmproxy_aia.waiting import MAX_BYTES, MAX_PIECES, Waiting
from tests.lab import Issued
from tests.test_completion import Shelf
from tests.test_handshake import Wire

TOO_MUCH = "Certificate verify failed: the server sent more than 1 MiB or 256 pieces in advance"
SERVER = connection.Server(address=("127.0.0.1", 443))
CLIENT = connection.Client(peername=("a", 1), sockname=("b", 2), timestamp_start=0)
PIECE = MAX_BYTES // MAX_PIECES


class Flooded(Wire):
    """The server sends `flood` in the pause. `kept` is what the layer has of it."""

    flood: tuple[bytes, ...] = ()
    kept = -1

    def handle(self, hook: commands.StartHook) -> None:
        if isinstance(hook, pausing.AiaCompleteHook):
            for data in self.flood:
                self.feed(events.DataReceived(self.conn, data))
            self.kept = len(self.layer._paused_event_queue)
        super().handle(hook)


@pytest.fixture(params=[SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def wire(root: Issued, request: pytest.FixtureRequest) -> Flooded:
    ca = root.issue("CA", ca=True)
    return Flooded(root, [ca.issue()], [Shelf(fetched=[ca])], tls_max=request.param)


@pytest.mark.parametrize(
    ("flood", "kept"),
    [
        ((b"x" * (MAX_BYTES + 1),), 0),
        ((b"",) * (MAX_PIECES + 1), MAX_PIECES),
        ((b"x" * MAX_BYTES, b"x"), 1),
        ((b"x" * (MAX_BYTES + 1), b"x"), 0),
    ],
)
def test_too_much(wire: Flooded, flood: tuple[bytes, ...], kept: int) -> None:
    """The server is refused though its chain could be completed: there is a gap in what it sent.
    It has got no answer."""
    wire.flood = flood
    wire.run()
    assert (wire.established, wire.error) == (False, TOO_MUCH)
    assert wire.kept == kept
    assert [outcome.verified for outcome in wire.outcomes] == [True]
    assert len(wire.given(commands.SendData)) == 1


def test_as_much_as_may_be(wire: Flooded) -> None:
    """That waits for the verdict, and no longer has a bound then."""
    wire.flood = (b"",) * MAX_PIECES
    wire.run()
    assert (wire.established, wire.kept) == (True, MAX_PIECES)
    assert type(wire.layer._paused_event_queue) is deque


def test_datagrams() -> None:
    """They may be lost, and those after a large one need not be."""
    server = SERVER.copy()
    server.transport_protocol = "udp"
    waiting = Waiting(server)
    for size in MAX_BYTES, 1, 0:
        waiting.append(events.DataReceived(server, bytes(size)))
    for _ in range(2 * MAX_PIECES):
        waiting.append(events.DataReceived(server, b""))
    assert [len(event.data) for event in waiting if isinstance(event, events.DataReceived)] == [
        MAX_BYTES,
        *[0] * (MAX_PIECES - 1),
    ]
    assert not waiting.torn


def test_other_events() -> None:
    """The client's data are counted by nobody, and neither is the end of a connection. What has
    waited before stays."""
    before = events.ConnectionClosed(CLIENT)
    waiting = Waiting(SERVER, [before])
    others = [
        *[events.DataReceived(CLIENT, bytes(PIECE))] * (2 * MAX_PIECES),
        *[events.ConnectionClosed(SERVER)] * (2 * MAX_PIECES),
    ]
    for event in others:
        waiting.append(event)
    assert [*waiting] == [before, *others]
    assert not waiting.torn
