"""Broken chains, which stay refused: the 502 of mitmproxy, with OpenSSL's words first."""

import re
import socket
import time
from collections.abc import Callable

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
    pkcs7_der,
)
from tests.lab.tls_server import TlsVersion
from tests.test_end_to_end import wait_until

# OpenSSL 4 goes on with "or the system clock is incorrect".
NOT_YET_VALID = "certificate is not yet valid.*"
MISSING_ISSUER = "unable to get local issuer certificate"


def assert_refused(world: World, server: TlsServer, pattern: str) -> None:
    """The client gets a 502 that says why, and the server no request."""
    reply = world.get(server.url())
    assert reply.status == 502
    assert re.fullmatch(f"Certificate verify failed: {pattern}", reply.error_text)
    assert server.requests == []
    assert server.handshakes == []


def test_untrusted_root(world: World) -> None:
    """[stranger's root] -> [intermediate] -> leaf: AIA completes it, to no avail."""
    stranger = authority("Stranger's Root")
    issuer = stranger.issue("Stranger's CA", ca=True, aia=[world.published(stranger)])
    url = world.published(issuer)
    with TlsServer(issuer.issue(aia=[url])) as server:
        tried = rf"AIA: {url} gave CN=Stranger's CA; http://.* gave CN=Stranger's Root"
        assert_refused(world, server, rf"self-signed certificate in certificate chain \({tried}\)")


def test_untrusted_root_with_a_trusted_name(world: World) -> None:
    """A root with the name of the trusted one and another key."""
    impostor = authority(world.root.name)
    issuer = impostor.issue("Impostor's CA", ca=True, aia=[world.published(impostor)])
    with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
        assert_refused(world, server, r".+ \(AIA: .*\)")


def test_self_signed_download(world: World) -> None:
    """AIA serves the attacker's self-signed certificate under the intermediate's name."""
    issuer = world.authority()
    impostor = authority(issuer.name)
    url = world.published(impostor)
    with TlsServer(impostor.issue(aia=[url])) as server:
        assert_refused(world, server, rf"self-signed certificate.* \(AIA: {url} gave .*\)")
        # It has not become a trust anchor: not for this server, and not for the next.
        assert_refused(world, server, r"self-signed certificate.*")
    with TlsServer(impostor.issue(), impostor) as server:
        assert_refused(world, server, r"self-signed certificate.*")


@pytest.mark.parametrize("character", ["\U000e0001", '"'])
def test_much_to_say(world: World, character: str) -> None:
    """Names that take much room, in a log or in HTML, by the dozen: the client is told, be it over
    HTTP/2, where mitmproxy never ends a large page."""
    strangers = [authority(character * 14 + str(number)) for number in range(12)]

    def published(number: int) -> str:
        path = world.path()
        bundle = pkcs7_der(*strangers[number % 4 :: 4])
        return world.ca.serve(f"{path}-{'x' * 200}", bundle)

    above = authority("Nobody's")
    issuer = above.issue("Somebody's", ca=True, aia=[published(each) for each in range(5)])
    leaf = issuer.issue(aia=[published(each) for each in range(5)])
    with TlsServer(leaf, issuer) as server:
        reply = curl(server.url(), proxy=world.proxy, http2=True)
        assert reply.status == 502
        assert MISSING_ISSUER in reply.error_text
        assert 1_500 < len(reply.error_text) < 2_500


def test_right_name_other_key(world: World) -> None:
    """AIA serves a trusted certificate of the right name whose key did not sign the leaf."""
    issuer = world.authority()
    twin = world.root.issue(issuer.name, ca=True)
    url = world.published(twin)
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert_refused(world, server, rf"{MISSING_ISSUER} \(AIA: {url} gave CN={issuer.name}\)")


def test_right_name_and_identifier_other_key(world: World) -> None:
    """The same, with the key identifier of the right one."""
    issuer = world.authority(subject_key_identifier=b"the same")
    twin = world.root.issue(issuer.name, ca=True, subject_key_identifier=b"the same")
    with TlsServer(issuer.issue(aia=[world.published(twin)])) as server:
        assert_refused(world, server, r"certificate signature failure \(AIA: .*\)")


def path_length_exceeded(world: World) -> list[Issued]:
    """root -> upper (pathlen:0) -> lower -> leaf"""
    upper = world.authority(path_length=0)
    return [world.authority(upper), upper]


