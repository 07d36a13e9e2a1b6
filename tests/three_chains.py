"""One server three times: with an incomplete chain, a broken one and a complete one. For tests of
what is around the certificates, which has to make no difference to them."""

import socket
import ssl
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from tests.conftest import World
from tests.lab import Issued, Options, Proxy, Reply, TlsServer, authority
from tests.test_end_to_end import wait_until

Kind = Literal["incomplete", "broken", "complete"]
KINDS: tuple[Kind, ...] = ("incomplete", "broken", "complete")
VERIFY_FAILED = "Certificate verify failed: "


@dataclass(frozen=True)
class Chain:
    """What a server presents. The intermediate is at `path` of the caIssuers server, also of the
    complete one."""

    world: World
    kind: Kind
    leaf: Issued
    issuer: Issued
    path: str

    @property
    def good(self) -> bool:
        return self.kind != "broken"

    @property
    def presented(self) -> tuple[Issued, ...]:
        return (self.issuer,) if self.kind == "complete" else ()

    @property
    def downloads(self) -> int:
        return self.world.ca.downloads[self.path]

    def server(self, **settings: Any) -> TlsServer:
        """With the settings of a `TlsServer`."""
        return TlsServer(self.leaf, *self.presented, **settings)

    def assert_fetched(self) -> None:
        """What is missing was downloaded: once, if it was any good."""
        expected = {"incomplete": self.downloads == 1, "complete": self.downloads == 0}
        assert expected.get(self.kind, self.downloads > 0)

    def assert_answered(self, server: TlsServer, reply: Reply) -> None:
        """What a client has to get that asks for something of `server`."""
        if self.good:
            assert (reply.status, reply.error_text) == (200, "")
            assert reply.body == server.body
            assert len(server.requests) == 1
        else:
            assert (reply.status, reply.error_text[: len(VERIFY_FAILED)]) == (502, VERIFY_FAILED)
            assert (server.requests, server.handshakes) == ([], [])
        self.assert_fetched()


def assert_nobody_there(
    proxy: Proxy, server: TlsServer, client: socket.socket, *, refused: int = 1
) -> None:
    """`server` was refused, so many times so far, and a client that speaks no HTTP hears nothing.
    (mitmproxy does not hang up on it, with or without the addon.)"""
    proxy.wait_for(f":{server.port} sent a certificate chain that could not be completed")
    wait_until(lambda: len(server.failures) == refused)
    client.setblocking(False)
    try:
        received = client.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        received = b""
    assert (received, server.handshakes) == (b"", [])


def make_chain(world: World, kind: Kind, **options: Unpack[Options]) -> Chain:
    """root -> intermediate -> leaf, with the options of the leaf; a broken chain is under a root
    that nobody trusts. Everything is new."""
    issuer = world.authority(None if kind != "broken" else authority("Stranger"))
    path = world.path()
    settings: Options = {"aia": [world.ca.serve(path, issuer.der)]}
    return Chain(world, kind, issuer.issue(**(settings | options)), issuer, path)
