"""Other scripts beside ours, loaded before it and after it: what they change counts, what they
do themselves is theirs, and their faults are not ours."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, CurlError, Issued, Proxy, TlsServer
from tests.lab.proxy import ADDON
from tests.test_addon import REMOTE_CONTROL, SCRIPTS, order
from tests.test_end_to_end import wait_until

NEIGHBOUR = SCRIPTS / "neighbour.py"
ORDERS = {"before": [NEIGHBOUR, ADDON], "after": [ADDON, NEIGHBOUR]}
STOCK = "Certificate verify failed: unable to get local issuer certificate"


@pytest.fixture(scope="module", params=ORDERS)
def shared(request: pytest.FixtureRequest, root: Issued) -> Iterator[World]:
    scripts = [REMOTE_CONTROL, *ORDERS[request.param]]
    options = {"aia_timeout": 5}
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], addon=False, scripts=scripts, options=options) as proxy,
    ):
        yield World(root, ca, proxy)


@pytest.fixture
def street(shared: World) -> Iterator[World]:
    """Our addon and a neighbour, who is at rest again afterwards."""
    yield shared
    for setting in "neighbour=", "connection_strategy=eager", "http2=true":
        assert order(shared, setting).status == 200


def neighbour(street: World, does: str) -> None:
    assert order(street, f"neighbour={does}").status == 200


def incomplete(street: World, *hosts: str) -> TlsServer:
    issuer = street.authority()
    leaf = issuer.issue(hosts=hosts or ["127.0.0.1"], aia=[street.published(issuer)])
    return TlsServer(leaf)


RENAMING = "renames", "renames in a while", "asks TlsConfig"


@pytest.mark.parametrize("how", RENAMING)
def test_server_name(street: World, how: str) -> None:
    """The server has to be the one that the neighbour has named, and nobody else."""
    with incomplete(street, "other.test") as server:
        assert street.get(server.url()).status == 502
        neighbour(street, f"{how}:other.test")
        reply = street.get(server.url())
        assert (reply.status, reply.error_text) == (200, "")
    with incomplete(street, "127.0.0.1") as server:
        reply = street.get(server.url())
        assert (reply.status, server.requests) == (502, [])
        assert "hostname mismatch" in reply.error_text.lower()


def test_security_level(street: World) -> None:
    """A path that is too weak for mitmproxy's ciphers is good enough for the neighbour's."""
    issuer = street.authority(key="rsa1024")
    leaf = issuer.issue(aia=[street.published(issuer)])
    with TlsServer(leaf) as server:
        assert street.get(server.url()).status == 502
        neighbour(street, "weakens:ALL:@SECLEVEL=0")
        reply = street.get(server.url())
        assert (reply.status, reply.error_text) == (200, "")


def test_stricter_security_level(street: World) -> None:
    """And one that is good enough for mitmproxy's is too weak for a stricter neighbour's."""
    issuer = street.authority(key="rsa2048")
    leaf = issuer.issue(key="ec384", aia=[street.published(issuer)])
    with TlsServer(leaf) as server:
        neighbour(street, "weakens:ALL:@SECLEVEL=3")
        reply = street.get(server.url())
        assert (reply.status, server.requests) == (502, [])
        neighbour(street, "")
        assert street.get(server.url()).status == 200


@pytest.mark.parametrize("how", ["redirects", "rewrites"])
@pytest.mark.parametrize("strategy", ["eager", "lazy"])
def test_another_address(street: World, how: str, strategy: str) -> None:
    """Who is completed is the server that the neighbour leads to."""
    assert order(street, f"connection_strategy={strategy}").status == 200
    with incomplete(street) as asked, incomplete(street) as reached:
        neighbour(street, f"{how}:{reached.port}")
        start = len(street.proxy.log)
        reply = street.get(asked.url("/led"))
        assert (reply.status, reply.error_text) == (200, "")
        assert (asked.requests, reached.requests) == ([], ["/led"])
        line = f"127.0.0.1:{reached.port} sent an incomplete chain; found"
        street.proxy.wait_for(line, after=start)


@pytest.mark.parametrize("verdict", ["yes", "no"])
def test_connection_of_its_own(street: World, verdict: str) -> None:
    """What it believes or refuses is its own business, and nothing is downloaded for it."""
    with incomplete(street) as server:
        neighbour(street, f"provides:{verdict}")
        before = len(street.ca.requests)
        assert street.get(server.url()).status == (200 if verdict == "yes" else 502)
        assert len(street.ca.requests) == before


@pytest.mark.parametrize("verdict", ["yes", "no"])
def test_verdict_of_its_own(shared: World, street: World, verdict: str) -> None:
    """TlsConfig's connection, and then a verify callback of its own in place of ours."""
    with incomplete(street) as server:
        neighbour(street, f"asks TlsConfig and judges:{verdict}")
        before = len(street.ca.requests)
        reply = street.get(server.url())
        assert reply.status == (200 if verdict == "yes" else 502)
        assert reply.error_text == ("" if verdict == "yes" else STOCK)
        assert len(street.ca.requests) == before