FAULTY_INTERMEDIATES: dict[str, tuple[Callable[[World], list[Issued]], str]] = {
    "expired": (lambda world: [world.authority(expired=True)], "certificate has expired"),
    "not yet valid": (
        lambda world: [world.authority(not_yet_valid=True)],
        NOT_YET_VALID,
    ),
    "SHA-1 signature": (
        lambda world: [world.authority(digest="sha1")],
        "CA signature digest algorithm too weak",
    ),
    "RSA 1024": (
        lambda world: [world.authority(key="rsa1024")],
        "CA certificate key too weak",
    ),
    "no CA": (lambda world: [world.authority(ca=False)], "invalid CA certificate"),
    "no basic constraints": (
        lambda world: [world.authority(basic_constraints=False, key_usage=None)],
        "invalid CA certificate",
    ),
    "may not sign certificates": (
        lambda world: [world.authority(key_usage=["crl_sign"])],
        "invalid CA certificate",
    ),
    "path length": (path_length_exceeded, "path length constraint exceeded"),
    "name constraint, permitted": (
        lambda world: [world.authority(permitted=["10.0.0.0/8"])],
        "permitted subtree violation",
    ),
    "name constraint, excluded": (
        lambda world: [world.authority(excluded=["127.0.0.0/8"])],
        "excluded subtree violation",
    ),
    "no server-auth EKU": (
        lambda world: [world.authority(extended_key_usage=["clientAuth"])],
        "unsuitable certificate purpose",
    ),
}


@pytest.mark.parametrize("fault", FAULTY_INTERMEDIATES)
def test_faulty_intermediate(world: World, fault: str) -> None:
    """What AIA brings is held to all that a presented intermediate would be held to."""
    make, text = FAULTY_INTERMEDIATES[fault]
    issuers = make(world)
    url = world.ca.serve(world.path(), pkcs7_der(*issuers))
    with TlsServer(issuers[0].issue(aia=[url])) as server:
        assert_refused(world, server, rf"{text} \(AIA: {url} gave .*\)")


@pytest.mark.parametrize("fault", FAULTY_INTERMEDIATES)
def test_faulty_intermediate_presented(world: World, stock_proxy: Proxy, fault: str) -> None:
    """The same faults in a complete chain: refused, in the words of stock mitmproxy."""
    issuers = FAULTY_INTERMEDIATES[fault][0](world)
    with TlsServer(issuers[0].issue(), *issuers) as server:
        stock = curl(server.url(), proxy=stock_proxy)
        assert stock.status == 502
        assert_refused(world, server, rf"{re.escape(stock.error_text[27:])}( \(AIA: .*\))?")


FAULTY_LEAVES: dict[str, tuple[Callable[[Issued, str], Issued], str]] = {
    "expired": (lambda ca, url: ca.issue(aia=[url], expired=True), "certificate has expired"),
    "not yet valid": (
        lambda ca, url: ca.issue(aia=[url], not_yet_valid=True),
        NOT_YET_VALID,
    ),
    "SHA-1 signature": (
        lambda ca, url: ca.issue(aia=[url], digest="sha1"),
        r"CA signature digest algorithm too weak \(AIA: .*\)",
    ),
    "RSA 1024": (
        lambda ca, url: ca.issue(aia=[url], key="rsa1024"),
        "EE certificate key too weak",
    ),
    "another host": (
        lambda ca, url: ca.issue(aia=[url], hosts=["other.example"]),
        "(IP address|hostname) mismatch",
    ),
    "no server-auth EKU": (
        lambda ca, url: ca.issue(aia=[url], extended_key_usage=["clientAuth"]),
        "unsuitable certificate purpose",
    ),
}


@pytest.mark.parametrize("fault", FAULTY_LEAVES)
def test_faulty_leaf(world: World, fault: str) -> None:
    """A fault of the leaf is final, although its chain could be completed."""
    make, pattern = FAULTY_LEAVES[fault]
    issuer = world.authority()
    with TlsServer(make(issuer, world.published(issuer))) as server:
        assert_refused(world, server, pattern)


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_faulty_leaf_costs_no_download(world: World, tls: TlsVersion) -> None:
    """OpenSSL finds the fault in the handshake, before anything is downloaded."""
    issuer = world.authority()
    path = world.path()
    leaf = issuer.issue(hosts=["other.example"], aia=[world.ca.serve(path, issuer.der)])
    with TlsServer(leaf, tls=tls) as server:
        assert_refused(world, server, "IP address mismatch")
    assert world.ca.downloads[path] == 0


