"""The page http://mitm.aia/ in a running mitmdump, looked at with curl."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.page.headers import HEADERS
from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, Reply, TlsServer, authority, curl, dead_url
from tests.lab.listener import Listener
from tests.lab.process import find_program
from tests.test_addon import REMOTE_CONTROL, order

PAGE = "http://mitm.aia"


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    """A proxy whose options tests may change."""
    options: dict[str, str | int | float] = {"aia_timeout": 2, "aia_proxy": "direct"}
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options=options) as proxy,
    ):
        yield World(root, ca, proxy)


@pytest.fixture(scope="module")
def incomplete(own_world: World) -> Iterator[TlsServer]:
    """A server with an incomplete chain that a client has met."""
    issuer = own_world.authority()
    with TlsServer(issuer.issue(aia=[own_world.published(issuer)])) as server:
        assert own_world.get(server.url()).status == 200
        yield server


def get(world: World, path: str = "/", *arguments: str) -> Reply:
    return world.get(PAGE + path, *arguments)


def chain_link(page: Reply, server: TlsServer) -> str:
    [link] = re.findall(rf'href="(/chain/[0-9a-f]+/127\.0\.0\.1-{server.port}\.pem)"', text(page))
    return str(link)


def text(reply: Reply) -> str:
    return reply.body.decode(errors="replace")


def test_server_is_shown_and_its_chain_mends_it(
    own_world: World, incomplete: TlsServer, tmp_path: Path
) -> None:
    """What the page offers for download is a chain that OpenSSL accepts with nothing but the
    root."""
    page = get(own_world)
    assert f'127.0.0.1<span class="port">:{incomplete.port}</span>' in text(page)
    chain = get(own_world, chain_link(page, incomplete))
    assert len(read_certificates(chain.body)) == 2
    (tmp_path / "chain.pem").write_bytes(chain.body)
    (tmp_path / "root.pem").write_bytes(own_world.root.pem)
    chain_file, root_file = str(tmp_path / "chain.pem"), str(tmp_path / "root.pem")
    verify = [find_program("openssl"), "verify", "-CAfile", root_file]
    verify += ["-untrusted", chain_file, chain_file]
    subprocess.run(verify, check=True, capture_output=True)


def test_newest_first(own_world: World, incomplete: TlsServer) -> None:
    """A broken server goes to the top, with its reason; the next fault of another moves that up."""
    stranger = authority("Stranger").issue("Strange Issuer", ca=True)
    with TlsServer(stranger.issue(aia=[own_world.ca.url("/gone.cer")])) as broken:
        assert own_world.get(broken.url()).status == 502
        page = text(get(own_world))
        assert page.index(f":{broken.port}<") < page.index(f":{incomplete.port}<")
        assert "/gone.cer answered 404" in page
        assert own_world.get(incomplete.url()).status == 200
        page = text(get(own_world))
        assert page.index(f":{incomplete.port}<") < page.index(f":{broken.port}<")


def test_untrusted_root_that_was_downloaded_is_drawn(own_world: World) -> None:
    """leaf -> [issuer] -> [root]: all are found, and the root is a stranger's."""
    stranger = authority("Downloaded Stranger")
    url = own_world.ca.serve(own_world.path(), stranger.der)
    issuer = stranger.issue("Downloaded Issuer", ca=True, aia=[url])
    with TlsServer(issuer.issue(aia=[own_world.published(issuer)])) as server:
        assert own_world.get(server.url()).status == 502
        page = text(get(own_world))
    assert "If you trust CN=Downloaded Stranger" in page


def test_mended_server(own_world: World) -> None:
    """A server that sends everything since is called mended."""
    issuer = own_world.authority()
    leaf = issuer.issue(aia=[own_world.published(issuer)])
    with TlsServer(leaf) as server:
        assert own_world.get(server.url()).status == 200
        port = server.port
    with TlsServer(leaf, issuer, port=port) as server:
        assert own_world.get(server.url()).status == 200
    page = text(get(own_world))
    [article] = [part for part in page.split("<article") if f":{port}<" in part]
    assert "Mended" in article


@pytest.mark.parametrize("path", ["/", "/style.css", "/nothing", "/changes", "/metrics"])
def test_headers(own_world: World, path: str) -> None:
    """Every answer tells browsers to trust nothing else, and other sites nothing."""
    headers = get(own_world, path).headers
    for name, value in HEADERS.items():
        if name != "Cache-Control":
            assert headers[name.lower()] == value
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_to_be_read(own_world: World, method: str) -> None:
    """Whatever would change something is refused."""
    reply = get(own_world, "/", "--request", method)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD"


def test_head(own_world: World) -> None:
    """HEAD is GET without the body."""
    reply = get(own_world, "/", "--head")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("host", ["mitm.aia:8080", "MITM.AIA", "mitm.aia."])
def test_ways_to_write_the_host(own_world: World, host: str) -> None:
    """Names know no case, the port does not matter, and the last dot is no part of one."""
    assert "mitmproxy-aia" in text(own_world.get(f"http://{host}/"))


@pytest.mark.parametrize("host", ["x.mitm.aia", "mitm.aia.example", "xmitm.aia"])
def test_other_hosts_are_left_alone(own_world: World, host: str) -> None:
    """They are none of ours: nobody knows them here."""
    reply = own_world.get(f"http://{host}/")
    assert (reply.status, "mitmproxy-aia" in text(reply)) == (502, False)


def test_option_is_changed_while_running(own_world: World) -> None:
    """aia_page names another host, or none, from the next request on."""
    try:
        assert order(own_world, "aia_page=Chains.Example.").status == 200
        assert own_world.get("http://chains.example/").status == 200
        assert get(own_world).status == 502
        assert order(own_world, "aia_page=").status == 200
        assert own_world.get("http://chains.example/").status == 502
    finally:
        assert order(own_world, "aia_page=mitm.aia").status == 200
    assert get(own_world).status == 200


