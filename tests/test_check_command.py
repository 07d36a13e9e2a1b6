"""The command aia.check, in a real mitmdump."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, curl
from tests.test_addon import REMOTE_CONTROL, order


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options={"aia_timeout": 5}) as proxy,
    ):
        yield World(root, ca, proxy)


def check(world: World, host: str, pattern: str) -> str:
    """What the log says from the command on, once there is `pattern`."""
    before = len(world.proxy.log)
    assert order(world, f"run/aia.check {host}").status == 200
    world.proxy.wait_for(pattern, after=before)
    return world.proxy.log[before:]


def incomplete(world: World) -> tuple[Issued, Issued, str]:
    """A leaf, its intermediate and the path of that."""
    intermediate = world.authority()
    path = world.path()
    leaf = intermediate.issue(aia=[world.ca.serve(path, intermediate.der)])
    return leaf, intermediate, path


def test_incomplete(own_world: World) -> None:
    """The picture is in the log, without colours, and a line that says it all."""
    leaf, intermediate, path = incomplete(own_world)
    with TlsServer(leaf) as server:
        log = check(own_world, f"127.0.0.1:{server.port}", "INCOMPLETE: forgot")
    name = intermediate.name
    assert f"127.0.0.1:{server.port} INCOMPLETE: forgot CN={name} at http://" in log
    assert re.search(rf"FORGOTTEN  . CN={name} ", log)
    assert "roots.pem" in log
    assert "\x1b[3" not in log[log.index("FORGOTTEN") :][:20]
    assert own_world.ca.downloads[path] == 1


def test_what_it_finds_is_remembered(own_world: World) -> None:
    """By the proxy, since it was verified: the next request needs no download, and neither does
    a second check."""
    leaf, _, path = incomplete(own_world)
    with TlsServer(leaf) as server:
        check(own_world, f"127.0.0.1:{server.port}", "INCOMPLETE: forgot")
        assert own_world.get(server.url()).status == 200
        check(own_world, f"127.0.0.1:{server.port}", "in memory, first at http://")
    assert own_world.ca.downloads[path] == 1


def test_complete_and_broken(own_world: World) -> None:
    """With the roots that mitmproxy is told to trust."""
    with TlsServer(own_world.root.issue()) as server:
        check(own_world, f"localhost:{server.port}", rf"localhost:{server.port} complete: until")
    with TlsServer(own_world.authority().issue()) as server:
        check(own_world, f"localhost:{server.port}", "BROKEN: unable to get local issuer")


def test_frozen(own_world: World) -> None:
    """Nothing is downloaded in that mode."""
    leaf, _, path = incomplete(own_world)
    assert order(own_world, "aia_mode=frozen").status == 200
    with TlsServer(leaf) as server:
        check(own_world, f"127.0.0.1:{server.port}", r"BROKEN: .*aia_mode=frozen")
    assert order(own_world, "aia_mode=complete").status == 200
    assert own_world.ca.downloads[path] == 0


def test_proxy_for_downloads(own_world: World) -> None:
    """aia_proxy holds for what the command downloads, too."""
    leaf, intermediate, path = incomplete(own_world)
    with CaIssuersServer() as proxy, TlsServer(leaf) as server:
        proxy.serve(path, intermediate.der)
        assert order(own_world, f"aia_proxy=http://127.0.0.1:{proxy.port}").status == 200
        check(own_world, f"127.0.0.1:{server.port}", "INCOMPLETE: forgot")
        assert order(own_world, "aia_proxy=auto").status == 200
        assert proxy.downloads.total() == 1
    assert own_world.ca.downloads[path] == 0


def test_errors(own_world: World) -> None:
    """What is no host, and a server that is not there."""
    reply = order(own_world, "run/aia.check a_b:x")
    assert reply.status == 400
    assert b"has no port from 1 to 65535" in reply.body
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    check(own_world, f"127.0.0.1:{port}", f"127.0.0.1:{port} NOT CHECKED: .*takes no connections")


def test_options_are_called_as_in_the_proxy(own_world: World) -> None:
    """Who reads the event log sets aia_deny, and no flag of a command line."""
    leaf, _, _ = incomplete(own_world)
    assert order(own_world, "aia_deny=127.0.0.1").status == 200
    with TlsServer(leaf) as server:
        log = check(own_world, f"127.0.0.1:{server.port}", r"BROKEN: .*is denied \(aia_deny\)")
    assert order(own_world, "aia_deny").status == 200
    assert "--deny" not in log


def test_others_do_not_wait(own_world: World) -> None:
    """Neither for a server that is silent nor for a caIssuers server that is."""
    intermediate = own_world.authority()
    gate = threading.Event()
    url = own_world.ca.serve(own_world.path(), intermediate.der, gate=gate)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        TlsServer(intermediate.issue(aia=[url])) as slow,
        TlsServer(own_world.root.issue()) as other,
    ):
        before = len(own_world.proxy.log)
        for port in silent.getsockname()[1], slow.port:
            assert order(own_world, f"run/aia.check 127.0.0.1:{port}").status == 200
        assert own_world.get(other.url()).status == 200
        assert "INCOMPLETE" not in own_world.proxy.log[before:]
        gate.set()
        own_world.proxy.wait_for(f"127.0.0.1:{slow.port} INCOMPLETE", after=before)


def test_upstream_mode(root: Issued, own_world: World, tmp_path: Path) -> None:
    """A direct connection would go where nothing else of that mitmproxy does: it is refused."""
    with Proxy(
        trust=[root], scripts=[REMOTE_CONTROL], mode=f"upstream:{own_world.proxy.url}"
    ) as proxy:
        reply = curl("http://control.test/run/aia.check%20localhost", proxy=proxy)
    assert reply.status == 400
    assert b"in upstream mode nothing else does: use mitmproxy-aia check" in reply.body
