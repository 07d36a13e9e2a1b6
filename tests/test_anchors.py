"""What is remembered of a trust store: where a path ends, and never that it is good."""

import gc
import weakref
from pathlib import Path

import pytest
from OpenSSL import SSL, crypto

from mitmproxy_aia import anchors, errors, loaded, openssl
from mitmproxy_aia.anchors import Anchors, anchors_of
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.rehearsal import at_level
from mitmproxy_aia.verification import Verifier
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority, curl, trust_file
from tests.test_verification import connection_for, context_with, path

REMOTE_CONTROL = Path(__file__).parent / "scripts" / "remote_control.py"


def x509(issued: Issued) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, issued.der)


def verifier(context: SSL.Context, address: str = "127.0.0.1", level: int = 2) -> Verifier:
    """Of a new connection."""
    return Verifier.for_connection(connection_for(context, address), at_level(level))


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Certificate]:
    """What trust stores were asked about, in a verification of its own."""
    seen: list[Certificate] = []
    verify = openssl.verify

    def counted(
        store: crypto.X509Store, chain: list[crypto.X509], known: list[crypto.X509]
    ) -> openssl.Result:
        seen.append(loaded.from_openssl(chain[0]))
        return verify(store, chain, known)

    monkeypatch.setattr(openssl, "verify", counted)
    return seen


def test_the_next_connection_need_not_ask(root: Issued, asked: list[Certificate]) -> None:
    """The store is asked once what is above an issuer, for all servers under it."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    for _ in range(3):
        leaf = ca.issue()
        assert verifier(context).judge(path(leaf, ca)).verified == path(leaf, ca, root)
    assert asked.count(Certificate(ca.der)) == 1


def test_the_path_is_verified_each_time(root: Issued) -> None:
    """A remembered anchor is no verdict: name, dates, strength and signatures count as before."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    assert verifier(context).judge(path(ca.issue(), ca)).verified
    forged = ca.issue(signed_by=authority("A stranger"))
    bad = [
        (ca.issue(expired=True), errors.CERT_HAS_EXPIRED),
        (ca.issue(extended_key_usage=["clientAuth"]), errors.INVALID_PURPOSE),
        (forged, errors.CERT_SIGNATURE_FAILURE),
    ]
    for leaf, code in bad:
        verdict = verifier(context).judge(path(leaf, ca))
        assert verdict.verified is None
        assert verdict.fault
        assert verdict.fault.code == code
    assert verifier(context, "127.0.0.2").judge(path(ca.issue(), ca)).verified is None
    strict = verifier(context, level=4).judge(path(ca.issue(), ca)).fault
    assert strict
    assert strict.code in (errors.EE_KEY_TOO_SMALL, errors.CA_KEY_TOO_SMALL, errors.CA_MD_TOO_WEAK)


def test_another_trust_store(root: Issued) -> None:
    """What one store has vouched for is nothing to another."""
    ca = root.issue("CA", ca=True)
    first, second = context_with(root), context_with(authority("Other"))
    for _ in range(2):
        leaf = ca.issue()
        assert verifier(first).judge(path(leaf, ca)).verified
        verdict = verifier(second).judge(path(leaf, ca))
        assert verdict.verified is None
        assert verdict.fault
        assert verdict.fault.code == errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY


def test_an_anchor_that_has_expired_since(root: Issued) -> None:
    """It is found out in the verification of the path; and the store, asked again, has nothing
    better."""
    old = authority("Root", key=root, expired=True)
    ca, context = root.issue("CA", ca=True), context_with(old)
    anchors_of(context).remember(Certificate(ca.der), [x509(ca), x509(old)])
    judge = verifier(context)
    assert judge.fault_above(Certificate(ca.der)) is None
    verdict = judge.judge(path(ca.issue(), ca))
    assert verdict.verified is None
    assert verdict.fault
    assert verdict.fault.code == errors.CERT_HAS_EXPIRED
    assert judge.fault_above(Certificate(ca.der)) is not None
    assert anchors_of(context).above(Certificate(ca.der)) is None


