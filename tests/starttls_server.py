"""A server that speaks another protocol until it is told to begin with TLS."""

import socket
from collections.abc import Callable
from typing import BinaryIO, Self

from tests.lab import Issued
from tests.lab.listener import Listener
from tests.lab.tls_server import server_context

Say = Callable[[bytes], None]
Talk = Callable[[BinaryIO, Say], None]
"""Reads what the client says and answers; when it returns, TLS begins."""


class StartTlsServer:
    """Talks with each client, and then presents `leaf` and `presented`. `said` are the lines
    that clients have said."""

    def __init__(self, talk: Talk, leaf: Issued, *presented: Issued) -> None:
        self._talk = talk
        self._context = server_context(leaf, presented)
        self._listener = Listener(self._converse, "127.0.0.1")
        self.port = self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _converse(self, connection: socket.socket) -> None:
        # Without a buffer, which might swallow the ClientHello.
        with connection.makefile("rb", buffering=0) as reader:
            self._talk(reader, connection.sendall)  # type: ignore[arg-type] # it can readline
        with self._context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)


def expect(reader: BinaryIO, line: bytes) -> None:
    """Raises OSError, which ends the conversation, if the client says anything else."""
    said = reader.readline()
    if said != line:
        raise OSError(f"{said!r}, and not {line!r}")


def smtp(reader: BinaryIO, say: Say) -> None:
    say(b"220-mail.example ESMTP\r\n220 ready\r\n")
    if not reader.readline().startswith(b"EHLO "):
        raise OSError("no EHLO")
    say(b"250-mail.example\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n")
    expect(reader, b"STARTTLS\r\n")
    say(b"220 go ahead\r\n")


def imap(reader: BinaryIO, say: Say) -> None:
    say(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n")
    while True:
        tag, command = reader.readline().split(maxsplit=1)
        say(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n%b OK done\r\n" % tag)
        if command == b"STARTTLS\r\n":
            return


def pop3(reader: BinaryIO, say: Say) -> None:
    say(b"+OK ready\r\n")
    expect(reader, b"STLS\r\n")
    say(b"+OK begin\r\n")


def ftp(reader: BinaryIO, say: Say) -> None:
    say(b"220-welcome\r\n220-to this\r\n220 server\r\n")
    expect(reader, b"AUTH TLS\r\n")
    say(b"234 begin\r\n")


def xmpp(reader: BinaryIO, say: Say) -> None:
    opened = b""
    while b"<stream:stream" not in opened or not opened.endswith(b">"):
        opened += reader.read(1)
    if b"to='127.0.0.1'" not in opened.replace(b'"', b"'"):
        raise OSError("not for us")
    # At once: openssl takes what it reads first for all of it.
    say(
        b"<?xml version='1.0'?><stream:stream from='127.0.0.1' id='1' version='1.0'>"
        b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/>"
        b"</starttls></stream:features>"
    )
    wanted = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
    if reader.read(len(wanted)) != wanted:
        raise OSError("no STARTTLS")
    say(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")


def postgres(reader: BinaryIO, say: Say) -> None:
    if reader.read(8) != b"\x00\x00\x00\x08\x04\xd2\x16\x2f":
        raise OSError("no SSLRequest")
    say(b"S")


TALKS: dict[str, Talk] = {
    "smtp": smtp,
    "imap": imap,
    "pop3": pop3,
    "ftp": ftp,
    "xmpp": xmpp,
    "postgres": postgres,
}
