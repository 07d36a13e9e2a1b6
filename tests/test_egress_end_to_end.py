"""Egress in a running mitmdump: what it may download, for whom, and through which proxy."""

import itertools
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, Relay, TlsServer, authority, curl
from tests.lab.proxy import ADDON
from tests.socks_server import SocksServer
from tests.test_addon import REMOTE_CONTROL, mitmdump, order
from tests.test_end_to_end import wait_until

KNOWN_NAMES = Path(__file__).parent / "scripts" / "known_names.py"
WANTS = Path(__file__).parent / "scripts" / "wants_credentials.py"
SECRET = "hunter2"


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    """A proxy that tests may change, and that has access rules for its own clients."""
    with (
        CaIssuersServer() as ca,
        Proxy(
            trust=[root],
            scripts=[REMOTE_CONTROL, KNOWN_NAMES],
            options={"aia_timeout": 5},
            environment={"NAMES": "metadata.test=169.254.169.254,ca.test=127.0.0.1"},
        ) as proxy,
    ):
        yield World(root, ca, proxy)


def reason(world: World, *urls: str) -> str:
    """Why a server whose leaf names these URLs is refused."""
    with TlsServer(world.authority().issue(aia=urls)) as server:
        reply = world.get(server.url())
        assert reply.status == 502
        return reply.error_text


def test_metadata_service_is_never_asked(own_world: World) -> None:
    """Not even for a server on this machine; by address, by name, or by redirect."""
    literal, name = "http://169.254.169.254/latest/", "http://metadata.test/"
    hop = own_world.ca.redirect(own_world.path(), literal)
    kind = "is a cloud's metadata service"
    text = reason(own_world, literal, name, hop)
    assert f"refused: {literal} {kind};" in text
    assert f"refused: {name} {kind} (169.254.169.254);" in text
    assert f"refused: {hop} led to {literal}, which {kind})" in text


def test_own_listener_is_not_asked(own_world: World) -> None:
    """A URL at the port of the proxy itself."""
    text = reason(own_world, own_world.proxy.url + "/", own_world.proxy.url.replace(".0.0.1", ".1"))
    assert text.count("is where this proxy itself listens") == 2


@pytest.mark.parametrize("option", ["aia_deny", "aia_allow"])
def test_lists(own_world: World, option: str) -> None:
    """aia_deny takes effect from the next connection on, and aia_allow cannot undo it."""
    issuer = own_world.authority()
    url = own_world.published(issuer).replace("127.0.0.1", "ca.test")
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert order(own_world, "aia_deny=ca.test").status == 200
        assert order(own_world, "aia_allow=ca.test").status == 200
        text = own_world.get(server.url()).error_text
        assert f"refused: {url} is denied (aia_deny)" in text
        assert order(own_world, "aia_deny").status == 200
        assert own_world.get(server.url()).status == 200
    assert order(own_world, option).status == 200


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("aia_allow=10.0.0.1/8", "aia_allow: '10.0.0.1/8' is not a host name, an address"),
        ("aia_allow=169.254.169.254", "where no download ever goes"),
        ("aia_deny=a b", "aia_deny: 'a b' is not a host name, an address or a network"),
        (f"aia_proxy=ftp://me:{SECRET}@a:1", "aia_proxy takes auto, direct or scheme://"),
        (f"aia_proxy=http://me:{SECRET}@a:b", "aia_proxy: its URL has no valid host and port"),
    ],
)
def test_bad_option(own_world: World, bad: str, message: str) -> None:
    """It is refused by name, at once."""
    reply = order(own_world, bad)
    assert (reply.status, SECRET in reply.body.decode()) == (400, False)
    assert message in reply.body.decode()


def test_bad_option_at_the_start() -> None:
    """mitmdump ends, and says what was wrong."""
    command = [mitmdump(), "-s", str(ADDON), "-p", "0", "--set", "aia_allow=a b"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode != 0
    assert "aia_allow: 'a b' is not a host name" in result.stdout + result.stderr


def test_access_rules_of_the_proxy_do_not_matter(root: Issued) -> None:
    """Squid's users meet a 407 of their own proxy. A download is no client of this one."""
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"proxyauth": f"me:{SECRET}"}) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            reply = world.get(server.url(), "--proxy-user", f"me:{SECRET}")
            assert reply.status == 200
        (request,) = ca.requests
        assert {name.lower() for name in request.headers} == {
            *("host", "accept", "accept-encoding", "user-agent", "connection")
        }
        assert SECRET not in str(request.headers)


