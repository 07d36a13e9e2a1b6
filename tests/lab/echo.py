"""Protocols in which both sides speak when they like: an echo, alone and in a WebSocket."""

import contextlib

import wsproto
from wsproto import events

from tests.lab.http_server import Stream

_READ_SIZE = 65536
GREETING = b"220 the lab is ready\r\n"


def converse_echo(connection: Stream) -> None:
    """Greets, as SMTP does, and sends back what comes."""
    connection.sendall(GREETING)
    while data := connection.recv(_READ_SIZE):
        connection.sendall(data)


def converse_websocket(connection: Stream) -> None:
    """Accepts every WebSocket (RFC 6455), and sends back each message that comes in it."""
    protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    with contextlib.suppress(wsproto.utilities.RemoteProtocolError):
        while data := connection.recv(_READ_SIZE):
            protocol.receive_data(data)
            for event in protocol.events():
                if isinstance(event, events.Request):
                    connection.sendall(protocol.send(events.AcceptConnection()))
                elif isinstance(event, events.Message):
                    back = events.Message(event.data, message_finished=event.message_finished)
                    connection.sendall(protocol.send(back))
                elif isinstance(event, events.CloseConnection):
                    connection.sendall(protocol.send(event.response()))
                    return
