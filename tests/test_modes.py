"""Regular, SOCKS5 and reverse mode, in one mitmdump that has them all: incomplete, broken and
complete chains. The other modes are in test_upstream_modes.py and test_transparent_modes.py."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, curl
from tests.lab.echo import GREETING, converse_echo
from tests.lab.modes import Modes
from tests.lab.tunnel import read, read_to_end, with_tls
from tests.three_chains import KINDS, Chain, Kind, assert_nobody_there, make_chain

SCHEMES = "https", "tls"


@dataclass
class Lab:
    """A mitmdump that listens in each mode. Behind each `reverse` is a server of its own."""

    world: World
    socks: str
    reverse: dict[tuple[str, Kind], tuple[Chain, TlsServer, str]]
    plain: tuple[CaIssuersServer, str]


@pytest.fixture(scope="module")
def lab(root: Issued) -> Iterator[Lab]:
    with contextlib.ExitStack() as stack:
        ca = stack.enter_context(CaIssuersServer())
        plain = stack.enter_context(CaIssuersServer())
        plain.serve("/", b"in the clear")
        # The servers have to be there before the proxy, which is what makes a world.
        world = World(root, ca, None)  # type: ignore[arg-type] # nobody asks it so far
        servers: dict[tuple[str, Kind], tuple[Chain, TlsServer]] = {}
        for scheme, kind in itertools.product(SCHEMES, KINDS):
            chain = make_chain(world, kind)
            converse = converse_echo if scheme == "tls" else None
            servers[scheme, kind] = chain, stack.enter_context(chain.server(converse=converse))
        specs = {
            key: f"reverse:{key[0]}://127.0.0.1:{server.port}"
            for key, (_, server) in servers.items()
        }
        clear = f"reverse:{plain.url('')}"
        modes = Modes("socks5", clear, *specs.values())
        options: dict[str, str | int | float] = {"aia_timeout": 5}
        proxy = Proxy(*modes.arguments, trust=[root], options=options)
        world.proxy = stack.enter_context(proxy)
        reverse = {key: (*servers[key], modes.address(proxy, spec)) for key, spec in specs.items()}
        socks = modes.address(proxy, "socks5")
        yield Lab(world, socks, reverse, (plain, modes.address(proxy, clear)))


@pytest.mark.parametrize("kind", KINDS)
def test_regular(lab: Lab, kind: Kind) -> None:
    """A client that sends CONNECT."""
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        chain.assert_answered(server, lab.world.get(server.url()))


@pytest.mark.parametrize("kind", KINDS)
def test_regular_without_connect(lab: Lab, kind: Kind) -> None:
    """A client in the clear, that asks the proxy for https://."""
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        host, port = lab.world.proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=15) as client:
            head = f"GET {server.url()} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"
            client.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode())
            answer = read_to_end(client)
        assert answer.startswith(b"HTTP/1.1 200 " if chain.good else b"HTTP/1.1 502 ")
        assert (server.body in answer) == chain.good == bool(server.requests)
        chain.assert_fetched()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks5(lab: Lab, kind: Kind, scheme: str) -> None:
    """With an address that the client has looked up, or a name for the proxy to look up."""
    host = "localhost" if scheme == "socks5h" else "127.0.0.1"
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        through = ["--proxy", f"{scheme}://{lab.socks}", "--cacert", lab.world.proxy.ca_file]
        chain.assert_answered(server, curl(server.url(host=host), *map(str, through)))


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_https(lab: Lab, kind: Kind) -> None:
    """A client in the clear, and then one with TLS of its own."""
    chain, server, address = lab.reverse["https", kind]
    chain.assert_answered(server, curl(f"http://{address}/"))
    server.requests.clear()
    trust = ["--cacert", str(lab.world.proxy.ca_file), "--connect-to", f"::{address}"]
    chain.assert_answered(server, curl(f"https://localhost:{server.port}/", *trust))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client_tls", [False, True])
def test_reverse_tls(lab: Lab, kind: Kind, client_tls: bool) -> None:
    """A protocol that is not HTTP, to a client in the clear and to one with TLS of its own."""
    chain, server, address = lab.reverse["tls", kind]
    host, port = address.split(":")
    refused = len(server.failures)
    client = socket.create_connection((host, int(port)), timeout=15)
    if client_tls:
        client = with_tls(client, lab.world.proxy.ca_file)
    with client:
        client.sendall(b"EHLO lab\r\n")
        if chain.good:
            assert read(client, len(GREETING) + 10) == GREETING + b"EHLO lab\r\n"
        else:
            assert_nobody_there(lab.world.proxy, server, client, refused=refused + 1)
    assert bool(server.handshakes) == chain.good
    chain.assert_fetched()


def test_reverse_http(lab: Lab) -> None:
    """Nothing to do."""
    plain, address = lab.plain
    assert curl(f"http://{address}/").body == b"in the clear"
    assert plain.downloads["/"] == 1
