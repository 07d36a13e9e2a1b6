"""What a server sends while its handshake is paused, and how much of that is kept.

mitmproxy keeps all that comes for a layer that waits for a hook, and goes through it in one piece
afterwards. A server that nobody has verified must not be able to fill the memory by that.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator

from mitmproxy import connection
from mitmproxy.proxy import events, tunnel

MAX_BYTES = 2**20
MAX_PIECES = 256
"""As much as an honest server will never send before it has heard that it is verified."""


class Waiting(deque[events.Event]):
    """The events that wait. Of the server's data, it takes no more than fits: as a socket's buffer
    does with datagrams. `torn` is whether that has left a gap in a stream."""

    def __init__(self, server: connection.Connection, before: Iterable[events.Event] = ()) -> None:
        super().__init__(before)
        self._server = server
        self._bytes = 0
        self._pieces = 0
        self.torn = False

    def append(self, event: events.Event) -> None:
        if isinstance(event, events.DataReceived) and event.connection is self._server:
            size = len(event.data)
            if self.torn or self._bytes + size > MAX_BYTES or self._pieces == MAX_PIECES:
                self.torn = self._server.transport_protocol == "tcp"
                return
            self._bytes += size
            self._pieces += 1
        super().append(event)


@contextlib.contextmanager
def bounded(layer: tunnel.TunnelLayer) -> Iterator[Waiting]:
    """Has what waits for `layer` be bounded as long as it is paused in here."""
    waiting = Waiting(layer.tunnel_connection, layer._paused_event_queue)
    layer._paused_event_queue = waiting
    try:
        yield waiting
    finally:
        layer._paused_event_queue = deque(waiting)
