"""mitmproxy's own options that have to do with TLS to servers, while the addon is at work. Each is
set in a running mitmdump. What `ssl_insecure` does is in test_addon.py."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import (
    CaIssuersServer,
    CurlError,
    Issued,
    Proxy,
    Relay,
    TlsServer,
    authority,
    curl,
    trust_file,
)
from tests.lab.process import find_program
from tests.lab.tls_server import TlsVersion
from tests.test_addon import REMOTE_CONTROL, order
from tests.test_end_to_end import wait_until
from tests.test_handshake import LOWERED
from tests.three_chains import KINDS, VERIFY_FAILED, Kind, make_chain


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    """A proxy that tests may change."""
    options: dict[str, str | int | float] = {"aia_timeout": 5}
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options=options) as proxy,
    ):
        yield World(root, ca, proxy)


@contextlib.contextmanager
def with_option(world: World, option: str, before: str) -> Iterator[None]:
    """`option` is in force, and then `before` again; both as in `--set`."""
    reply = order(world, option)
    assert (reply.status, reply.body) == (200, b"done")
    try:
        yield
    finally:
        assert order(world, before).status == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["eager", "lazy"])
def test_connection_strategy(own_world: World, strategy: str, kind: Kind) -> None:
    """The server is connected to before the client's TLS, or when there is a request."""
    chain = make_chain(own_world, kind)
    setting = with_option(own_world, f"connection_strategy={strategy}", "connection_strategy=eager")
    with setting, chain.server() as server:
        chain.assert_answered(server, own_world.get(server.url()))
        assert not chain.good or server.connections == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_client_certs(own_world: World, tmp_path: Path, tls: TlsVersion, kind: Kind) -> None:
    """Who we are is told to a verified server only: nothing is, before there is a verdict."""
    users = authority("Users")
    user = users.issue("user", extended_key_usage=["clientAuth"])
    (tmp_path / "127.0.0.1.pem").write_bytes(user.key_pem + user.pem)
    chain, gate = make_chain(own_world, kind), threading.Event()
    own_world.ca.serve(chain.path, chain.issuer.der, gate=gate)
    with (
        with_option(own_world, f"client_certs={tmp_path}", "client_certs"),
        chain.server(tls=tls, client_ca=users) as server,
        Relay(server.port) as relay,
        ThreadPoolExecutor() as pool,
    ):
        pending = pool.submit(own_world.get, relay.url())
        if kind != "complete":
            wait_until(lambda: chain.downloads == 1)
            flight = max(c.time for c in relay.chunks if c.direction == "to_client")
            assert relay.passed("to_server", since=flight) == b""
        gate.set()
        chain.assert_answered(server, pending.result())
        shown = [handshake.client_certificate for handshake in server.handshakes]
        assert shown == ([user.der] if chain.good else [])
        if not chain.good:
            assert relay.passed("to_server", since=flight) == b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", ["1.0", "1.1"])
def test_tls_version_server_min(own_world: World, tls: TlsVersion, kind: Kind) -> None:
    """As old as OpenSSL still speaks, which takes its security level 0."""
    option, default = "tls_version_server_min=TLS1", "tls_version_server_min=TLS1_2"
    chain = make_chain(own_world, kind)
    lower = with_option(own_world, "ciphers_server=ALL:@SECLEVEL=0", "ciphers_server")
    with (
        with_option(own_world, option, default),
        # mitmproxy itself lowers it only from 11.0.1 on.
        contextlib.nullcontext() if LOWERED == 0 else lower,
        chain.server(tls=tls) as server,
    ):
        chain.assert_answered(server, own_world.get(server.url()))
        versions = [handshake.tls for handshake in server.handshakes]
        assert versions == ([f"TLSv{tls.removesuffix('.0')}"] if chain.good else [])


@pytest.mark.parametrize(
    ("option", "before"),
    [
        ("tls_version_server_min=TLS1", "tls_version_server_min=TLS1_2"),
        ("ciphers_server=ALL:@SECLEVEL=0", "ciphers_server"),
    ],
)
def test_security_level_0(own_world: World, option: str, before: str) -> None:
    """What is weak is good enough for a completed chain when it is for a handshake."""
    weak = own_world.authority(key="rsa1024", digest="sha1")
    leaf = weak.issue(key="rsa1024", aia=[own_world.published(weak)])
    with TlsServer(leaf) as server, TlsServer(leaf, weak) as complete:
        reply = own_world.get(server.url())
        assert (reply.status, server.handshakes) == (502, [])
        assert "too weak" in reply.error_text
        with with_option(own_world, option, before):
            level_0 = LOWERED == 0 or "SECLEVEL" in option
            assert own_world.get(complete.url()).status == (200 if level_0 else 502)
            assert own_world.get(server.url()).status == (200 if level_0 else 502)
        assert own_world.get(server.url()).status == 502


