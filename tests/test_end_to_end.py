"""Incomplete chains that are completed: a real mitmdump, real servers, curl as the client."""

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import World
from tests.lab import (
    EagerServer,
    Issued,
    Proxy,
    Relay,
    TlsServer,
    authority,
    curl,
    dead_url,
    nginx,
    openssl_s_server,
    pem_bundle,
    pkcs7_ber,
    pkcs7_ber_pem,
    pkcs7_der,
    pkcs7_pem,
)
from tests.lab.keys import KeyKind
from tests.lab.tls_server import TlsVersion


def assert_completed(world: World, server: TlsServer, *, host: str = "127.0.0.1") -> None:
    """The first request succeeds, over the one TCP connection that it needs."""
    reply = world.get(server.url("/first", host=host))
    assert (reply.status, reply.error_text) == (200, "")
    assert reply.body == server.body
    assert server.requests == ["/first"]
    assert server.connections == 1


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_leaf_only(world: World, tls: TlsVersion) -> None:
    """root -> [intermediate] -> leaf: the leaf names where the intermediate is."""
    issuer = world.authority()
    leaf = issuer.issue(aia=[world.published(issuer)])
    with TlsServer(leaf, tls=tls) as server:
        assert_completed(world, server)


def test_is_refused_without_the_addon(world: World, stock_proxy: Proxy) -> None:
    """The fault is real: stock mitmproxy answers 502 for the same server."""
    issuer = world.authority()
    with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
        reply = curl(server.url(), proxy=stock_proxy)
    text = "Certificate verify failed: unable to get local issuer certificate"
    assert (reply.status, reply.error_text) == (502, text)


FORMATS: dict[str, Callable[[Issued, Issued], bytes]] = {
    "DER": lambda issuer, extra: issuer.der,
    "PEM": lambda issuer, extra: issuer.pem,
    "several PEM blocks": lambda issuer, extra: pem_bundle(extra, issuer),
    "PKCS#7 DER": lambda issuer, extra: pkcs7_der(extra, issuer),
    "PKCS#7 BER": lambda issuer, extra: pkcs7_ber(extra, issuer),
    "PKCS#7 PEM": lambda issuer, extra: pkcs7_pem(extra, issuer),
    "PKCS#7 BER in PEM": lambda issuer, extra: pkcs7_ber_pem(extra, issuer),
}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("content_type", ["application/pkix-cert", "text/html"])
def test_formats(world: World, format_: str, content_type: str) -> None:
    """The download is told by its content, whatever its Content-Type says."""
    issuer = world.authority()
    body = FORMATS[format_](issuer, world.authority())
    url = world.ca.serve(world.path(), body, content_type=content_type)
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert_completed(world, server)


@pytest.mark.parametrize("missing", [2, 3])
def test_several_are_missing(world: World, missing: int) -> None:
    """root -> [first -> ... -> last] -> leaf: each is found at the AIA of the one below."""
    issuer, urls = world.root, [world.published(world.root)]
    for _ in range(missing):
        issuer = world.authority(issuer, aia=[urls[-1]])
        urls.append(world.published(issuer))
    with TlsServer(issuer.issue(aia=[urls[-1]])) as server:
        assert_completed(world, server)
    assert all(world.ca.downloads[url.rpartition(":")[2][5:]] <= 1 for url in urls)


def test_middle_is_missing(world: World) -> None:
    """root -> upper -> [middle] -> lower -> leaf: only what is missing is downloaded."""
    upper = world.authority()
    middle = world.authority(upper)
    url = world.published(middle)
    lower = world.authority(middle, aia=[url])
    never_asked = world.ca.url(world.path())
    with TlsServer(lower.issue(aia=[never_asked]), upper, lower) as server:
        assert_completed(world, server)
    assert world.ca.downloads[never_asked.removeprefix(world.ca.url(""))] == 0


def test_wrong_intermediate(world: World) -> None:
    """The server sends an intermediate that did not issue the leaf."""
    issuer = world.authority()
    leaf = issuer.issue(aia=[world.published(issuer)])
    with TlsServer(leaf, world.authority()) as server:
        assert_completed(world, server)