def test_refuses_a_connection(street: World) -> None:
    """No connection, so nothing to complete."""
    with incomplete(street) as server:
        neighbour(street, "refuses:not today")
        with pytest.raises(CurlError, match="502"):
            street.get(server.url())
        assert server.connections == 0


@pytest.mark.parametrize("strategy", ["eager", "lazy"])
def test_kills_a_flow(street: World, strategy: str) -> None:
    """The server never hears of the request; the next one is served."""
    assert order(street, f"connection_strategy={strategy}").status == 200
    with incomplete(street) as server:
        neighbour(street, "kills")
        with pytest.raises(CurlError):
            street.get(server.url("/killed"))
        neighbour(street, "")
        assert street.get(server.url("/next")).status == 200
        assert server.requests == ["/next"]


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("good", [True, False])
def test_kills_a_flow_whose_server_is_being_completed(
    street: World, http2: bool, good: bool
) -> None:
    """As while mitmproxy connects, which looks whether a flow was killed only when the server has
    answered: then the client gets nothing. A server that is not verified hears of no request."""
    assert order(street, "connection_strategy=lazy").status == 200
    assert order(street, f"http2={str(http2).lower()}").status == 200
    issuer, path, gate = street.authority(), street.path(), Event()
    body = issuer.der if good else street.authority().der
    leaf = issuer.issue(aia=[street.ca.serve(path, body, gate=gate)])
    alpn = ("h2", "http/1.1") if http2 else ("http/1.1",)
    with TlsServer(leaf, alpn=alpn) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(street.get, server.url("/killed"), http2=http2)
        wait_until(lambda: street.ca.downloads[path] == 1)
        # No option, but the neighbour hears it.
        assert order(street, "kill").status == 400
        gate.set()
        if good:
            with pytest.raises(CurlError):
                waiting.result()
        else:
            assert waiting.result().status == 502
        reply = street.get(server.url("/next"), http2=http2)
        assert reply.status == (200 if good else 502)
        assert server.requests == (["/killed", "/next"] if good else [])


def test_raises(street: World) -> None:
    """Its exceptions, in whatever hook, keep nobody from being completed."""
    with incomplete(street) as server:
        neighbour(street, "raises:on purpose")
        start = len(street.proxy.log)
        reply = street.get(server.url())
        assert (reply.status, reply.error_text) == (200, "")
        # server_connect, tls_start_server, request
        assert street.proxy.log[start:].count("Addon error: on purpose") == 3
    issuer = street.authority()
    with TlsServer(issuer.issue()) as server:
        assert street.get(server.url()).error_text.startswith(STOCK)