def test_security_level_3(own_world: World) -> None:
    """And what is strong enough by default is not."""
    issuer = own_world.authority(key="rsa2048")
    with TlsServer(issuer.issue(aia=[own_world.published(issuer)])) as server:
        with with_option(own_world, "ciphers_server=ALL:@SECLEVEL=3", "ciphers_server"):
            reply = own_world.get(server.url())
            assert (reply.status, server.handshakes) == (502, [])
            assert "CA certificate key too weak" in reply.error_text
        assert own_world.get(server.url()).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_ciphers_server(own_world: World, kind: Kind) -> None:
    """The only cipher that is offered is the one that is used."""
    cipher, chain = "ECDHE-ECDSA-CHACHA20-POLY1305", make_chain(own_world, kind)
    setting = with_option(own_world, f"ciphers_server={cipher}", "ciphers_server")
    with setting, chain.server(tls="1.2") as server:
        chain.assert_answered(server, own_world.get(server.url()))
        assert [each.cipher for each in server.handshakes] == ([cipher] if chain.good else [])


@pytest.mark.parametrize("folder", [False, True])
def test_trusted_roots(own_world: World, tmp_path: Path, folder: bool) -> None:
    """The roots are those of the options (a file, or a folder that `openssl rehash` has made),
    from the next connection on; what was completed under others counts for nothing."""
    before = trust_file(tmp_path / "before.pem", own_world.root)
    other = authority("Other Root")
    place = tmp_path / "roots"
    place.mkdir()
    file = trust_file(place / "other.pem", other)
    subprocess.run([find_program("openssl"), "rehash", place], check=True)
    of_ours, of_others = own_world.authority(), own_world.authority(other)
    name = "ssl_verify_upstream_trusted_"
    with (
        TlsServer(of_ours.issue(aia=[own_world.published(of_ours)])) as ours,
        TlsServer(of_others.issue(aia=[own_world.published(of_others)])) as others,
    ):
        answers = [own_world.get(server.url()).status for server in (ours, others)]
        assert answers == [200, 502]
        ours.requests.clear()
        with contextlib.ExitStack() as settings:
            was = f"{name}ca={before}"
            if folder:
                settings.enter_context(with_option(own_world, f"{name}ca", was))
                settings.enter_context(
                    with_option(own_world, f"{name}confdir={place}", f"{name}confdir")
                )
            else:
                settings.enter_context(with_option(own_world, f"{name}ca={file}", was))
            replies = [own_world.get(server.url()) for server in (ours, others)]
        assert [reply.status for reply in replies] == [502, 200]
        assert replies[0].error_text.startswith(VERIFY_FAILED)
        assert (ours.requests, others.requests) == ([], ["/"])
        assert [own_world.get(server.url()).status for server in (ours, others)] == [200, 502]


@pytest.mark.parametrize("kind", KINDS)
def test_without_http2(own_world: World, kind: Kind) -> None:
    """http2=false."""
    chain = make_chain(own_world, kind)
    setting = with_option(own_world, "http2=false", "http2=true")
    with setting, chain.server(alpn=["h2", "http/1.1"]) as server:
        reply = own_world.get(server.url(), http2=True)
        chain.assert_answered(server, reply)
        assert reply.http_version == "1.1"
        assert all(handshake.alpn == "http/1.1" for handshake in server.handshakes)


@pytest.mark.parametrize("kind", KINDS)
def test_add_upstream_certs_to_client_chain(own_world: World, kind: Kind) -> None:
    """The client is shown what the server has presented, and nothing of a server that was
    refused."""
    name = "add_upstream_certs_to_client_chain"
    chain = make_chain(own_world, kind)
    setting = with_option(own_world, f"{name}=true", f"{name}=false")
    with setting, chain.server() as server:
        proxy = own_world.proxy.url.removeprefix("http://")
        command = [find_program("openssl"), "s_client", "-showcerts", "-proxy", proxy]
        result = subprocess.run(
            [*command, "-connect", f"127.0.0.1:{server.port}"],
            input=b"",
            capture_output=True,
            check=False,
        )
        shown = [each for each in (chain.leaf, chain.issuer) if each.pem.strip() in result.stdout]
        assert b"BEGIN CERTIFICATE" in result.stdout
        assert shown == ([chain.leaf, *chain.presented] if chain.good else [])
        assert bool(server.handshakes) == chain.good
        chain.assert_fetched()
        chain.assert_answered(server, own_world.get(server.url()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["ignore_hosts=127.0.0.1", "allow_hosts=localhost"])
def test_hosts_that_are_ignored(own_world: World, option: str, kind: Kind) -> None:
    """A client talks to the server itself, and sees the chain as it is; nothing is downloaded."""
    chain = make_chain(own_world, kind)
    setting = with_option(own_world, option, option.partition("=")[0])
    with setting, chain.server() as server:
        if kind == "complete":
            reply = curl(server.url(), proxy=own_world.proxy, trust=own_world.root)
            assert reply.status == 200
        else:
            with pytest.raises(CurlError, match="unable to get local issuer") as caught:
                curl(server.url(), proxy=own_world.proxy, trust=own_world.root)
            assert caught.value.code == 60
        assert chain.downloads == 0
        server.requests.clear()
        if option.startswith("allow"):
            chain.assert_answered(server, own_world.get(server.url(host="localhost")))


@pytest.mark.parametrize("kind", KINDS)
def test_map_remote(own_world: World, kind: Kind) -> None:
    """The request goes to another server than the one that was asked for."""
    chain = make_chain(own_world, kind)
    with chain.server() as server:
        mapping = f"map_remote=|http://mapped.test/|{server.url()}"
        with with_option(own_world, mapping, "map_remote"):
            chain.assert_answered(server, own_world.get("http://mapped.test/"))
