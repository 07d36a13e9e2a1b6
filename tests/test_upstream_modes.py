"""Upstream mode, with an http:// and an https:// proxy whose own chain is incomplete, broken or
complete. What egress asks of it is in test_egress_end_to_end.py."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, Relay, Reply, curl
from tests.lab.modes import Modes
from tests.test_addon import REMOTE_CONTROL, order
from tests.test_end_to_end import wait_until
from tests.three_chains import KINDS, VERIFY_FAILED, Chain, Kind, make_chain

MISSING_ISSUER = "unable to get local issuer certificate"


@dataclass
class Lab:
    """A mitmdump in upstream mode, to one proxy that can be reached in the clear and through TLS
    with each chain."""

    world: World
    proxy_port: int
    plain: str
    fronts: dict[Kind, tuple[Chain, Relay, str]]


@pytest.fixture(scope="module")
def lab(root: Issued) -> Iterator[Lab]:
    with contextlib.ExitStack() as stack:
        ca = stack.enter_context(CaIssuersServer())
        # It does not look into what it passes on, and so accepts any chain.
        upstream = stack.enter_context(Proxy("--ignore-hosts", "127.0.0.1", addon=False))
        world = World(root, ca, None)  # type: ignore[arg-type] # nobody asks it so far
        fronts = {}
        for kind in KINDS:
            chain = make_chain(world, kind)
            relay = Relay(upstream.port, leaf=chain.leaf, presented=chain.presented)
            fronts[kind] = chain, stack.enter_context(relay)
        clear = f"upstream:{upstream.url}"
        specs = {kind: f"upstream:{relay.url('')}" for kind, (_, relay) in fronts.items()}
        modes = Modes(clear, *specs.values())
        proxy = Proxy(
            *modes.arguments,
            trust=[root],
            scripts=[REMOTE_CONTROL],
            options={"aia_timeout": 5, "aia_allow": "127.0.0.1"},
        )
        world.proxy = stack.enter_context(proxy)
        yield Lab(
            world,
            upstream.port,
            modes.address(proxy, clear),
            {kind: (*fronts[kind], modes.address(proxy, spec)) for kind, spec in specs.items()},
        )


def ask(lab: Lab, address: str, url: str) -> Reply:
    """The answer to a client of the mode that listens at `address`."""
    return curl(url, "--proxy", f"http://{address}", "--cacert", str(lab.world.proxy.ca_file))


@pytest.mark.parametrize("kind", KINDS)
def test_http_proxy(lab: Lab, kind: Kind) -> None:
    """A proxy that is spoken to in the clear."""
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        chain.assert_answered(server, ask(lab, lab.plain, server.url()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("proxy_kind", ["incomplete", "complete"])
def test_https_proxy(lab: Lab, proxy_kind: Kind, kind: Kind) -> None:
    """The connection to the proxy is completed like any other, and so are the one in it to the
    server, and the one to the proxy over which the server's intermediate comes. The proxy's own
    does not come through the proxy."""
    proxy_chain, front, address = lab.fronts[proxy_kind]
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        chain.assert_answered(server, ask(lab, address, server.url()))
    assert (wanted(chain) in front.passed("to_server")) == (kind != "complete")
    assert wanted(proxy_chain) not in front.passed("to_server")
    proxy_chain.assert_fetched()


def wanted(chain: Chain) -> bytes:
    """What a proxy is asked for the intermediate."""
    return f"GET {chain.world.ca.url(chain.path)} HTTP/1.1".encode()


@pytest.mark.parametrize("proxy_kind", KINDS)
def test_request_in_the_clear_through_an_https_proxy(lab: Lab, proxy_kind: Kind) -> None:
    """The only TLS is that with the proxy."""
    proxy_chain, _, address = lab.fronts[proxy_kind]
    path = lab.world.path()
    reply = ask(lab, address, lab.world.ca.serve(path, b"in the clear"))
    assert (reply.status, reply.body == b"in the clear") == (
        (200, True) if proxy_chain.good else (502, False)
    )
    assert lab.world.ca.downloads[path] == int(proxy_chain.good)
    proxy_chain.assert_fetched()


@pytest.mark.parametrize("kind", KINDS)
def test_https_proxy_with_a_broken_chain(lab: Lab, kind: Kind) -> None:
    """It is told nothing, whatever the server behind it may be."""
    _, front, address = lab.fronts["broken"]
    chain = make_chain(lab.world, kind)
    with chain.server() as server:
        reply = ask(lab, address, server.url())
        assert (reply.status, reply.error_text[: len(VERIFY_FAILED)]) == (502, VERIFY_FAILED)
        assert front.passed("to_server") == b""
        assert (server.connections, chain.downloads) == (0, 0)


@pytest.mark.parametrize("proxy_kind", KINDS)
def test_aia_proxy(lab: Lab, proxy_kind: Kind) -> None:
    """A proxy for downloads only: nothing goes to it before it is verified, and if it is not, the
    reason says so."""
    proxy_chain, gate = make_chain(lab.world, proxy_kind), threading.Event()
    lab.world.ca.serve(proxy_chain.path, proxy_chain.issuer.der, gate=gate)
    chain = make_chain(lab.world, "incomplete")
    leaf, presented = proxy_chain.leaf, proxy_chain.presented
    with (
        Relay(lab.proxy_port, leaf=leaf, presented=presented) as front,
        Relay(front.port) as relay,
        chain.server() as server,
        ThreadPoolExecutor() as pool,
    ):
        assert order(lab.world, f"aia_proxy=https://127.0.0.1:{relay.port}").status == 200
        pending = pool.submit(lab.world.get, server.url())
        if proxy_kind != "complete":
            wait_until(lambda: proxy_chain.downloads == 1)
            flight = max(c.time for c in relay.chunks if c.direction == "to_client")
            assert relay.passed("to_server", since=flight) == b""
        gate.set()
        reply = pending.result()
        assert order(lab.world, "aia_proxy=auto").status == 200
        if proxy_chain.good:
            chain.assert_answered(server, reply)
            assert wanted(chain) in front.passed("to_server")
        else:
            url = lab.world.ca.url(chain.path)
            why = f"{url} was not tried (the proxy has a certificate that is not trusted ("
            assert (
                f"{VERIFY_FAILED}{MISSING_ISSUER} (AIA: {why}{MISSING_ISSUER}" in reply.error_text
            )
            assert relay.passed("to_server", since=flight) == b""
            assert (server.requests, chain.downloads) == ([], 0)
    proxy_chain.assert_fetched()
