"""Options, reloading and log lines, in a running mitmdump."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from mitmproxy import connection, exceptions
from mitmproxy.test import taddons

from mitmproxy_aia import Aia
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.connections import address_of
from mitmproxy_aia.options import NAMES
from mitmproxy_aia.recent import Recent
from tests import test_history
from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, Reply, TlsServer, authority, curl
from tests.lab.proxy import ADDON
from tests.test_end_to_end import wait_until

SCRIPTS = Path(__file__).parent / "scripts"
REMOTE_CONTROL = SCRIPTS / "remote_control.py"


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    """A proxy that tests may change."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options={"aia_timeout": 2}) as proxy,
    ):
        yield World(root, ca, proxy)


def order(world: World, what: str) -> Reply:
    return curl(f"http://control.test/{quote(what)}", proxy=world.proxy)


@pytest.fixture
def incomplete(own_world: World) -> Iterator[TlsServer]:
    """A server whose incomplete chain can be completed."""
    issuer = own_world.authority()
    with TlsServer(issuer.issue(aia=[own_world.published(issuer)])) as server:
        yield server


def test_mode_is_changed_while_running(own_world: World, incomplete: TlsServer) -> None:
    """aia_mode=off is mitmproxy without the addon, from the next connection on."""
    assert own_world.get(incomplete.url()).status == 200
    assert order(own_world, "aia_mode=off").status == 200
    reply = own_world.get(incomplete.url())
    text = "Certificate verify failed: unable to get local issuer certificate"
    assert (reply.status, reply.error_text) == (502, text)
    assert order(own_world, "aia_mode=complete").status == 200
    assert own_world.get(incomplete.url()).status == 200


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            "aia_mode=sometimes",
            "aia_mode takes one of complete, frozen, audit, off, and not 'sometimes'",
        ),
        ("aia_timeout=0", "aia_timeout takes a number of seconds greater than 0"),
        ("aia_timeout=-5", "aia_timeout takes a number of seconds greater than 0"),
        ("aia_timeout=soon", "aia_timeout takes a number of seconds greater than 0"),
        ("aia_timeout=1_0", "aia_timeout takes a number of seconds greater than 0"),
        ("aia_timeout=nan", "aia_timeout takes a number of seconds greater than 0"),
    ],
)
def test_bad_option_while_running(
    own_world: World, incomplete: TlsServer, bad: str, message: str
) -> None:
    """A bad value is refused by name, and the old one stays."""
    reply = order(own_world, bad)
    assert reply.status == 400
    assert message in reply.body.decode()
    assert own_world.get(incomplete.url()).status == 200


def mitmdump() -> str:
    return str(Path(sys.executable).parent / "mitmdump")


def test_options_are_documented() -> None:
    """`mitmdump --options` explains each of ours."""

    async def main() -> None:
        with taddons.context(Aia()) as context:
            ours = [name for name in list(context.options.keys()) if name.startswith("aia_")]
            assert set(ours) == NAMES
            assert all(len(context.options._options[name].help) > 40 for name in ours)

    asyncio.run(main())


@pytest.mark.parametrize("bad", [{"aia_mode": "x"}, {"aia_timeout": "0"}])
def test_bad_option_rolls_back(bad: dict[str, object]) -> None:
    """After an OptionsError the options are what they were."""

    async def main() -> None:
        with taddons.context(Aia()) as context:
            before = context.options.aia_mode, context.options.aia_timeout
            with pytest.raises(exceptions.OptionsError):
                context.options.update(**bad)
            assert (context.options.aia_mode, context.options.aia_timeout) == before

    asyncio.run(main())