def test_notices_nothing(street: World) -> None:
    """It gets the same hooks in the same order for a completed server as for a complete one,
    and for one that cannot be completed as for one that stock mitmproxy refuses."""
    neighbour(street, "tells")
    issuer = street.authority()
    leaf = issuer.issue(aia=[street.published(issuer)])
    told = []
    for chain, mode in (
        ((leaf, issuer), "complete"),
        ((leaf,), "complete"),
        ((issuer.issue(),), "off"),
        ((issuer.issue(aia=[street.ca.url("/404")]),), "complete"),
    ):
        assert order(street, f"aia_mode={mode}").status == 200
        assert order(street, "run/aia.cache.clear").status == 200
        with TlsServer(*chain) as server:
            start = len(street.proxy.log)
            status = street.get(server.url()).status
            # The last of all hooks.
            street.proxy.wait_for("neighbour: server_disconnected", after=start)
        lines = street.proxy.log[start:].splitlines()
        told.append((status, [line for line in lines if "neighbour: " in line]))
    complete, completed, refused, not_completed = (
        (status, [line.partition("neighbour: ")[2] for line in lines]) for status, lines in told
    )
    assert complete == completed
    assert completed[0] == 200
    assert completed[1].count("tls_established_server") == 1
    assert refused == not_completed
    assert refused[0] == 502
    assert refused[1].count("tls_failed_server") == 1


def reload(proxy: Proxy, script: Path) -> None:
    """As an editor does. mitmproxy has looked at it when it says so, and takes no order before
    it is done."""
    start = len(proxy.log)
    with script.open("a") as file:
        file.write("\n")
    proxy.wait_for(f"Loading script .*{script.name}", after=start)


@pytest.mark.parametrize("first", ["ours", "neighbour"])
@pytest.mark.parametrize("reloaded", ["ours", "neighbour"])
def test_reloading(root: Issued, tmp_path: Path, first: str, reloaded: str) -> None:
    """Either of them; what the neighbour changes counts before and after."""
    copies = {
        "ours": Path(shutil.copy(ADDON, tmp_path / "aia.py")),
        "neighbour": Path(shutil.copy(NEIGHBOUR, tmp_path / "neighbour.py")),
    }
    scripts = [*copies.values()] if first == "ours" else [*reversed(copies.values())]
    with (
        CaIssuersServer() as ca,
        Proxy(
            trust=[root],
            addon=False,
            scripts=[REMOTE_CONTROL, *scripts],
            options={"neighbour": "renames:other.test", "aia_cache": "memory"},
            environment={"PYTHONPATH": str(ADDON.parent)},
        ) as proxy,
    ):
        street = World(root, ca, proxy)
        for again in True, False:
            with incomplete(street, "other.test") as server:
                reply = street.get(server.url())
                assert (reply.status, reply.error_text) == (200, "")
            if again:
                reload(proxy, copies[reloaded])
        assert "does nothing" not in proxy.log
        assert "Traceback" not in proxy.log


def test_two_copies(root: Issued, tmp_path: Path) -> None:
    """One WARNING that names the second, which does nothing; the first works, also when either
    is reloaded."""
    first, second = (
        Path(shutil.copy(ADDON, tmp_path / f"{name}.py")) for name in ("first", "second")
    )
    with (
        CaIssuersServer() as ca,
        Proxy(
            trust=[root],
            addon=False,
            scripts=[REMOTE_CONTROL, first, second],
            options={"aia_cache": "memory"},
            environment={"PYTHONPATH": str(ADDON.parent)},
        ) as proxy,
    ):
        street = World(root, ca, proxy)

        def works() -> int:
            with incomplete(street) as server:
                return street.get(server.url()).status

        warning = f"{second} does nothing: mitmproxy-aia is loaded already, from {first}"
        assert works() == 200
        assert proxy.log.count("does nothing") == proxy.log.count(warning) == 1
        for script, warnings in (first, 1), (second, 2), (first, 2):
            reload(proxy, script)
            assert works() == 200
            assert proxy.log.count("does nothing") == proxy.log.count(warning) == warnings
        assert order(street, "aia_mode=off").status == 200
        assert works() == 502
        assert order(street, "aia_mode=complete").status == 200
        assert order(street, "unload/first.py").status == 200
        assert works() == 502
        assert "Traceback" not in proxy.log
        assert "Over-riding" not in proxy.log