@pytest.mark.parametrize("bad", ["http://mitm.aia", "a b", "a..b", "mitm.aia/", "ü.example"])
def test_bad_host_is_refused(own_world: World, bad: str) -> None:
    """The old one stays, and the message says what the option takes."""
    reply = order(own_world, f"aia_page={bad}")
    assert reply.status == 400
    assert "aia_page takes a host name, for example mitm.aia" in text(reply)
    assert get(own_world).status == 200


def test_no_password_on_the_page(own_world: World) -> None:
    """The settings in force are shown as changed, and without what logs somebody in."""
    try:
        assert order(own_world, "aia_proxy=http://me:secret@127.0.0.1:9").status == 200
        page = text(get(own_world, "/settings"))
    finally:
        assert order(own_world, "aia_proxy=direct").status == 200
    assert "http://***@127.0.0.1:9" in page
    assert "secret" not in page
    assert str(own_world.proxy.confdir / "aia.sqlite3") in page


def test_modes_are_announced(own_world: World) -> None:
    """Who wonders why nothing is completed reads it on every page."""
    try:
        for change, notice in {
            "aia_mode=off": "The addon is switched off",
            "aia_mode=audit": "only reported, and refused",
            "aia_mode=frozen": "Nothing is downloaded",
            "ssl_insecure=true": "Nothing is verified",
        }.items():
            assert order(own_world, change).status == 200
            assert notice in text(get(own_world))
    finally:
        assert order(own_world, "aia_mode=complete").status == 200
        assert order(own_world, "ssl_insecure=false").status == 200
    assert 'class="notice"' not in text(get(own_world))


def test_intermediates_are_listed(own_world: World, incomplete: TlsServer) -> None:
    """What the completion has found is there, with where it came from."""
    page = text(get(own_world, "/cache"))
    assert "Lab Intermediate" in page
    assert own_world.ca.url("") in page


def swallow(connection: socket.socket) -> None:
    """Takes everything and says nothing."""
    while connection.recv(1024):
        pass


def test_cache_that_hangs_keeps_nobody_waiting(own_world: World) -> None:
    """A Redis that never answers: the page says so, and other pages come meanwhile."""
    with contextlib.closing(Listener(swallow)) as hanging:
        try:
            change = f"aia_cache=redis://127.0.0.1:{hanging.port}/0"
            assert order(own_world, change).status == 200
            with ThreadPoolExecutor() as pool:
                pages = [pool.submit(get, own_world, "/cache") for _ in range(3)]
                assert get(own_world).status == 200
            assert all("The cache cannot be shown" in text(page.result()) for page in pages)
        finally:
            assert order(own_world, "aia_cache=").status == 200


def test_news_are_told_at_once(own_world: World, incomplete: TlsServer) -> None:
    """Who waits for a change is answered when there is one."""
    [revision] = re.findall(r'data-revision="([0-9-]+)"', text(get(own_world)))
    assert get(own_world, "/changes?after=older").body.decode() == revision
    with ThreadPoolExecutor() as pool:
        news = pool.submit(get, own_world, f"/changes?after={revision}")
        while not news.done():
            assert own_world.get(incomplete.url()).status == 200
        assert text(news.result()) != revision


def test_reverse_mode(root: Issued, own_world: World) -> None:
    """With keep_host_header, requests with the page's own name get it; all others go to the
    server."""
    options = {"keep_host_header": "true"}
    with (
        TlsServer(own_world.root.issue()) as server,
        Proxy(
            trust=[root], mode=f"reverse:https://127.0.0.1:{server.port}", options=options
        ) as proxy,
    ):
        assert curl(f"{proxy.url}/").body == server.body
        reply = curl(f"{proxy.url}/", "--header", "Host: mitm.aia")
        assert b"Servers at fault" in reply.body
        assert server.requests == ["/"]


def test_proxy_with_users_and_an_upstream_proxy(root: Issued) -> None:
    """Who may not use the proxy may not read the page; for who may, no other proxy is asked."""
    mode = f"upstream:{dead_url('')}"
    with Proxy("--proxyauth", "me:secret", trust=[root], mode=mode) as proxy:
        assert curl(f"{PAGE}/", proxy=proxy).status == 407
        reply = curl(f"{PAGE}/", "--proxy-user", "me:secret", proxy=proxy)
        assert (reply.status, b"Servers at fault" in reply.body) == (200, True)


def test_addon_that_is_gone_serves_no_page(root: Issued) -> None:
    """Nor does it keep those waiting who wait for news."""
    with Proxy(trust=[root], scripts=[REMOTE_CONTROL]) as proxy:
        page = text(curl(f"{PAGE}/", proxy=proxy))
        [revision] = re.findall(r'data-revision="([0-9-]+)"', page)
        with ThreadPoolExecutor() as pool:
            news = pool.submit(curl, f"{PAGE}/changes?after={revision}", proxy=proxy)
            proxy.wait_for(r"client connect[\s\S]*client connect")
            assert curl("http://control.test/unload/aia.py", proxy=proxy).status == 200
            assert news.result().status in (200, 502)
        assert curl(f"{PAGE}/", proxy=proxy).status == 502


def test_metrics(own_world: World, incomplete: TlsServer) -> None:
    """Prometheus reads them where the page is."""
    reply = get(own_world, "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    numbers = re.findall(r"^mitmproxy_aia_completions_total\{.*\} ([0-9.]+)$", text(reply), re.M)
    assert sum(map(float, numbers)) >= 1