def test_removed(root: Issued) -> None:
    """Removing the script leaves no trace on later connections."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL]) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert world.get(server.url()).status == 200
            assert order(world, "unload/aia.py").status == 200
            reply = world.get(server.url())
    text = "Certificate verify failed: unable to get local issuer certificate"
    assert (reply.status, reply.error_text) == (502, text)
    assert "Traceback" not in proxy.log


def test_removed_during_a_download(root: Issued) -> None:
    """A pause that is under way ends at once, and in the 502."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options={"aia_timeout": 30}) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        world = World(root, ca, proxy)
        path = world.path()
        with TlsServer(world.authority().issue(aia=[ca.hang(path)])) as server:
            waiting = pool.submit(world.get, server.url())
            wait_until(lambda: ca.downloads[path] == 1)
            assert order(world, "unload/aia.py").status == 200
            assert waiting.result(10).status == 502


def test_trust_file_that_is_missing(root: Issued) -> None:
    """TlsConfig's own failure stays its own: the same answer and message as without the addon."""
    options = {"ssl_verify_upstream_trusted_ca": "/nonexistent.pem"}
    with TlsServer(root.issue()) as server:
        for addon in False, True:
            with Proxy(addon=addon, options=options) as proxy:
                reply = curl(server.url(), proxy=proxy)
                assert (reply.status, reply.error_text) == (502, "connection closed")
                assert proxy.log.count("Addon error") == 1
    assert server.handshakes == []


def test_slow_names_delay_nobody_else(root: Issued) -> None:
    """caIssuers hosts whose name server does not answer, and a server asked for by name."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[SCRIPTS / "slow_names.py"]) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        world = World(root, ca, proxy)
        urls = [[f"http://slow-{a}-{b}.test/" for b in range(5)] for a in range(4)]
        bad = [TlsServer(world.authority().issue(aia=each)) for each in urls]
        replies = [pool.submit(world.get, server.url()) for server in bad]
        proxy.wait_for(r"looking up slow-3-4\.test")
        with TlsServer(root.issue()) as good:
            assert world.get(good.url(host="localhost")).status == 200
        assert not any(reply.done() for reply in replies)
        proxy.close()
        for server in bad:
            server.close()


def test_name_of_a_server_is_printable(own_world: World) -> None:
    """A name with control characters does not get into the log as it is."""
    server = connection.Server(address=("bad\x1b[31m\nname", 443))
    assert address_of(server).isprintable()


def test_reloaded(root: Issued, tmp_path: Path) -> None:
    """Touching the script reloads it; the new instance works, and there is only one."""
    script = Path(shutil.copy(ADDON, tmp_path / "aia.py"))
    with (
        CaIssuersServer() as ca,
        Proxy(
            trust=[root],
            addon=False,
            scripts=[script],
            options={"aia_cache": "memory"},
            environment={"PYTHONPATH": str(ADDON.parent)},
        ) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        path = world.path()
        leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der)])
        with TlsServer(leaf) as server:
            assert world.get(server.url()).status == 200
            start = len(proxy.log)
            script.write_text(script.read_text() + "\n")
            proxy.wait_for("Loading script", after=start)
            # The new instance has a memory of its own.
            wait_until(lambda: world.get(server.url()).status == 200 and ca.downloads[path] == 2)
            assert world.get(server.url()).status == 200
            assert ca.downloads[path] == 2
    assert "Traceback" not in proxy.log


def test_ssl_insecure(root: Issued) -> None:
    """With ssl_insecure nothing is verified, completed or downloaded, as without the addon."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"ssl_insecure": "true"}) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = authority("Nobody").issue("CA", ca=True)
        url = world.published(issuer)
        with TlsServer(issuer.issue(hosts=["other.example"], aia=[url])) as server:
            assert world.get(server.url()).status == 200
        assert not ca.requests


BUGS = [
    "completion at once",
    "completion",
    "verifier",
    "beginning",
    "conclusion",
    "presented",
    "callback",
    "no handler",
    "handler that gives no outcome",
]


