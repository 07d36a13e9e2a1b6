"""What is said to a server in the clear before TLS begins, in six protocols."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from xml.sax.saxutils import quoteattr

from mitmproxy_aia.names import printable

MAX_LINE = 8 * 1024
"""Bytes of one line, or of one answer in XML."""
MAX_LINES = 100
"""Lines of one answer, or until it comes."""
TOLD = 120
"""Characters of an answer that a person is told."""


class NoStartTls(OSError):
    """Why a server does not begin with TLS: words to follow its name."""


class Wire:
    """Lines to and from a server. Reads no byte more than it has to: what comes after is TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def byte(self) -> bytes:
        """Raises NoStartTls where the server has ended the connection."""
        data = await self._reader.read(1)
        if not data:
            raise NoStartTls("ended the connection before it had agreed to TLS")
        return data

    async def until(self, ends: Callable[[bytes], bool]) -> bytes:
        """All up to where it `ends`. Raises NoStartTls if that is too long."""
        data = b""
        while not ends(data):
            if len(data) >= MAX_LINE:
                raise NoStartTls(f"sent more than {MAX_LINE // 1024} KiB in one answer")
            data += await self.byte()
        return data

    async def line(self) -> bytes:
        """Without its end."""
        return (await self.until(lambda data: data.endswith(b"\n"))).rstrip(b"\r\n")


async def smtp(wire: Wire, host: str) -> None:
    """RFC 3207, and RFC 5321 section 4.2 for replies of several lines."""
    await _reply(wire, b"220")
    # Not our own name, which is nobody's business; an address literal is allowed for clients
    # without one (RFC 5321 section 4.1.1.1).
    await wire.send(b"EHLO [127.0.0.1]\r\n")
    offered = await _reply(wire, b"250")
    if not any(line[4:].strip().upper() == b"STARTTLS" for line in offered):
        raise NoStartTls("does not offer STARTTLS")
    await wire.send(b"STARTTLS\r\n")
    await _reply(wire, b"220")


async def ftp(wire: Wire, host: str) -> None:
    """RFC 4217 section 4."""
    await _reply(wire, b"220")
    await wire.send(b"AUTH TLS\r\n")
    await _reply(wire, b"234")


async def imap(wire: Wire, host: str) -> None:
    """RFC 9051 section 6.2.1."""
    greeting = await wire.line()
    if not greeting.upper().startswith(b"* OK"):
        raise _said(greeting)
    await wire.send(b"a STARTTLS\r\n")
    for _ in range(MAX_LINES):
        line = await wire.line()
        if line.upper().startswith(b"A OK"):
            return
        if not line.startswith(b"* "):
            raise _said(line)
    raise NoStartTls("gave no answer to STARTTLS")


async def pop3(wire: Wire, host: str) -> None:
    """RFC 2595 section 4."""
    for command in b"", b"STLS\r\n":
        await wire.send(command)
        line = await wire.line()
        if not line.upper().startswith(b"+OK"):
            raise _said(line)


async def xmpp(wire: Wire, host: str) -> None:
    """RFC 6120 section 5.4."""
    await wire.send(
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'"
        b" xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
        + f" to={quoteattr(host)}>".encode()
    )
    features = await wire.until(_ends(b"features"))
    if not re.search(rb"<starttls[\s/>]", features):
        raise NoStartTls("does not offer STARTTLS")
    await wire.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    answer = await wire.until(_ends(b"proceed", b"failure"))
    if b"<proceed" not in answer:
        raise NoStartTls("refused STARTTLS")


def _ends(*names: bytes) -> Callable[[bytes], bool]:
    """Whether the last of what came ends one of these elements, or the stream."""
    either = b"|".join(names)
    pattern = re.compile(
        rb"</(?:\w+:)?(?:%b)\s*>|<(?:\w+:)?(?:%b)(?:\s[^<>]*)?/>|</stream:stream\s*>"
        % (either, either)
    )
    return lambda data: data.endswith(b">") and pattern.search(data) is not None


async def postgres(wire: Wire, host: str) -> None:
    """SSLRequest: https://www.postgresql.org/docs/current/protocol-message-formats.html"""
    await wire.send((8).to_bytes(4, "big") + (80_877_103).to_bytes(4, "big"))
    answer = await wire.byte()
    if answer != b"S":
        no = "has TLS switched off" if answer == b"N" else "is no PostgreSQL server that knows TLS"
        raise NoStartTls(no)


async def _reply(wire: Wire, code: bytes) -> list[bytes]:
    """The lines of a reply, of which the last has a blank after its code. Raises NoStartTls if
    that is not `code`."""
    lines = []
    for _ in range(MAX_LINES):
        line = await wire.line()
        lines.append(line)
        if not line.startswith(code):
            raise _said(line)
        if line[3:4] != b"-":
            return lines
    raise NoStartTls(f"sent more than {MAX_LINES} lines in one answer")


def _said(line: bytes) -> NoStartTls:
    return NoStartTls(f'said "{printable(line.decode(errors="replace"), TOLD)}"')


Dialogue = Callable[[Wire, str], Awaitable[None]]
"""Brings a server to the point where TLS begins. Raises NoStartTls."""

PROTOCOLS: dict[str, tuple[Dialogue, int]] = {
    "smtp": (smtp, 25),
    "imap": (imap, 143),
    "pop3": (pop3, 110),
    "ftp": (ftp, 21),
    "xmpp": (xmpp, 5222),
    "postgres": (postgres, 5432),
}
"""With the port that is theirs."""
