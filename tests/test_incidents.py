"""Chains that broke real sites, rebuilt: a real mitmdump, real servers, curl as the client.

In the drawings an arrow goes from the issuer to what it issued, (expired) is what it says and
[brackets] are what the server does not send. Trusted roots are named under "client".
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.conftest import World
from tests.lab import Issued, Proxy, TlsServer, authority, curl

MISSING = "unable to get local issuer certificate"
EXPIRED = "certificate has expired"


@dataclass(frozen=True)
class Client:
    """The addon and stock mitmproxy, which trust the same roots."""

    addon: Proxy
    stock: Proxy

    def assert_stock(self, server: TlsServer, refusal: str = "") -> None:
        """Stock mitmproxy reaches the server, or refuses it in these words."""
        reply = curl(server.url(), proxy=self.stock)
        expected = f"Certificate verify failed: {refusal}" if refusal else ""
        assert (reply.status, reply.error_text) == (502 if refusal else 200, expected)

    def assert_reached(self, server: TlsServer) -> None:
        """The first request with the addon succeeds."""
        before = server.connections
        reply = curl(server.url("/addon"), proxy=self.addon)
        assert (reply.status, reply.error_text) == (200, "")
        assert server.requests[-1] == "/addon"
        assert server.connections == before + 1

    def assert_refused(self, server: TlsServer, pattern: str) -> None:
        """502 with the addon, with a reason."""
        reply = curl(server.url("/addon"), proxy=self.addon)
        assert reply.status == 502
        assert re.fullmatch(f"Certificate verify failed: {pattern}", reply.error_text)
        assert server.requests == []


@dataclass(frozen=True)
class Roots:
    """What clients trust: `dst` and `addtrust` have expired, the others are in force."""

    dst: Issued
    isrg: Issued
    addtrust: Issued
    usertrust: Issued
    aaa: Issued


@pytest.fixture(scope="module")
def roots() -> Roots:
    return Roots(
        dst=authority("DST Root CA X3", expired=True),
        isrg=authority("ISRG Root X1"),
        addtrust=authority("AddTrust External CA Root", expired=True),
        usertrust=authority("USERTrust RSA Certification Authority"),
        aaa=authority("AAA Certificate Services"),
    )


@pytest.fixture(scope="module")
def clients(roots: Roots) -> Iterator[dict[str, Client]]:
    """By what they trust: the roots in force; those and the expired ones, as machines do that
    nobody keeps up to date; or only the old ones, as machines from before the new ones."""
    trust = {
        "current": [roots.isrg, roots.usertrust],
        "outdated": [roots.dst, roots.addtrust, roots.isrg, roots.usertrust],
        "old": [roots.dst, roots.addtrust, roots.aaa],
    }
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def start(trust: list[Issued], addon: bool) -> Proxy:
            options = {"aia_timeout": 2} if addon else {}
            return stack.enter_context(Proxy(trust=trust, addon=addon, options=options))

        with_addon = {name: pool.submit(start, trust[name], True) for name in trust}
        without = {name: pool.submit(start, trust[name], False) for name in trust}
        yield {name: Client(with_addon[name].result(), without[name].result()) for name in trust}


@pytest.fixture
def lab_client(world: World, stock_proxy: Proxy) -> Client:
    """Trusts the root of the lab."""
    return Client(world.proxy, stock_proxy)


def downloads(world: World) -> int:
    return world.ca.downloads.total()


@pytest.mark.parametrize("trust", ["current", "outdated"])
def test_dst_root_x3(world: World, roots: Roots, clients: dict[str, Client], trust: str) -> None:
    """Let's Encrypt, 30 September 2021: the long chain, the end of which has expired.

        DST Root CA X3 (expired) -> ISRG Root X1 (cross-signed) -> R3 -> leaf
        client: ISRG Root X1 (self-signed); "outdated" also DST Root CA X3 (expired)

    OpenSSL 1.0.2 followed the chain to DST Root CA X3 and refused. Stock mitmproxy: 200,
    since OpenSSL 1.1.0 looks into the trust store first. The addon leaves it alone.
    """
    cross = roots.dst.issue(roots.isrg.name, key=roots.isrg, ca=True)
    r3 = roots.isrg.issue("R3", ca=True, aia=[world.published(cross)])
    before = downloads(world)
    with TlsServer(r3.issue(aia=[world.published(r3)]), r3, cross) as server:
        clients[trust].assert_stock(server)
        clients[trust].assert_reached(server)
    assert downloads(world) == before


@pytest.mark.parametrize("trust", ["current", "outdated"])
def test_dst_root_x3_leaf_only(
    world: World, roots: Roots, clients: dict[str, Client], trust: str
) -> None:
    """The same with a server that sends nothing but its leaf.

        DST Root CA X3 (expired) -> [ISRG Root X1 (cross-signed)] -> [R3] -> leaf
        client: ISRG Root X1 (self-signed); "outdated" also DST Root CA X3 (expired)

    Stock mitmproxy: 502, unable to get local issuer certificate. The addon downloads R3 and
    nothing more: the anchor above it is trusted already.
    """
    cross = roots.dst.issue(roots.isrg.name, key=roots.isrg, ca=True)
    r3 = roots.isrg.issue("R3", ca=True, aia=[world.published(cross)])
    with TlsServer(r3.issue(aia=[world.published(r3)])) as server:
        clients[trust].assert_stock(server, MISSING)
        before = downloads(world)
        clients[trust].assert_reached(server)
    assert downloads(world) == before + 1


@pytest.mark.parametrize("trust", ["current", "outdated"])
def test_addtrust(world: World, roots: Roots, clients: dict[str, Client], trust: str) -> None:
    """Sectigo, 30 May 2020: AddTrust External CA Root and its cross-certificate expired.

        AddTrust (expired) -> USERTrust (cross-signed, expired) -> Sectigo DV -> leaf
        client: USERTrust (self-signed); "outdated" also AddTrust (expired)

    OpenSSL 1.0.x and GnuTLS refused. Stock mitmproxy: 200, as OpenSSL finds USERTrust in the
    trust store first. The addon leaves it alone.
    """
    cross = roots.addtrust.issue(roots.usertrust.name, key=roots.usertrust, ca=True, expired=True)
    sectigo = roots.usertrust.issue("Sectigo DV", ca=True, aia=[world.published(cross)])
    before = downloads(world)
    with TlsServer(sectigo.issue(), sectigo, cross, roots.addtrust) as server:
        clients[trust].assert_stock(server)
        clients[trust].assert_reached(server)
    assert downloads(world) == before


def test_addtrust_at_an_old_client(world: World, roots: Roots, clients: dict[str, Client]) -> None:
    """The same at a client that does not know USERTrust; Sectigo offered it another way up.

        AddTrust (expired) -> USERTrust (cross-signed, expired) -> Sectigo DV -> leaf
        AAA -> [USERTrust (cross-signed)] -> Sectigo DV
        client: AAA, AddTrust (expired), and not USERTrust

    Stock mitmproxy: 502, certificate has expired. The addon finds the good cross-certificate
    at the AIA of the intermediate.
    """
    name, key = roots.usertrust.name, roots.usertrust
    expired = roots.addtrust.issue(name, key=key, ca=True, expired=True)
    good = roots.aaa.issue(name, key=key, ca=True)
    sectigo = roots.usertrust.issue("Sectigo DV", ca=True, aia=[world.published(good)])
    with TlsServer(sectigo.issue(), sectigo, expired) as server:
        clients["old"].assert_stock(server, EXPIRED)
        clients["old"].assert_reached(server)


OLD_INTERMEDIATES: dict[str, tuple[Callable[[World, Issued], Issued], str]] = {
    "other name": (lambda world, new: world.authority(), MISSING),
    "other name, expired": (lambda world, new: world.authority(expired=True), MISSING),
    "other key": (lambda world, new: world.root.issue(new.name, ca=True), MISSING),
    "other key, expired": (
        lambda world, new: world.root.issue(new.name, ca=True, expired=True),
        MISSING,
    ),
    "other key, no identifiers": (
        lambda world, new: world.root.issue(new.name, ca=True, subject_key_identifier=False),
        "certificate signature failure",
    ),
}


@pytest.mark.parametrize("old", OLD_INTERMEDIATES)
def test_old_intermediate_after_a_renewal(world: World, lab_client: Client, old: str) -> None:
    """The operator has put in the renewed leaf, and has kept the file with the chain.

        root -> old intermediate
        root -> [new intermediate] -> leaf
        client: root

    Stock mitmproxy: 502, unable to get local issuer certificate; or certificate signature
    failure, if the two have the same name and nothing tells them apart. The addon gets the new
    one from the leaf's AIA.
    """
    new = world.authority()
    make, refusal = OLD_INTERMEDIATES[old]
    with TlsServer(new.issue(aia=[world.published(new)]), make(world, new)) as server:
        lab_client.assert_stock(server, refusal)
        lab_client.assert_reached(server)


def test_reissued_intermediate(world: World, lab_client: Client) -> None:
    """The authority has issued its intermediate again, with the same key, until later.

        root -> intermediate (expired) -> leaf
        root -> [intermediate] -> leaf
        client: root

    Stock mitmproxy: 502, certificate has expired. The addon gets the one in force from the
    leaf's AIA.
    """
    good = world.authority()
    expired = world.root.issue(good.name, key=good, ca=True, expired=True)
    with TlsServer(good.issue(aia=[world.published(good)]), expired) as server:
        lab_client.assert_stock(server, EXPIRED)
        lab_client.assert_reached(server)


@pytest.mark.parametrize("expired_first", [True, False])
def test_reissued_intermediate_beside_the_expired_one(
    world: World, lab_client: Client, expired_first: bool
) -> None:
    """The operator has added the new intermediate to the file, and has left the old one in it.

        root -> intermediate (expired) -> leaf
        root -> intermediate -> leaf
        client: root

    Stock mitmproxy: 200, in either order. The addon leaves it alone.
    """
    good = world.authority()
    expired = world.root.issue(good.name, key=good, ca=True, expired=True)
    presented = [expired, good] if expired_first else [good, expired]
    leaf = good.issue(aia=[world.published(good)])
    before = downloads(world)
    with TlsServer(leaf, *presented) as server:
        lab_client.assert_stock(server)
        lab_client.assert_reached(server)
    assert downloads(world) == before


def test_wrong_order_with_a_stranger(world: World, lab_client: Client) -> None:
    """The whole bundle of the authority, upside down and with what belongs to another site.

        root -> upper -> lower -> leaf, sent as: leaf, root, upper, stranger, lower
        client: root

    Stock mitmproxy: 200, since OpenSSL does not mind the order. The addon leaves it alone.
    """
    upper = world.authority()
    lower = world.authority(upper, aia=[world.published(upper)])
    leaf = lower.issue(aia=[world.published(lower)])
    stranger = authority("Stranger").issue("Stranger's CA", ca=True)
    before = downloads(world)
    with TlsServer(leaf, world.root, upper, stranger, lower) as server:
        lab_client.assert_stock(server)
        lab_client.assert_reached(server)
    assert downloads(world) == before


def test_wrong_order_with_a_stranger_and_a_gap(world: World, lab_client: Client) -> None:
    """The same bundle without the intermediate that matters.

        root -> upper -> [lower] -> leaf, sent as: leaf, root, upper, stranger
        client: root

    Stock mitmproxy: 502, unable to get local issuer certificate. The addon downloads `lower`.
    """
    upper = world.authority()
    lower = world.authority(upper)
    leaf = lower.issue(aia=[world.published(lower)])
    stranger = authority("Stranger").issue("Stranger's CA", ca=True)
    with TlsServer(leaf, world.root, upper, stranger) as server:
        lab_client.assert_stock(server, MISSING)
        before = downloads(world)
        lab_client.assert_reached(server)
    assert downloads(world) == before + 1


def test_only_an_expired_root(world: World, roots: Roots, clients: dict[str, Client]) -> None:
    """DST Root CA X3 again, at a client that never heard of ISRG Root X1. This must fail.

        DST Root CA X3 (expired) -> ISRG Root X1 (cross-signed) -> R3 -> leaf
        client: DST Root CA X3 (expired), and not ISRG Root X1

    Stock mitmproxy: 502, certificate has expired. The addon has looked at AIA, where the
    self-signed ISRG Root X1 is, and says what is wrong with the path that has a trusted root.
    """
    cross = roots.dst.issue(roots.isrg.name, key=roots.isrg, ca=True)
    url = world.published(roots.isrg)
    r3 = roots.isrg.issue("R3", ca=True, aia=[url])
    with TlsServer(r3.issue(), r3, cross) as server:
        clients["old"].assert_stock(server, EXPIRED)
        clients["old"].assert_refused(server, rf"{EXPIRED} \(AIA: .*{url} gave CN=ISRG Root X1.*\)")


SENT = {
    "leaf": MISSING,
    "chain": EXPIRED,
    "chain and new root": "self-signed certificate in certificate chain",
}


@pytest.mark.parametrize("sent", SENT)
def test_only_an_expired_cross_certificate(world: World, lab_client: Client, sent: str) -> None:
    """The cross-certificate has expired, its issuer has not. This must fail.

        old root -> new root (cross-signed, expired) -> intermediate -> leaf
        client: old root, and not the new root

    Stock mitmproxy: 502; certificate has expired; or, if only the leaf is sent, unable to get
    local issuer certificate; or, if the new root is sent too, self-signed certificate in
    certificate chain. The addon says each time what is wrong with the most promising path.
    """
    new_root = authority("New Root")
    cross = world.root.issue(new_root.name, key=new_root, ca=True, expired=True)
    issuer = world.authority(new_root, aia=[world.published(cross), world.published(new_root)])
    leaf = issuer.issue(aia=[world.published(issuer)])
    chains = {"leaf": [], "chain": [issuer, cross], "chain and new root": [issuer, cross, new_root]}
    with TlsServer(leaf, *chains[sent]) as server:
        lab_client.assert_stock(server, SENT[sent])
        lab_client.assert_refused(server, rf"{EXPIRED} \(AIA: .*\)")