def test_download_says_nothing_of_the_user(own_world: World) -> None:
    """Not what the client has said of itself, nor that there is a client."""
    issuer = own_world.authority()
    url = own_world.published(issuer)
    told = ["-H", "Cookie: a=b", "-H", "Referer: http://r/", "-A", "curious", "-u", "me:pw"]
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert own_world.get(server.url("/private?q"), *told).status == 200
    sent = str(own_world.ca.requests[-1])
    for each in ("cookie", "referer", "curious", "authorization", "via", "forwarded", "private"):
        assert each not in sent.lower()


class Upstream:
    """A second mitmdump as the upstream proxy, which wants credentials."""

    def __init__(self, *arguments: str) -> None:
        options = {"proxyauth": f"me:{SECRET}", "flow_detail": "2"}
        self.proxy = Proxy(*arguments, addon=False, options=options)

    def __enter__(self) -> "Upstream":
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"


def upstream_world(
    root: Issued, ca: CaIssuersServer, upstream: str, *, scheme: str = "http", **options: str
) -> Proxy:
    settings: dict[str, str | int | float] = {"aia_timeout": 5, **options}
    return Proxy(
        trust=[root],
        mode=f"upstream:{scheme}://{upstream}",
        options=settings,
        scripts=[REMOTE_CONTROL],
    )