@pytest.mark.parametrize("identifiers", [True, False])
def test_intermediate_of_the_same_name_with_another_key(world: World, identifiers: bool) -> None:
    """The server sends its old intermediate after a renewal with a new key."""
    issuer = world.authority()
    old = world.root.issue(issuer.name, ca=True, subject_key_identifier=identifiers)
    url = world.published(issuer)
    leaf = issuer.issue(aia=[url], authority_key_identifier=identifiers)
    with TlsServer(leaf, old) as server:
        assert_completed(world, server)


def test_unrelated_extra_certificates(world: World) -> None:
    """The server sends strangers, itself again and a stranger's root."""
    issuer = world.authority()
    leaf = issuer.issue(aia=[world.published(issuer)])
    stranger = authority("Stranger")
    with TlsServer(leaf, stranger.issue("Other", ca=True), leaf, stranger) as server:
        assert_completed(world, server)


def test_wrong_order(world: World) -> None:
    """root -> [first] -> second -> third -> leaf, with the presented ones upside down."""
    first = world.authority()
    second = world.authority(first, aia=[world.published(first)])
    third = world.authority(second)
    with TlsServer(third.issue(), second, third) as server:
        assert_completed(world, server)


@pytest.mark.parametrize("fault", ["dead", "hang", "404", "junk", "ldap", "empty", "https"])
def test_first_url_is_no_good(world: World, fault: str) -> None:
    """A leaf with several caIssuers URLs is completed from the first one that works."""
    issuer = world.authority()
    faults: dict[str, Callable[[], str]] = {
        "dead": dead_url,
        "hang": lambda: world.ca.hang(world.path()),
        "404": lambda: world.ca.serve(world.path(), issuer.der, status=404),
        "junk": lambda: world.ca.junk(world.path()),
        "ldap": lambda: "ldap://ldap.example/cn=CA?cACertificate",
        "empty": lambda: world.ca.serve(world.path(), b""),
        "https": lambda: "https://127.0.0.1:1/issuer.der",
    }
    bad = faults[fault]
    with TlsServer(issuer.issue(aia=[bad(), bad(), world.published(issuer)])) as server:
        assert_completed(world, server)


def test_first_url_gives_another_certificate(world: World) -> None:
    """A URL with a certificate of the right name and the wrong key is not the last word."""
    issuer = world.authority()
    twin = world.root.issue(issuer.name, ca=True)
    leaf = issuer.issue(aia=[world.published(twin), world.published(issuer)])
    with TlsServer(leaf) as server:
        assert_completed(world, server)


def test_redirects(world: World) -> None:
    """Three redirects are followed."""
    issuer = world.authority()
    url = world.published(issuer)
    for _ in range(3):
        url = world.ca.redirect(world.path(), url)
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert_completed(world, server)


@pytest.mark.parametrize("key", ["rsa2048", "ec384"])
def test_key_kinds(world: World, key: KeyKind) -> None:
    """RSA and ECDSA chains."""
    issuer = world.authority(key=key)
    with TlsServer(issuer.issue(key=key, aia=[world.published(issuer)])) as server:
        assert_completed(world, server)


def test_http2(world: World) -> None:
    """HTTP/2 is negotiated as without the addon."""
    issuer = world.authority()
    leaf = issuer.issue(aia=[world.published(issuer)])
    with TlsServer(leaf, alpn=("h2", "http/1.1")) as server:
        reply = world.get(server.url(), http2=True)
        assert (reply.status, reply.http_version, reply.body) == (200, "2", server.body)
        assert server.handshakes[0].alpn == "h2"
        assert server.connections == 1


def test_server_that_speaks_early(world: World) -> None:
    """HTTP/2 SETTINGS that come before our Finished (0.5-RTT data) are not lost."""
    issuer = world.authority()
    with EagerServer(issuer.issue(aia=[world.published(issuer)])) as server:
        reply = world.get(server.url(), http2=True)
        assert (reply.status, reply.body, server.spoke_early) == (200, server.body, 1)


def test_certificate_in_pieces(world: World) -> None:
    """The server's flight arrives a few bytes at a time."""
    issuer = world.authority()
    leaf = issuer.issue(aia=[world.published(issuer)])
    with TlsServer(leaf) as server, Relay(server.port, split=100) as relay:
        assert world.get(relay.url()).status == 200


def test_server_name(world: World) -> None:
    """A server that is asked for by name."""
    issuer = world.authority()
    with TlsServer(issuer.issue(hosts=["localhost"], aia=[world.published(issuer)])) as server:
        assert_completed(world, server, host="localhost")