def test_wrong_host_name(world: World) -> None:
    """The same by name: localhost is not other.example."""
    issuer = world.authority()
    with TlsServer(issuer.issue(hosts=["other.example"], aia=[world.published(issuer)])) as server:
        reply = world.get(server.url(host="localhost"))
    assert reply.error_text == "Certificate verify failed: hostname mismatch"


def test_self_signed_leaf(world: World) -> None:
    """A server with a certificate it signed itself is none of our business."""
    leaf = authority("Self-signed", hosts=["127.0.0.1"], ca=False, aia=[world.ca.url("/self")])
    with TlsServer(leaf) as server:
        assert_refused(world, server, "self-signed certificate")


def test_answer_404_with_a_good_certificate(world: World) -> None:
    """Only the answer 200 brings a certificate."""
    issuer = world.authority()
    url = world.ca.serve(world.path(), issuer.der, status=404)
    with TlsServer(issuer.issue(aia=[url])) as server:
        assert_refused(world, server, rf"{MISSING_ISSUER} \(AIA: {url} answered 404\)")
        # The failure is remembered, and the certificate is not.
        assert_refused(world, server, rf"{MISSING_ISSUER} \(AIA: {url} answered 404 \(\d s ago\)\)")


def test_no_aia(world: World) -> None:
    """The leaf names no caIssuers URL."""
    with TlsServer(world.authority().issue("The Leaf")) as server:
        tried = r"AIA: CN=The Leaf names no caIssuers URL"
        assert_refused(world, server, rf"{MISSING_ISSUER} \({tried}\)")


def test_every_url_is_dead(world: World) -> None:
    """Each is named, with what was wrong with it."""
    urls = [dead_url("/a"), world.ca.junk(world.path()), "ldap://ldap.example/x"]
    with TlsServer(world.authority().issue(aia=urls)) as server:
        tried = (
            rf"{urls[0]} could not be reached \(.*\); "
            rf"{urls[1]} is not a certificate \(neither DER, PEM nor PKCS#7\); "
            rf"{urls[2]} was skipped \(only http:// is followed\)"
        )
        assert_refused(world, server, rf"{MISSING_ISSUER} \(AIA: {tried}\)")


def test_every_url_hangs(world: World) -> None:
    """The deadline is one for all, and the log has one WARNING with every attempt."""
    urls = [world.ca.hang(world.path()) for _ in range(2)]
    with TlsServer(world.authority().issue(aia=urls)) as server:
        start, before = len(world.proxy.log), time.monotonic()
        tried = rf"{urls[0]} gave no answer in .* s; {urls[1]} gave no answer in .* s"
        assert_refused(world, server, rf"{MISSING_ISSUER} \(AIA: {tried}\)")
        assert time.monotonic() - before < 8
        lines = world.proxy.log[start:].splitlines()
    ours = [line for line in lines if "could not be completed" in line]
    assert len(ours) == 1
    assert f"127.0.0.1:{server.port} sent a certificate chain" in ours[0]
    assert all(url in ours[0] for url in urls)


@pytest.mark.parametrize("split", [None, 100])
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_no_byte_after_a_rejection(world: World, tls: TlsVersion, split: int | None) -> None:
    """A rejected server gets nothing but the end of the connection: no Finished, no request."""
    leaf = world.authority().issue(aia=[dead_url()])
    with TlsServer(leaf, tls=tls) as server, Relay(server.port, split=split) as relay:
        assert world.get(relay.url()).status == 502
        wait_until(lambda: server.failures != [])
        flight = [chunk.time for chunk in relay.chunks if chunk.direction == "to_client"]
        assert relay.passed("to_server", since=flight[0]) == b""


def test_early_data_of_a_rejected_server_is_not_read(root: Issued) -> None:
    """What a server says before it is verified reaches nobody if it never is."""
    leaf = authority("Stranger").issue("CA", ca=True).issue(aia=[dead_url()])
    with (
        EagerServer(leaf) as server,
        Proxy(trust=[root], mode=f"reverse:tls://127.0.0.1:{server.port}") as proxy,
    ):
        received = talk(proxy.port, b"a secret for the server")
        wait_until(lambda: server.spoke_early > 0)
        proxy.wait_for("Server TLS handshake failed")
    assert received == b""
    assert server.handshakes == 0


def talk(port: int, data: bytes) -> bytes:
    """What comes back on a plain TCP connection until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(data)
        received = b""
        try:
            while chunk := client.recv(4096):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return received