def test_upstream_mode(root: Issued) -> None:
    """Downloads go through the upstream proxy, with upstream_auth."""
    with (
        CaIssuersServer() as ca,
        # The second mitmdump accepts the server's incomplete chain: it does not look into it.
        Upstream("--ignore-hosts", "127.0.0.1") as upstream,
        upstream_world(
            root, ca, upstream.address, upstream_auth=f"me:{SECRET}", aia_allow="127.0.0.1"
        ) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        with TlsServer(issuer.issue(aia=[url])) as server:
            assert world.get(server.url()).status == 200
        assert len(ca.requests) == 1
        assert f"GET {url}" in upstream.proxy.log
        assert "proxy-authorization" not in ca.requests[0].headers
        assert SECRET not in proxy.log


def test_https_upstream_proxy(root: Issued) -> None:
    """Downloads go through TLS to it, too. It is verified first, with mitmproxy's roots: one
    that nobody trusts is told nothing, and the reason says so."""
    stranger = authority("Stranger")
    with (
        CaIssuersServer() as ca,
        Upstream("--ignore-hosts", "127.0.0.1") as upstream,
        Relay(upstream.proxy.port, leaf=root.issue()) as front,
        Relay(upstream.proxy.port, leaf=stranger.issue()) as impostor,
        upstream_world(
            root,
            ca,
            f"127.0.0.1:{front.port}",
            scheme="https",
            upstream_auth=f"me:{SECRET}",
            aia_allow="127.0.0.1",
        ) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer, other = world.authority(), world.authority()
        url, another = world.published(issuer), world.published(other)
        with (
            TlsServer(issuer.issue(aia=[url])) as server,
            TlsServer(other.issue(aia=[another])) as second,
        ):
            assert world.get(server.url()).status == 200
            assert f"GET {url}" in upstream.proxy.log
            assert f"GET {url} HTTP/1.1".encode() in front.passed("to_server")
            there = f"aia_proxy=https://me:{SECRET}@127.0.0.1:{impostor.port}"
            assert order(world, there).status == 200
            text = world.get(second.url()).error_text
            assert "the proxy has a certificate that is not trusted (unable to get local" in text
            assert text.endswith(" (AIA: CN=Lab Leaf names no caIssuers URL)); aia_proxy))")
            assert impostor.connections == 1
            assert impostor.passed("to_server") == b""
            right = there.replace(str(impostor.port), str(front.port))
            assert order(world, right).status == 200
            assert world.get(second.url()).status == 200
        assert len(ca.requests) == 2
        assert all(SECRET not in line for line in proxy.lines() if "control.test" not in line)


def test_wrong_upstream_auth(root: Issued) -> None:
    """A proxy that lets mitmproxy connect to servers, and refuses its downloads: the option is
    that of mitmproxy."""
    with (
        CaIssuersServer() as ca,
        Proxy("--ignore-hosts", "127.0.0.1", addon=False, scripts=[WANTS]) as upstream,
        upstream_world(root, ca, f"127.0.0.1:{upstream.port}", aia_allow="127.0.0.1") as proxy,
    ):
        world = World(root, ca, proxy)
        url = world.published(world.root)
        refused = f"{url} was not downloaded: the proxy"
        assert f"{refused} wants credentials (407; upstream_auth)" in reason(world, url)
        assert order(world, "upstream_auth=me:wrong").status == 200
        assert f"{refused} refused our credentials (407; upstream_auth)" in reason(world, url)


def test_upstream_mode_counts_as_public(root: Issued) -> None:
    """Where a server is cannot be told: addresses that are not public are not asked for."""
    with (
        CaIssuersServer() as ca,
        Upstream("--ignore-hosts", "127.0.0.1") as upstream,
        upstream_world(root, ca, upstream.address, upstream_auth=f"me:{SECRET}") as proxy,
    ):
        world = World(root, ca, proxy)
        url = world.published(world.root)
        text = reason(world, url, "http://localhost/")
        behind = "and where 127.0.0.1 is cannot be told behind a proxy (aia_allow)"
        assert f"refused: {url} is on this machine, {behind}" in text
        assert f"refused: http://localhost/ is on the proxy's own machine, {behind}" in text
        assert ca.requests == []


def test_407_of_the_upstream_proxy(root: Issued) -> None:
    """What the proxy says to a download is told as that, naming the option; the next download
    goes with what the option then says."""
    with (
        CaIssuersServer() as ca,
        Upstream() as upstream,
        Proxy(
            trust=[root],
            scripts=[REMOTE_CONTROL],
            options={"aia_proxy": f"http://me:wrong@{upstream.address}", "aia_timeout": 5},
        ) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        with TlsServer(issuer.issue(aia=[url])) as server:
            text = world.get(server.url()).error_text
            words = "was not downloaded: the proxy refused our credentials (407; aia_proxy)"
            assert f"{url} {words}" in text
            right = f"aia_proxy=http://me:{SECRET}@{upstream.address}"
            assert order(world, right).status == 200
            assert world.get(server.url()).status == 200
        assert f"GET {url}" in upstream.proxy.log
        assert "wrong" not in proxy.log


def test_aia_proxy_wins_over_the_mode(root: Issued) -> None:
    """aia_proxy=direct, behind an upstream proxy; aia_proxy=socks5://..., without one."""
    with (
        CaIssuersServer() as ca,
        SocksServer(ca.port, f"me:{SECRET}") as socks,
        Upstream("--ignore-hosts", "127.0.0.1") as upstream,
        upstream_world(
            root,
            ca,
            upstream.address,
            upstream_auth=f"me:{SECRET}",
            aia_allow="127.0.0.1",
            aia_proxy="direct",
        ) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        with TlsServer(issuer.issue(aia=[url])) as server:
            assert world.get(server.url()).status == 200
        assert f"GET {url}" not in upstream.proxy.log
        issuer = world.authority()
        path = world.path()
        ca.serve(path, issuer.der)
        assert order(world, f"aia_proxy=socks5://me:{SECRET}@127.0.0.1:{socks.port}").status == 200
        with TlsServer(issuer.issue(aia=[f"http://ca.example{path}"])) as server:
            assert world.get(server.url()).status == 200
        assert [wanted.host for wanted in socks.wanted] == ["ca.example"]


def test_flood_of_hanging_urls(root: Issued) -> None:
    """A server with many leaves, each with hanging URLs of its own, delays nobody else."""
    numbers = itertools.count()
    with (
        CaIssuersServer() as hanging,
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"aia_timeout": 30}) as proxy,
        ThreadPoolExecutor(24) as pool,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        good = world.authority()
        flood = [
            TlsServer(issuer.issue(aia=[hanging.hang(f"/{next(numbers)}") for _ in range(5)]))
            for _ in range(24)
        ]
        waiting = [
            pool.submit(curl, server.url(), "--max-time", "60", proxy=proxy, timeout=60)
            for server in flood
        ]
        # 24 servers want 120 URLs of one host, which is more than its share.
        wait_until(lambda: len(hanging.requests) == 16, timeout=20)
        time.sleep(1)
        with TlsServer(good.issue(aia=[world.published(good)])) as server:
            assert world.get(server.url()).status == 200
        assert len(hanging.requests) == 16
        assert not any(reply.done() for reply in waiting)
        proxy.close()
        for server in flood:
            server.close()