@pytest.mark.parametrize("program", [nginx, openssl_s_server])
def test_servers_nobody_here_wrote(world: World, program: object) -> None:
    """nginx and openssl s_server with an incomplete chain."""
    issuer = world.authority()
    run = nginx if program is nginx else openssl_s_server
    with run(issuer.issue(aia=[world.published(issuer)])) as server:
        assert world.get(server.url()).status == 200


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_no_byte_before_the_verdict(world: World, tls: TlsVersion) -> None:
    """Nothing goes to the server between its Certificate message and the verdict."""
    issuer = world.authority()
    gate = threading.Event()
    path = world.path()
    leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der, gate=gate)])
    with (
        TlsServer(leaf, tls=tls) as server,
        Relay(server.port) as relay,
        ThreadPoolExecutor() as pool,
    ):
        reply = pool.submit(world.get, relay.url())
        wait_until(lambda: world.ca.downloads[path] == 1)
        certificate_sent = max(c.time for c in relay.chunks if c.direction == "to_client")
        time.sleep(0.3)
        assert relay.passed("to_server", since=certificate_sent) == b""
        gate.set()
        assert reply.result().status == 200
        assert relay.passed("to_server", since=certificate_sent) != b""
        assert relay.connections == 1


def test_second_connection_needs_no_download_and_no_pause(world: World) -> None:
    """A known incomplete server works when its caIssuers server is gone."""
    issuer = world.authority()
    path = world.path()
    leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der)])
    with TlsServer(leaf) as server:
        assert world.get(server.url()).status == 200
        world.ca.hang(path)
        assert world.get(server.url()).status == 200
        assert server.connections == 2
    assert world.ca.downloads[path] == 1


def test_many_connections_share_one_download(world: World) -> None:
    """Ten clients at once of three servers under one missing chain of two intermediates."""
    upper = world.authority()
    paths = world.path(), world.path()
    gate = threading.Event()
    lower = world.authority(upper, aia=[world.ca.serve(paths[0], upper.der, gate=gate)])
    url = world.ca.serve(paths[1], lower.der)
    servers = [TlsServer(lower.issue(aia=[url])) for _ in range(3)]
    with ThreadPoolExecutor(10) as pool:
        replies = [pool.submit(world.get, servers[i % 3].url()) for i in range(10)]
        wait_until(lambda: sum(server.connections for server in servers) == 10)
        gate.set()
        assert [reply.result().status for reply in replies] == [200] * 10
    for server in servers:
        server.close()
    assert [world.ca.downloads[path] for path in paths] == [1, 1]


def test_hanging_download_delays_nobody_else(world: World, root: Issued) -> None:
    """While one completion waits, other connections are served."""
    issuer = world.authority()
    path = world.path()
    gate = threading.Event()
    leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der, gate=gate)])
    known = world.authority()
    with (
        TlsServer(leaf) as incomplete,
        TlsServer(root.issue()) as complete,
        TlsServer(known.issue(aia=[world.published(known)])) as other,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(world.get, incomplete.url())
        wait_until(lambda: world.ca.downloads[path] == 1)
        assert world.get(complete.url()).status == 200
        assert world.get(other.url()).status == 200
        assert not waiting.done()
        gate.set()
        assert waiting.result().status == 200


def test_client_goes_away_during_the_pause(world: World) -> None:
    """The download still ends, and what it brought is kept."""
    issuer = world.authority()
    path = world.path()
    gate = threading.Event()
    leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der, gate=gate)])
    with TlsServer(leaf) as server:
        client = subprocess.Popen(
            ["curl", "-s", "--proxy", world.proxy.url, "-k", server.url()],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: world.ca.downloads[path] == 1)
        client.kill()
        client.wait()
        start = len(world.proxy.log)
        gate.set()
        world.proxy.wait_for("sent an incomplete chain; found", after=start)
        assert world.get(server.url()).status == 200
    assert world.ca.downloads[path] == 1


def test_complete_chain_is_left_alone(world: World) -> None:
    """A complete chain causes no lookup, no download and no line in the log."""
    issuer = world.authority()
    path = world.path()
    leaf = issuer.issue(aia=[world.ca.serve(path, issuer.der)])
    with TlsServer(leaf, issuer) as server:
        start = len(world.proxy.log)
        assert_completed(world, server)
    assert world.ca.downloads[path] == 0
    assert "incomplete" not in world.proxy.log[start:]


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Waits for what another thread or process does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
