"""TLS with an https:// proxy that downloads go through.

Its chain may be as incomplete as any server's. So it gets what servers get: OpenSSL may go on
after an error that another path could cure, so that it checks everything else, and nothing is
sent between the proxy's Certificate message and the verdict. What the completion of its chain
downloads does not go through the proxy.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import httpx
from OpenSSL import SSL

from mitmproxy_aia import loaded, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.costs import too_much
from mitmproxy_aia.egress import Proxy, Server
from mitmproxy_aia.errors import curable
from mitmproxy_aia.formats import presented
from mitmproxy_aia.openssl import error_text, presented_to
from mitmproxy_aia.rejections import rejected_in
from mitmproxy_aia.sources import bounded
from mitmproxy_aia.sources.bounded import MAX_READ, Stream
from mitmproxy_aia.sources.download_errors import DownloadError
from mitmproxy_aia.verification import Verifier


class Judgement(Protocol):
    """What came of a completion: `completion.Outcome` is one."""

    @property
    def verified(self) -> bool: ...
    @property
    def reason(self) -> str: ...


Complete = Callable[[Iterable[Certificate], Verifier, Server], Awaitable[Judgement]]
"""Completes a presented chain, leaf first, of a server to which a connection is being made."""


class Distrusted(OSError):
    """What is wrong with the proxy, in words that follow its name."""


async def connect(
    place: tuple[str, int],
    patience: float | None,
    proxy: Proxy,
    context: SSL.Context,
    complete: Complete | None,
) -> Stream:
    """A connection to `place`, an address and a port, that is TLS with `proxy`; as
    `bounded.connect`. `context` holds its roots. Without `complete` an incomplete chain is
    refused."""
    stream = await bounded.connect(*place, patience)
    tls = _TlsStream(stream, SSL.Connection(context, None))
    try:
        await tls.shake_hands(proxy, complete)
    except DownloadError:
        raise
    except (OSError, httpx.NetworkError) as error:
        raise httpx.ConnectError(str(error)) from error
    return tls


class _TlsStream:
    """TLS as the client, inside `stream`. `_undecided` until there is a verdict on the chain."""

    def __init__(self, stream: Stream, connection: SSL.Connection) -> None:
        self._stream = stream
        self._connection = connection
        self._undecided = True
        self._forgiven: list[str] = []
        self._final = ""

    async def shake_hands(self, proxy: Proxy, complete: Complete | None) -> None:
        """Raises OSError if there is no TLS to be had, or nobody to be trusted."""
        name = proxy.host if proxy.host.isascii() else proxy.host.encode("idna").decode("ascii")
        openssl.expect_name(self._connection, name)
        self._connection.set_alpn_protos([b"http/1.1"])
        openssl.forgive(self._connection, self._forgives)
        self._connection.set_connect_state()
        done = False
        while not done:
            done = self._step()
            if self._undecided and self._forgiven:
                await self._decide(proxy, complete)
            await self._flush()
            if not done and not await self._receive():
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._undecided = False

    def _step(self) -> bool:
        """Whether the handshake is done, as far as OpenSSL is concerned."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            openssl.clear_errors()
            if self._final:
                raise _distrusted(self._final) from error
            raise ssl.SSLError(str(error)) from error
        return True

    def _forgives(self, code: int, depth: int, built: openssl.Built) -> bool:
        """OpenSSL found an error; the result is whether it shall go on."""
        # In a renegotiation nobody waits to decide any more.
        if not self._undecided or not curable(code, depth):
            self._final = error_text(code)
            return False
        if not self._forgiven and too_much(loaded.unparsed(built())):
            # OpenSSL would now verify the rest of the chain, though that leads nowhere.
            self._final = f"{error_text(code)}, and its chain would take too long to verify"
            return False
        self._forgiven.append(error_text(code))
        return True

    async def _decide(self, proxy: Proxy, complete: Complete | None) -> None:
        """Returns if the chain was completed and verified."""
        if complete is None:
            raise _distrusted(self._forgiven[0])
        rejected = rejected_in(proxy.ca_file, proxy.ca_folder)
        verifier = Verifier.for_connection(self._connection, "", rejected)
        chain = presented(presented_to(self._connection))
        try:
            judgement = await complete(chain, verifier, self._server(proxy))
        except ValueError as unreadable:
            raise _distrusted(f"{self._forgiven[0]}; {unreadable}") from unreadable
        if not judgement.verified:
            raise _distrusted(judgement.reason)
        self._undecided = False

    def _server(self, proxy: Proxy) -> Server:
        peer, own = self._stream.peer, self._stream.own
        address = ipaddress.ip_address(peer[0])
        return Server(proxy.host, address, proxy.port, None, own[0] == peer[0])

    @property
    def peer(self) -> Any:
        return self._stream.peer

    @property
    def own(self) -> Any:
        return self._stream.own

    async def read(self, most: int) -> bytes:
        while True:
            try:
                return self._connection.recv(min(most, MAX_READ))
            except SSL.WantReadError:
                await self._flush()
                if not await self._receive():
                    return b""
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as error:
                openssl.clear_errors()
                raise httpx.ReadError(openssl.reason_of(error)) from error

    async def write(self, data: bytes) -> None:
        self._connection.sendall(data)
        await self._flush()

    async def _receive(self) -> bool:
        """False at the end."""
        data = await self._stream.read(MAX_READ)
        if data:
            self._connection.bio_write(data)
        return bool(data)

    async def _flush(self) -> None:
        while True:
            try:
                data = self._connection.bio_read(MAX_READ)
            except SSL.WantReadError:
                return
            await self._stream.write(data)

    def close(self) -> None:
        self._stream.close()


def _distrusted(reason: str) -> Distrusted:
    return Distrusted(f"has a certificate that is not trusted ({reason})")
