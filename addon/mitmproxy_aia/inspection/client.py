"""Connecting to a server up to the end of a TLS handshake, to see what it presents. Nothing is
ever asked of it after that."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from OpenSSL import SSL, crypto

from mitmproxy_aia import costs, loaded, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Server
from mitmproxy_aia.inspection.results import Link
from mitmproxy_aia.inspection.starttls import PROTOCOLS, NoStartTls, Wire
from mitmproxy_aia.inspection.targets import Target
from mitmproxy_aia.names import printable
from mitmproxy_aia.openssl import Fault

CONNECT_SECONDS = 3.0
"""How long an address may keep us from the next one of the same name."""
MAX_ADDRESSES = 8

Resolve = Callable[[str], Awaitable[list[str]]]
"""A host name to its addresses. Raises OSError."""


class Unreachable(OSError):
    """Why a server could not be inspected, and what to do next: one sentence without its name."""


@dataclass(frozen=True)
class How:
    """`connect` is where to connect to, if not to the target itself (its port may be 0: the
    target's). `name` is asked for instead of the target's host. `starttls` is one of
    `starttls.PROTOCOLS` or empty. `seconds` is for everything until the handshake is done."""

    connect: Target | None = None
    name: str = ""
    starttls: str = ""
    seconds: float = 10.0


@dataclass(frozen=True)
class Presented:
    """What a server has presented, and what OpenSSL said of it: all faults, and the chain that it
    has built. `connection` asked for it; it is over."""

    chain: tuple[Certificate, ...]
    faults: tuple[Fault, ...]
    built: tuple[Certificate, ...]
    connection: SSL.Connection
    server: Server
    link: Link


async def ask(target: Target, how: How, context: SSL.Context, resolve: Resolve) -> Presented:
    """Raises Unreachable."""
    place = how.connect or target
    port = place.port or target.port
    try:
        async with asyncio.timeout(how.seconds):
            reader, writer = await _connect(place.host, port, resolve)
            try:
                return await _converse(target, how, context, reader, writer)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise Unreachable(
            f"gave no answer in {how.seconds:g} s; is that the right port, and is no firewall "
            "in the way?"
        ) from None
    except NoStartTls as error:
        raise Unreachable(f"{error}; is {how.starttls} what it speaks?") from error
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Unreachable("broke off the connection before it had presented a chain") from error


async def _connect(
    host: str, port: int, resolve: Resolve
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    addresses = await _addresses(host, resolve)
    failure: OSError | None = None
    for number, address in enumerate(addresses, 1):
        patience = CONNECT_SECONDS if number < len(addresses) else None
        try:
            async with asyncio.timeout(patience):
                return await asyncio.open_connection(address, port)
        except OSError as error:  # TimeoutError is one
            failure = error
    raise Unreachable(_why(failure, addresses, port)) from failure


async def _addresses(host: str, resolve: Resolve) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = await resolve(host)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unreachable(
            f"{host} has no address ({printable(reason)}); check the name, or say where the server "
            "is (mitmproxy-aia check --connect)"
        ) from error
    if not found:
        raise Unreachable(f"{host} has no address; check the name")
    return found[:MAX_ADDRESSES]


def _why(failure: OSError | None, addresses: list[str], port: int) -> str:
    where = f"{addresses[0]} port {port}"
    if len(addresses) > 1:
        where += f" and {len(addresses) - 1} more"
    if isinstance(failure, ConnectionRefusedError):
        return f"{where} takes no connections; is that the right port, and is the server running?"
    reason = str(failure)
    if isinstance(failure, socket.gaierror):  # of an address with a zone that there is not
        reason = failure.strerror or reason
    elif failure and failure.errno:
        # Not the error's own text: asyncio puts the address into it once more.
        reason = os.strerror(failure.errno)
    return f"{where} cannot be connected to ({reason})"


class _Notes:
    """What OpenSSL finds wrong with a chain."""

    def __init__(self) -> None:
        self.faults: dict[Fault, None] = {}
        self.too_much = False

    def take(self, code: int, depth: int, built: openssl.Built) -> bool:
        if not self.faults:
            # OpenSSL would now verify the rest of the chain, and inside mitmproxy all would wait.
            self.too_much = costs.too_much(loaded.unparsed(built()))
        self.faults[Fault.of(code, depth)] = None
        # It goes on, so that all is known that is wrong. Nothing is sent over this connection.
        return not self.too_much


async def _converse(
    target: Target,
    how: How,
    context: SSL.Context,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> Presented:
    name = how.name or target.host
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if how.starttls:
        dialogue, _ = PROTOCOLS[how.starttls]
        await dialogue(Wire(reader, writer), name)
    notes = _Notes()
    connection = SSL.Connection(context, None)
    try:
        openssl.expect_name(connection, name)
    except ValueError as error:
        raise Unreachable(f"cannot be asked for {name}: {error}") from error
    openssl.forgive(connection, notes.take)
    connection.set_connect_state()
    try:
        remark = await _shake_hands(connection, reader, writer)
    except Unreachable as error:
        if not notes.too_much:
            raise
        raise Unreachable(
            "presented certificates that would take too long to verify; mitmproxy refuses it, too"
        ) from error
    chain = tuple(_certificates(connection.get_peer_cert_chain() or []))
    if not chain:
        raise Unreachable("presented no certificate")
    address = ipaddress.ip_address(peer[0])
    link = Link(
        str(address), peer[1], connection.get_protocol_version_name(), name, how.starttls, remark
    )
    server = Server(printable(name), address, peer[1], None, own[0] == peer[0])
    built = tuple(_certificates(connection.get_verified_chain() or []))
    return Presented(chain, tuple(notes.faults), built, connection, server, link)


async def _shake_hands(
    connection: SSL.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    """Until the server has presented its chain and proved that it is its own. Returns a remark
    if it broke off after that."""
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            _flush(connection, writer)
            await writer.drain()
            data = await reader.read(65_536)
            if not data:
                if connection.get_peer_cert_chain():
                    return "it broke off the handshake after its certificate"
                raise Unreachable(
                    "broke off the TLS handshake; does it want another name (--sni), or another "
                    "version of TLS (--tls12)?"
                ) from None
            connection.bio_write(data)
        except SSL.Error as error:
            reason = _reason(error)
            openssl.clear_errors()
            if connection.get_peer_cert_chain() and "alert" in reason:
                # Most often it wants a certificate of its clients. What is our own objection
                # (a signature that does not fit the certificate) is none of these.
                return f"it refused the handshake after its certificate ({reason})"
            raise Unreachable(_advice(reason)) from error
        else:
            _flush(connection, writer)
            return ""


def _flush(connection: SSL.Connection, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(SSL.WantReadError):
        while data := connection.bio_read(65_536):
            writer.write(data)


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    texts = [str(entry[2]) for entry in entries if len(entry) > 2 and entry[2]]
    return printable(", ".join(texts)) or type(error).__name__


_NOT_TLS = ("wrong version number", "packet length too long", "http request", "record layer")
_OLD_TLS = ("unsupported protocol", "alert protocol version")


def _advice(reason: str) -> str:
    if any(words in reason for words in _NOT_TLS):
        return (
            f"does not speak TLS there ({reason}); mail, chat and database servers need --starttls"
        )
    if any(words in reason for words in _OLD_TLS):
        return f"speaks no TLS as new as 1.2 ({reason}); mitmproxy refuses it, too"
    if "unrecognized name" in reason:
        return f"does not know the name ({reason}); say with --sni what it is called"
    return f"refused the TLS handshake ({reason})"


def _certificates(chain: list[crypto.X509]) -> Iterator[Certificate]:
    """Leaf first. Raises Unreachable if that cannot be read; others that cannot are left out, as
    the proxy does."""
    for position, certificate in enumerate(chain):
        try:
            yield Certificate.from_der(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
        except ValueError as error:
            if position == 0:
                raise Unreachable(
                    f"presented a certificate that cannot be read ({printable(str(error))})"
                ) from error
