"""Issuers are remembered: on disk, for a fleet, in files, from neighbours; and not downloaded."""

import contextlib
import functools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mitmproxy_aia.formats import read_certificates
from tests.conftest import World
from tests.lab import (
    CaIssuersServer,
    Issued,
    Proxy,
    RedisServer,
    TlsServer,
    curl,
    pkcs7_ber,
)
from tests.lab.proxy import ADDON
from tests.test_addon import REMOTE_CONTROL, mitmdump, order
from tests.test_end_to_end import wait_until

MISSING = "Certificate verify failed: unable to get local issuer certificate"


@pytest.fixture
def ca() -> Iterator[CaIssuersServer]:
    with CaIssuersServer() as server:
        yield server


def proxy_for(root: Issued, confdir: Path, *arguments: str, **options: str | int | Path) -> Proxy:
    """A mitmdump with a confdir that outlives it."""
    settings = {name: str(value) for name, value in options.items()}
    return Proxy(
        *arguments, trust=[root], confdir=confdir, options=settings, scripts=[REMOTE_CONTROL]
    )


def test_second_start(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """What was downloaded once is there when mitmdump starts again."""
    with proxy_for(root, tmp_path) as proxy:
        world = World(root, ca, proxy)
        lower, upper = None, world.authority()
        lower = world.authority(upper, aia=[world.published(upper)])
        leaf = lower.issue(aia=[world.published(lower)])
        with TlsServer(leaf) as server:
            assert world.get(server.url()).status == 200
    assert sum(ca.downloads.values()) == 2
    assert (tmp_path / "aia.sqlite3").is_file()
    with proxy_for(root, tmp_path) as proxy, TlsServer(leaf) as server:
        for _ in range(2):
            assert curl(server.url(), proxy=proxy).status == 200
        assert re.search(r'found "CN=.*" in aia\.sqlite3, "CN=.*" in aia\.sqlite3 in', proxy.log)
    assert sum(ca.downloads.values()) == 2


def test_memory_only(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """aia_cache=memory leaves nothing on disk."""
    with proxy_for(root, tmp_path, aia_cache="memory") as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert world.get(server.url()).status == 200
            assert world.get(server.url()).status == 200
    assert sum(ca.downloads.values()) == 1
    assert not [*tmp_path.glob("aia*")]


def test_two_proxies_on_one_file(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """They use it at once; what one has downloaded the other finds."""
    cache = tmp_path / "shared.sqlite3"
    with (
        proxy_for(root, tmp_path / "one", aia_cache=cache) as one,
        proxy_for(root, tmp_path / "two", aia_cache=cache) as two,
    ):
        world = World(root, ca, one)
        issuers = [world.authority() for _ in range(20)]
        servers = [TlsServer(each.issue(aia=[world.published(each)])) for each in issuers]
        urls = [server.url() for server in servers]
        with ThreadPoolExecutor(4) as pool:
            first = pool.map(lambda url: curl(url, proxy=one).status, urls[:10])
            second = pool.map(lambda url: curl(url, proxy=two).status, urls[10:])
            assert {*first, *second} == {200}
        # Written in the background.
        wait_until(
            lambda: len(json.loads(order(World(root, ca, one), "run/aia.cache.list").body)) == 21
        )
        with ThreadPoolExecutor(4) as pool:
            first = pool.map(lambda url: curl(url, proxy=one).status, urls[10:])
            second = pool.map(lambda url: curl(url, proxy=two).status, urls[:10])
            assert {*first, *second} == {200}
        for server in servers:
            server.close()
        assert set(ca.downloads.values()) == {1}
        assert "WARNING" not in one.log + two.log


def test_killed_while_it_writes(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """kill -9, again and again: the next one opens the file and goes on with what was in it."""
    remembered = 0
    for number in range(5):
        with proxy_for(root, tmp_path) as proxy:
            world = World(root, ca, proxy)
            known = json.loads(order(world, "run/aia.cache.list").body)[1:]
            assert len(known) >= remembered
            issuers = [world.authority() for _ in range(6)]
            servers = [TlsServer(each.issue(aia=[world.published(each)])) for each in issuers]
            with ThreadPoolExecutor(6) as pool:
                replies = pool.map(world.get, [server.url() for server in servers])
                assert {reply.status for reply in replies} == {200}
            if number % 2:
                wait_until(functools.partial(_has_rows, tmp_path, len(known) + 6))
            remembered = _rows(tmp_path)
            os.kill(proxy.process.pid, signal.SIGKILL)
            for server in servers:
                server.close()
        assert "WARNING" not in proxy.log
    assert remembered >= 12


def _has_rows(confdir: Path, number: int) -> bool:
    return _rows(confdir) >= number


def _rows(confdir: Path) -> int:
    """As another process sees it."""
    command = [sys.executable, "-m", "mitmproxy_aia", "cache", "list", "--json"]
    result = subprocess.run(
        [*command, "--cache", str(confdir / "aia.sqlite3")],
        env=os.environ | {"PYTHONPATH": str(ADDON.parent)},
        capture_output=True,
        check=True,
        timeout=20,
    )
    return len(json.loads(result.stdout))


def test_a_fleet_downloads_once(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """Two cold proxies on one Redis, ten connections at once: one download."""
    with (
        RedisServer(password="secret") as redis,
        proxy_for(root, tmp_path / "one", aia_cache=redis.url) as one,
        proxy_for(root, tmp_path / "two", aia_cache=redis.url) as two,
    ):
        world = World(root, ca, one)
        issuer = world.authority()
        url = ca.serve(world.path(), issuer.der, delay=0.3)
        with TlsServer(issuer.issue(aia=[url])) as server, ThreadPoolExecutor(10) as pool:
            replies = pool.map(lambda proxy: curl(server.url(), proxy=proxy), [one, two] * 5)
            assert {reply.status for reply in replies} == {200}
            assert sum(ca.downloads.values()) == 1
        assert "in Redis" in one.log + two.log
        assert "secret" not in one.log.partition("aia_cache")[2] + two.log.partition("aia_cache")[2]
        assert not [*tmp_path.glob("*/aia*")]


def test_redis_is_stopped_and_started_under_load(
    root: Issued, ca: CaIssuersServer, tmp_path: Path
) -> None:
    """Not one request fails; each proxy says once that it is down, and once that it is back."""
    with (
        RedisServer() as redis,
        proxy_for(root, tmp_path / "one", aia_cache=redis.url) as one,
        proxy_for(root, tmp_path / "two", aia_cache=redis.url) as two,
    ):
        world = World(root, ca, one)
        statuses: list[int] = []
        running = threading.Event()
        running.set()

        def load(proxy: Proxy) -> None:
            """New incomplete servers, one after the other."""
            while running.is_set():
                issuer = world.authority()
                with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
                    statuses.append(curl(server.url(), proxy=proxy).status)

        with ThreadPoolExecutor(4) as pool:
            tasks = [pool.submit(load, proxy) for proxy in (one, two, one, two)]
            try:
                wait_until(lambda: len(statuses) > 10)
                redis.stop()
                for proxy in one, two:
                    proxy.wait_for(r"127\.0\.0\.1:\d+/0 .*(cannot|could not|down|reach|answer)")
                redis.start()
                for proxy in one, two:
                    proxy.wait_for(r"127\.0\.0\.1:\d+/0 .*(again|back)", timeout=30)
                seen = len(statuses)
                wait_until(lambda: len(statuses) > seen + 10)
            finally:
                running.clear()
            for task in tasks:
                task.result(timeout=30)
        assert {*statuses} == {200}
        for proxy in one, two:
            assert "Traceback" not in proxy.log


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("redis://127.0.0.1:1/0", "The cache redis://127.0.0.1:1/0 cannot be reached"),
        ("folder", "folder is not a file; new issuers are remembered in memory only"),
        ("other", "other belongs to another program"),
    ],
)
def test_a_cache_of_no_use_is_named_at_the_start(
    root: Issued, tmp_path: Path, cache: str, words: str
) -> None:
    """Before any server needs it; but not where nothing is to be completed."""
    (tmp_path / "folder").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE other (x)")
        other.commit()
    place = cache if ":" in cache else tmp_path / cache
    with (
        proxy_for(root, tmp_path / "b", aia_cache=place, aia_mode="off") as off,
        # The second: what the first would have to say, it has said before.
        proxy_for(root, tmp_path / "a", aia_cache=place) as proxy,
    ):
        proxy.wait_for(re.escape(words))
        assert words not in off.log


@pytest.mark.parametrize("suffix", ["crt", "txt", "p7c"])
def test_a_file_dropped_into_a_folder(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, suffix: str
) -> None:
    """`curl http://ca/issuer > x.crt` into the folder: used as it is, without a restart."""
    folder = tmp_path / "intermediates"
    folder.mkdir()
    with proxy_for(root, tmp_path, aia_intermediates=folder, aia_mode="frozen") as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[ca.url("/gone")])) as server:
            reply = world.get(server.url())
            assert reply.error_text == (
                f"{MISSING} (AIA: {ca.url('/gone')} was not downloaded (aia_mode=frozen))"
            )
            content = pkcs7_ber(issuer) if suffix == "p7c" else issuer.der
            (folder / f"x.{suffix}").write_bytes(content)
            assert world.get(server.url()).status == 200
            proxy.wait_for(re.escape(f"in {folder / f'x.{suffix}'}"))
            (folder / f"x.{suffix}").unlink()
            # It is not remembered elsewhere, either.
            wait_until(lambda: world.get(server.url()).status == 502)
    assert not ca.requests


def test_intermediates_that_are_not_there(root: Issued, tmp_path: Path) -> None:
    """mitmdump does not start, and names the path and the option."""
    command = [mitmdump(), "-s", str(ADDON), "-p", "0"]
    command += ["--set", f"confdir={tmp_path}", "--set", f"aia_intermediates={tmp_path}/none.pem"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert re.search(r"aia_intermediates: \S+/none\.pem", output)


def test_a_file_that_is_no_certificate(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """It is named once, and the others are used."""
    world_ca = root.issue("In a file", ca=True)
    (tmp_path / "notes.txt").write_text("remember the milk")
    (tmp_path / "good.pem").write_bytes(world_ca.pem)
    confdir = tmp_path / "confdir"
    with proxy_for(root, confdir, aia_intermediates=tmp_path, aia_mode="frozen") as proxy:
        with TlsServer(world_ca.issue()) as server:
            for _ in range(3):
                assert curl(server.url(), proxy=proxy).status == 200
        assert len(re.findall(r"notes\.txt", proxy.log.partition("istening at")[0])) == 1


def test_a_neighbour_is_learned_from(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """One server sends its intermediate, another forgets the same: nothing is downloaded."""
    with proxy_for(root, tmp_path) as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(), issuer) as complete:
            assert world.get(complete.url()).status == 200
            port = complete.port
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as incomplete:
            assert world.get(incomplete.url()).status == 200
        table = json.loads(order(world, "run/aia.cache.list").body)
        assert [row[2] for row in table[1:]] == [f"127.0.0.1:{port}"]
    assert not ca.requests
    with proxy_for(root, tmp_path) as proxy, TlsServer(issuer.issue()) as incomplete:
        assert curl(incomplete.url(), proxy=proxy).status == 200


def test_learning_is_switched_off(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """aia_learn=false: complete chains leave nothing behind."""
    with proxy_for(root, tmp_path, aia_learn="false") as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(), issuer) as complete:
            assert world.get(complete.url()).status == 200
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as incomplete:
            assert world.get(incomplete.url()).status == 200
    assert sum(ca.downloads.values()) == 1


def test_nothing_is_learned_from_a_bad_chain(
    root: Issued, ca: CaIssuersServer, tmp_path: Path
) -> None:
    """A handshake that fails for another reason teaches nothing, nor does what is not on the
    path."""
    with proxy_for(root, tmp_path) as proxy:
        world = World(root, ca, proxy)
        issuer, stranger = world.authority(), world.authority()
        with TlsServer(issuer.issue(hosts=["other.example"]), issuer) as server:
            assert world.get(server.url()).status == 502
        assert json.loads(order(world, "run/aia.cache.list").body)[1:] == []
        with TlsServer(issuer.issue(), issuer, stranger, root) as server:
            assert world.get(server.url()).status == 200
        table = json.loads(order(world, "run/aia.cache.list").body)
        assert [row[0] for row in table[1:]] == [f"CN={issuer.name}"]


def test_frozen_replay(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """A CI job: flows recorded with downloads, a bundle exported and committed, and the flows
    replayed from it where nothing can be downloaded."""
    flows, bundle = tmp_path / "flows.mitm", tmp_path / "intermediates.pem"
    with proxy_for(root, tmp_path / "here", "-w", str(flows)) as proxy:
        world = World(root, ca, proxy)
        upper = world.authority()
        lower = world.authority(upper, aia=[world.published(upper)])
        server = TlsServer(lower.issue(aia=[world.published(lower)]))
        assert world.get(server.url("/recorded")).status == 200
        assert order(world, f"run/aia.cache.export {bundle}").status == 200
        proxy.wait_for(r"2 intermediates were written to")
    assert f"# subject:  CN={upper.name}" in bundle.read_text()
    assert len(read_certificates(bundle.read_bytes())) == 2
    ca.close()
    with server:
        for intermediates, status in (bundle, 200), (None, None):
            options: dict[str, str | int | float] = {"aia_mode": "frozen", "flow_detail": 2}
            if intermediates:
                options["aia_intermediates"] = str(intermediates)
            with Proxy("-n", "-C", str(flows), trust=[root], options=options, listen=False) as ci:
                ci.wait()
            if status:
                assert re.search(r"<< .*200", ci.log)
            else:
                assert re.search(r"/\d+\.der was not downloaded \(aia_mode=frozen\)", ci.log)
                assert not re.search(r"<< .*200", ci.log)


def test_audit(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """It looks and says what it would have done, and the client gets what it always got."""
    with (
        proxy_for(root, tmp_path, aia_mode="audit") as proxy,
        Proxy(trust=[root], addon=False) as stock,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        leaves = [
            issuer.issue(aia=[url]),
            issuer.issue(aia=[ca.url("/404")]),
            issuer.issue(aia=[url], expired=True),
            issuer.issue(aia=[url], hosts=["other.example"]),
            root.issue(expired=True),
        ]
        for leaf in leaves:
            with TlsServer(leaf) as server:
                reply, stock_reply = world.get(server.url()), curl(server.url(), proxy=stock)
                assert reply.status == 502
                assert reply.error_text == stock_reply.error_text
                assert not server.requests
        assert re.search(
            r'found "CN=.*" at .* let it fail all the same \(aia_mode=audit\)', proxy.log
        )


def test_commands(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """The cache is listed, written to a file and cleared from inside mitmproxy."""
    with proxy_for(root, tmp_path) as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        with TlsServer(issuer.issue(aia=[url])) as server:
            assert world.get(server.url()).status == 200
            head, row = json.loads(order(world, "run/aia.cache.list").body)
            assert head == ["subject", "valid until", "from", "last used"]
            assert row[0] == f"CN={issuer.name}"
            assert row[2] == url
            assert order(world, f"run/aia.cache.export {tmp_path}/no/such/folder.pem").status == 200
            proxy.wait_for(r"no/such/folder\.pem")
            assert order(world, "run/aia.cache.clear").status == 200
            proxy.wait_for("1 intermediate was forgotten")
            assert len(json.loads(order(world, "run/aia.cache.list").body)) == 1
            assert world.get(server.url()).status == 200
            assert sum(ca.downloads.values()) == 2
            wait_until(lambda: _rows(tmp_path) == 1)


def test_forgotten_and_learned_again(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """After aia.cache.clear a complete chain teaches anew what it has taught before."""
    with proxy_for(root, tmp_path, aia_mode="frozen") as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with (
            TlsServer(issuer.issue(), issuer) as complete,
            TlsServer(issuer.issue()) as incomplete,
        ):
            for _ in range(2):
                assert world.get(complete.url()).status == 200
                assert world.get(incomplete.url()).status == 200
                seen = len(proxy.log)
                assert order(world, "run/aia.cache.clear").status == 200
                proxy.wait_for("intermediate was forgotten", after=seen)
                assert world.get(incomplete.url()).status == 502


@pytest.mark.parametrize("kind", ["folder", "locked"])
def test_commands_with_a_cache_that_does_not_answer(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, kind: str
) -> None:
    """What is in memory is listed all the same, and nobody waits for the rest."""
    cache = tmp_path / "cache"
    with contextlib.ExitStack() as stack:
        if kind == "folder":
            cache.mkdir()
        proxy = stack.enter_context(proxy_for(root, tmp_path, aia_cache=cache))
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert world.get(server.url()).status == 200
            if kind == "locked":
                wait_until(cache.is_file)
                database = stack.enter_context(contextlib.closing(sqlite3.connect(cache)))
                database.execute("BEGIN IMMEDIATE")
            _, row = json.loads(order(world, "run/aia.cache.list").body)
            assert row[0] == f"CN={issuer.name}"
            for name in "clear", f"export {tmp_path}/out.pem":
                assert order(world, f"run/aia.cache.{name}").status == 200
                assert world.get(server.url()).status == 200
        assert "Traceback" not in proxy.log


def test_frozen_in_the_middle(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """aia_mode=frozen counts from then on, also for what has begun."""
    gate = threading.Event()
    with proxy_for(root, tmp_path) as proxy, ThreadPoolExecutor(1) as pool:
        world = World(root, ca, proxy)
        upper = world.authority()
        lower = world.authority(upper, aia=[ca.serve("/upper.der", upper.der)])
        leaf = lower.issue(aia=[ca.serve("/lower.der", lower.der, gate=gate)])
        with TlsServer(leaf) as server:
            reply = pool.submit(world.get, server.url())
            wait_until(lambda: bool(ca.downloads["/lower.der"]))
            assert order(world, "aia_mode=frozen").status == 200
            gate.set()
            assert reply.result(20).status == 502
        assert not ca.downloads["/upper.der"]
        assert "/upper.der was not downloaded (aia_mode=frozen)" in proxy.log


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("http://user:hidden@cache.example/", "aia_cache: takes the path of a file"),
        ("redis://user:hidden@:port/x", "aia_cache: a Redis URL"),
        ("redis:/:hidden@cache.example/0", "aia_cache: takes redis://host:port/db"),
        ("~nobody-of-this-name/hidden", "begins with a user without a home"),
    ],
)
def test_bad_cache(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, value: str, message: str
) -> None:
    """It is refused by name, without the password."""
    with proxy_for(root, tmp_path) as proxy:
        reply = order(World(root, ca, proxy), f"aia_cache={value}")
        assert reply.status == 400
        assert message in reply.body.decode()
        if "://" in value:
            assert "hidden" not in reply.body.decode()


def test_cache_is_changed_while_running(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """From the next connection on; what was in memory stays there."""
    with proxy_for(root, tmp_path) as proxy:
        world = World(root, ca, proxy)
        for cache in "one.sqlite3", "two.sqlite3", "memory":
            where = cache if cache == "memory" else tmp_path / cache
            assert order(world, f"aia_cache={where}").status == 200
            issuer = world.authority()
            with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
                assert world.get(server.url()).status == 200
        for cache in "one.sqlite3", "two.sqlite3":
            wait_until(lambda path=tmp_path / cache: path.is_file())  # type: ignore[misc]
    assert not (tmp_path / "aia.sqlite3").exists()


@pytest.mark.parametrize(
    "content", [b"remember the milk", b"SQLite format 3\x00 and nonsense" * 99]
)
def test_cache_that_is_none(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, content: bytes
) -> None:
    """One WARNING, nothing of it is lost, and proxying goes on."""
    cache = tmp_path / "notes"
    cache.write_bytes(content)
    with proxy_for(root, tmp_path, aia_cache=cache) as proxy:
        world = World(root, ca, proxy)
        for _ in range(3):
            issuer = world.authority()
            with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
                assert world.get(server.url()).status == 200
        proxy.wait_for("notes")
        time.sleep(0.2)
        assert len(re.findall(r"issuers are remembered|set aside", proxy.log)) == 1
    assert content in [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
