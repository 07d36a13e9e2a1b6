"""What is remembered of a chain: that its keys and signatures are strong enough, and no more."""

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from OpenSSL import SSL, crypto

from mitmproxy_aia import errors, loaded, openssl, rehearsal, strengths, verification
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.rehearsal import at_level
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued, authority
from tests.test_verification import connection_for, context_with, path


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    strengths.forget()
    yield
    strengths.forget()


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many certificates were sent in each rehearsal."""
    seen: list[int] = []
    rehearse = rehearsal.rehearse

    def counted(store: crypto.X509Store, chain: Any, ciphers: str) -> openssl.Result:
        seen.append(len(chain))
        return rehearse(store, chain, ciphers)

    monkeypatch.setattr(verification, "rehearse", counted)
    return seen


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


LEVEL_2 = at_level(2)


def verifier(context: SSL.Context, address: str = "127.0.0.1", ciphers: str = LEVEL_2) -> Verifier:
    """Of a new connection."""
    return Verifier.for_connection(connection_for(context, address), ciphers)


def refused(verdict: verification.Verdict) -> int:
    assert verdict.verified is None
    assert verdict.fault
    return verdict.fault.code


def test_libssl_is_asked_once(root: Issued, rehearsed: list[int]) -> None:
    """Of the same chain: whoever presents it, however often."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    leaf = ca.issue()
    for _ in range(3):
        assert verifier(context).judge(path(leaf, ca)).verified == path(leaf, ca, root)
        assert rehearsed == [2]
    assert verifier(context_with(root)).judge(path(leaf, ca)).verified == path(leaf, ca, root)
    assert rehearsed == [2]
    assert verifier(context).judge(path(ca.issue(), ca)).verified
    assert rehearsed == [2, 2]


def test_everything_else_is_asked_each_time(root: Issued) -> None:
    """Who is asked for, the anchor, and who is rejected."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    leaf = ca.issue()
    assert verifier(context).judge(path(leaf, ca)).verified
    other = verifier(context, "127.0.0.2").judge(path(leaf, ca))
    assert refused(other) == 64  # X509_V_ERR_IP_ADDRESS_MISMATCH
    stranger = verifier(context_with(authority("Root"))).judge(path(leaf, ca))
    assert refused(stranger) == errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    rejecting = frozenset({Certificate(ca.der).identity})
    owner = Verifier.for_connection(connection_for(context), LEVEL_2, rejecting)
    assert refused(owner.judge(path(leaf, ca))) == errors.CERT_REJECTED
    assert verifier(context).judge(path(leaf, ca)).verified


def test_the_time_is_asked_each_time(root: Issued) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    context, ca = context_with(root), root.issue("CA", ca=True)
    leaf = ca.issue(valid=(now - datetime.timedelta(days=1), now + datetime.timedelta(days=1)))
    assert verifier(context).judge(path(leaf, ca)).verified
    later = Certificate(leaf.der).not_after + datetime.timedelta(seconds=1)
    store = openssl.store_of([loaded.to_openssl(Certificate(root.der))], partial=False, at=later)
    verdict = Verifier(store, ciphers=LEVEL_2, at=later).judge(path(leaf, ca))
    assert refused(verdict) == errors.CERT_HAS_EXPIRED


def test_the_signatures_are_asked_each_time(root: Issued) -> None:
    """Even of a chain that was called strong, and is a forgery."""
    context, ca = context_with(root), root.issue("CA", ca=True)
    forged = ca.issue(signed_by=authority("A stranger"))
    strengths.remember((LEVEL_2, (forged.der, ca.der, root.der)))
    assert refused(verifier(context).judge(path(forged, ca))) == errors.CERT_SIGNATURE_FAILURE


@pytest.mark.parametrize("ciphers", [at_level(4), "", at_level(3)])
def test_another_level_is_another_question(
    root: Issued, rehearsed: list[int], ciphers: str
) -> None:
    context, ca = context_with(root), root.issue("CA", ca=True)
    leaf = ca.issue()
    assert verifier(context).judge(path(leaf, ca)).verified
    strict = verifier(context, ciphers=ciphers).judge(path(leaf, ca))
    assert (strict.verified is None) == (ciphers == at_level(4))
    assert len(rehearsed) > 1


def test_what_is_weak_is_not_remembered(root: Issued) -> None:
    context, ca = context_with(root), root.issue("CA", ca=True, key="rsa1024")
    leaf = ca.issue()
    for _ in range(2):
        assert refused(verifier(context).judge(path(leaf, ca))) == errors.CA_KEY_TOO_SMALL
    assert verifier(context, ciphers=at_level(0)).judge(path(leaf, ca)).verified
    assert refused(verifier(context).judge(path(leaf, ca))) == errors.CA_KEY_TOO_SMALL


def test_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(strengths, "CAPACITY", 3)
    chains: list[strengths.Key] = [(LEVEL_2, (bytes([number]),)) for number in range(5)]
    for chain in chains:
        strengths.remember(chain)
    assert [*map(strengths.is_strong, chains)] == [False, False, True, True, True]


def test_the_memory_is_that_of_openssl(root: Issued) -> None:
    """What OpenSSL has built is told by where it is in memory only if it is the same there."""
    ca, twin = root.issue("CA", ca=True), root.issue("CA", ca=True)
    x509s = [crypto.load_certificate(crypto.FILETYPE_ASN1, each.der) for each in (ca, root, twin)]
    store = openssl.store_of([x509s[1]], partial=False)
    for known in (x509s, x509s[::-1], []):
        built, fault = openssl.verify(store, x509s[:1], known)
        assert fault is None
        assert [loaded.from_openssl(each).der for each in built] == [ca.der, root.der]