def test_an_anchor_that_has_a_successor(root: Issued) -> None:
    """Where the remembered one is no longer good, the store is asked for another."""
    old = authority("Root", key=root, expired=True)
    ca, context = root.issue("CA", ca=True), context_with(old, root)
    anchors_of(context).remember(Certificate(ca.der), [x509(ca), x509(old)])
    for _ in range(2):
        leaf = ca.issue()
        assert verifier(context).judge(path(leaf, ca)).verified == path(leaf, ca, root)


def test_refusals_are_not_remembered(root: Issued) -> None:
    """A store that gets the anchor later knows it at once."""
    context, ca = context_with(), root.issue("CA", ca=True)
    assert verifier(context).judge(path(ca.issue(), ca)).verified is None
    store = context.get_cert_store()
    assert store
    store.add_cert(x509(root))
    assert verifier(context).judge(path(ca.issue(), ca)).verified


def test_rejected_all_the_same(root: Issued) -> None:
    """A CA that is rejected since."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    assert verifier(context).judge(path(ca.issue(), ca)).verified
    rejected = frozenset({Certificate(ca.der).identity})
    later = Verifier.for_connection(connection_for(context), at_level(2), rejected)
    verdict = later.judge(path(ca.issue(), ca))
    assert verdict.verified is None
    assert verdict.fault
    assert verdict.fault.code == errors.CERT_REJECTED


def test_bounded(root: Issued) -> None:
    """The least recently used go first."""
    kept = Anchors(capacity=2)
    first, second, third = (Certificate(root.issue(f"CA {n}").der) for n in range(3))
    for certificate in first, second:
        kept.remember(certificate, [])
    assert kept.above(first) == []
    kept.remember(third, [])
    assert [kept.above(each) for each in (first, second, third)] == [[], None, []]


def test_only_what_the_store_has_is_kept(root: Issued) -> None:
    """And that once, however many issuers are below it."""
    context = context_with(root)
    certificates = [Certificate(root.issue(f"CA {n}", ca=True).der) for n in range(3)]
    for certificate in certificates:
        assert verifier(context).fault_above(certificate) is None
    kept = anchors_of(context)._above
    [anchor] = {above[-1] for above in kept.values()}
    assert anchor is not None
    assert loaded.der_of(anchor) == root.der
    assert [*kept.items()] == [(certificate, (None, anchor)) for certificate in certificates]
    for certificate in certificates:
        asked = loaded.to_openssl(certificate)
        assert anchors_of(context).above(certificate) == [asked, anchor]


def test_an_anchor_is_its_own(root: Issued) -> None:
    """What is said of it in the trust store counts (openssl-x509(1), -addtrust), and nothing that
    was read elsewhere."""
    context = context_with(root)
    assert verifier(context).fault_above(Certificate(root.der)) is None
    [(anchor,)] = anchors_of(context)._above.values()
    assert anchor is not None
    store = context.get_cert_store()
    assert store
    again, _ = openssl.verify(store, [loaded.to_openssl(Certificate(root.der))])
    assert openssl.place_of(anchor) == openssl.place_of(again[0])


def test_forgotten_with_the_context(root: Issued) -> None:
    """Nothing outlives the trust store."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    assert verifier(context).judge(path(ca.issue(), ca)).verified
    remembered = weakref.ref(anchors_of(context))
    assert context in anchors._by_context
    del context
    gc.collect()
    assert remembered() is None


def test_trust_that_changes_while_running(root: Issued, tmp_path: Path) -> None:
    """mitmproxy is given other trust files in turn: the server is refused wherever its root is
    not in the one that counts, however often it was completed."""
    other = authority("Other")
    good = trust_file(tmp_path / "good.pem", root, other)
    bad = trust_file(tmp_path / "bad.pem", other)
    with CaIssuersServer() as ca_issuers:
        ca = root.issue("CA", ca=True)
        leaf = ca.issue(aia=[ca_issuers.serve("/ca.der", ca.der)])
        with TlsServer(leaf) as server, Proxy(scripts=[REMOTE_CONTROL]) as proxy:

            def status_with(trust: Path) -> int:
                order = f"ssl_verify_upstream_trusted_ca={trust}"
                assert curl(f"http://control.test/{order}", proxy=proxy).status == 200
                return curl(server.url(), proxy=proxy).status

            files = [good, good, bad, good, bad]
            assert [status_with(file) for file in files] == [200, 200, 502, 200, 502]