@pytest.mark.parametrize("bug", BUGS)
def test_fails_closed(root: Issued, bug: str) -> None:
    """An exception anywhere in the hook ends in the 502; complete chains still work."""
    environment = {"BROKEN": bug, "PYTHONPATH": str(ADDON.parent)}
    script = SCRIPTS / "broken_completion.py"
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[script], environment=environment) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            reply = world.get(server.url())
            assert reply.status == 502
            assert "unable to get local issuer certificate" in reply.error_text
            assert server.requests == []
            assert server.handshakes == []
        with TlsServer(issuer.issue(), issuer) as server:
            assert world.get(server.url()).status == 200


def test_log_lines(own_world: World) -> None:
    """One INFO line for a completion, and repeated connections at DEBUG."""
    issuer = own_world.authority()
    url = own_world.published(issuer)
    with TlsServer(issuer.issue(aia=[url])) as server:
        start = len(own_world.proxy.log)
        own_world.get(server.url())
        own_world.get(server.url())
        log = own_world.proxy.log[start:]
    lines = [line for line in log.splitlines() if "sent an incomplete chain" in line]
    assert len(lines) == 2
    address = f"127.0.0.1:{server.port} sent an incomplete chain"
    assert re.search(rf'{address}; found "CN={issuer.name}" at {url} in \d+ ms', lines[0])
    assert re.search(rf'{address}; found "CN={issuer.name}" in memory in \d+ ms', lines[1])


def test_repeated_connections_are_quiet(root: Issued) -> None:
    """At the default verbosity the log has one line for a server, not one for a connection."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"termlog_verbosity": "info"}) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert [world.get(server.url()).status for _ in range(3)] == [200] * 3
    assert proxy.log.count("sent an incomplete chain") == 1


def test_ends_cleanly_while_a_download_hangs(root: Issued) -> None:
    """Ctrl-C during a pause: mitmdump ends, and nothing of ours complains."""
    with CaIssuersServer() as ca, Proxy(trust=[root]) as proxy:
        world = World(root, ca, proxy)
        path = world.path()
        with TlsServer(world.authority().issue(aia=[ca.hang(path)])) as server:
            client = subprocess.Popen(
                ["curl", "-s", "-k", "--proxy", proxy.url, server.url()],
                stdout=subprocess.DEVNULL,
            )
            wait_until(lambda: ca.downloads[path] == 1)
            proxy.process.stop()
            client.wait(10)
    # mitmproxy 11 itself shows a traceback for a client that is still connected.
    assert "aia" not in proxy.log.partition("server connect")[2]


def test_learns_once_from_each_server() -> None:
    """For an hour, and as long as the cache is the same one."""
    addon = Aia()
    intermediates = [Certificate(authority("CA").der)]
    asked: list[str] = []

    def asked_of(host: str) -> Callable[[], list[Certificate]]:
        def get() -> list[Certificate]:
            asked.append(host)
            return intermediates

        return get

    async def main() -> None:
        with taddons.context(addon) as context:
            context.options.aia_cache = "memory"
            for host in ["server.example", "server.example", "other.example", "server.example"]:
                addon._complete(connection.Server(address=(host, 443)), asked_of(host))
            assert asked == ["server.example", "other.example"]
            # What it sends over QUIC is another matter.
            server = connection.Server(address=("server.example", 443), tls_version="QUICv1")
            record = addon.history.note("server.example:443", test_history.incomplete())
            addon._complete(server, asked_of("QUIC"))
            assert asked.pop() == "QUIC"
            assert [*addon.history.records()] == [record]
            addon.history.clear()
            context.configure(addon, aia_learn=False)
            addon._complete(connection.Server(address=("third.example", 443)), asked_of("third"))
            assert asked == ["server.example", "other.example"]
            addon.done()

    asyncio.run(main())


def test_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgotten after their time, or when there are too many, the oldest first."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recent = Recent(2, 10.0)
    recent.add("a")
    now = 1009.0
    assert "a" in recent
    assert "b" not in recent
    now = 1010.0
    assert "a" not in recent
    for each in "bac":
        recent.add(each)
    assert [each in recent for each in "abc"] == [True, False, True]
    recent.clear()
    assert "a" not in recent
