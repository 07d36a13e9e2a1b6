"""A handshake rehearsed with libssl says of a chain what a real one says, whatever is sent."""

import gc
import threading
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL, crypto

from mitmproxy_aia import errors, loaded, openssl, rehearsal
from mitmproxy_aia.openssl import Chain, Fault, store_of
from mitmproxy_aia.rehearsal import at_level, rehearse
from tests.lab import Issued, authority

_lib: Any = SSL._lib  # type: ignore[attr-defined]


def certificates(*issued: Issued) -> Chain:
    return [crypto.load_certificate(crypto.FILETYPE_ASN1, each.der) for each in issued]


def trusting(*anchors: Issued, partial: bool = False) -> crypto.X509Store:
    return store_of(certificates(*anchors), partial=partial)


def ders(chain: Chain) -> list[bytes]:
    return [loaded.from_openssl(certificate).der for certificate in chain]


@pytest.mark.parametrize("key", ["rsa2048", "ec256", "ed25519"])
@pytest.mark.parametrize("ciphers", ["", at_level(0), at_level(2)])
def test_good_chain(key: Any, ciphers: str) -> None:
    """The chain it was verified with, whatever the key, though the cipher suits only some."""
    root = authority("Root", key=key)
    issuer = root.issue("CA", ca=True, key=key)
    leaf = issuer.issue(key=key)
    chain, fault = rehearse(trusting(root), certificates(leaf, issuer), ciphers)
    assert fault is None
    assert ders(chain) == [leaf.der, issuer.der, root.der]


@pytest.mark.parametrize(
    ("options", "code", "depth"),
    [
        ({"digest": "sha1", "key": "rsa2048"}, errors.CA_MD_TOO_WEAK, 1),
        ({"digest": "md5", "key": "rsa2048"}, errors.CA_MD_TOO_WEAK, 1),
        ({"key": "rsa1024"}, errors.CA_KEY_TOO_SMALL, 1),
        ({"key": "ec192"}, errors.CA_KEY_TOO_SMALL, 1),
        ({"expired": True}, errors.CERT_HAS_EXPIRED, 1),
        ({"extended_key_usage": ["clientAuth"]}, errors.INVALID_PURPOSE, 1),
        ({"ca": False}, errors.INVALID_CA, 1),
        ({"excluded": ["127.0.0.0/8"]}, errors.EXCLUDED_VIOLATION, 0),
    ],
)
def test_faulty_intermediate(options: dict[str, Any], code: int, depth: int) -> None:
    """The first fault, at the certificate that has it."""
    root = authority("Root", key="rsa2048")
    issuer = root.issue("CA", **({"ca": True} | options))
    _, fault = rehearse(trusting(root), certificates(issuer.issue(), issuer), at_level(2))
    assert fault == Fault.of(code, depth)


def test_purpose_is_asked_without_being_set() -> None:
    """libssl asks whether the leaf is a TLS server's, as of every server."""
    root = authority("Root")
    client = root.issue(extended_key_usage=["clientAuth"])
    assert openssl.verify(trusting(root), certificates(client))[1] is None
    _, fault = rehearse(trusting(root), certificates(client), "")
    assert fault == Fault.of(errors.INVALID_PURPOSE, 0)


def test_no_answer_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """If libssl did not come to the certificates at all, its result says "ok"."""
    root = authority("Root")
    monkeypatch.setattr("mitmproxy_aia.rehearsal._CIPHER_CODE", b"\x00\x00")
    chain, fault = rehearse(trusting(root), certificates(root.issue()), at_level(2))
    text = f"{openssl.error_text(errors.UNSPECIFIED)} (unknown cipher returned)"
    assert (chain, fault) == ([], Fault(errors.UNSPECIFIED, 0, text))


def test_callback_that_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it good by the result alone: somebody must have said so."""
    root = authority("Root")
    monkeypatch.setattr(SSL.Context, "set_verify", lambda *_: None)
    rehearsal._stage.cache_clear()
    _, fault = rehearse(trusting(root), certificates(root.issue()), at_level(2))
    rehearsal._stage.cache_clear()
    assert fault is not None


@pytest.mark.parametrize("key", ["ec256", "rsa2048"])
def test_an_end_that_is_not_known(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should libssl word it in another way: then it is asked with each step told, and says the
    same."""
    monkeypatch.setattr("mitmproxy_aia.rehearsal._BEYOND_THE_CHAIN", ())
    root = authority("Root")
    leaf = root.issue(key=key)
    for _ in range(2):
        chain, fault = rehearse(trusting(root), certificates(leaf), at_level(2))
        assert (ders(chain), fault) == ([leaf.der, root.der], None)
    assert rehearse(trusting(), certificates(leaf), at_level(2))[1] is not None


@pytest.mark.parametrize("key", ["ec256", "rsa2048"])
def test_a_good_chain_is_asked_for_once(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way is enough, whatever the leaf's key is."""
    root, asked = authority("Root"), []
    use_store = openssl.use_store

    def counted(context: SSL.Context, store: crypto.X509Store) -> None:
        asked.append(store)
        use_store(context, store)

    monkeypatch.setattr(openssl, "use_store", counted)
    assert rehearse(trusting(root), certificates(root.issue(key=key)), at_level(2))[1] is None
    assert len(asked) == 1


@pytest.fixture(params=["quick", "told"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """libssl's word is taken at once, or it is asked with each step told."""
    if request.param == "told":
        monkeypatch.setattr("mitmproxy_aia.rehearsal._BEYOND_THE_CHAIN", ())


@pytest.mark.usefixtures("either_way")
def test_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor without the chain that was verified: nobody could say what is good."""
    root = authority("Root")
    monkeypatch.setattr(SSL.Connection, "get_verified_chain", lambda _: None)
    assert rehearse(trusting(root), certificates(root.issue()), at_level(2))[1] is not None


@pytest.mark.usefixtures("either_way")
def test_result_that_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor with an error as the result, whatever was said on the way to it."""
    root = authority("Root")
    monkeypatch.setattr(openssl, "verify_result", lambda _: errors.CERT_REJECTED)
    _, fault = rehearse(trusting(root), certificates(root.issue()), at_level(2))
    assert fault == Fault.of(errors.CERT_REJECTED, 0)


def test_large_chain() -> None:
    """More than a TLS record holds: 40 KB of certificates that the path does not need."""
    root = authority("Root")
    name = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1"), bytes(20_000))
    large = [
        root.issue(f"CA {number}", ca=True, extra=[x509.Extension(name.oid, False, name)])
        for number in range(2)
    ]
    leaf = large[0].issue()
    chain, fault = rehearse(trusting(root), certificates(leaf, *large), at_level(2))
    assert fault is None
    assert ders(chain) == [leaf.der, large[0].der, root.der]


def test_more_than_libssl_takes() -> None:
    """Chains of 100 KiB and more are refused in a handshake (SSL_CTX_set_max_cert_list(3)), and
    that is what is said of them."""
    root = authority("Root")
    name = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1"), bytes(110_000))
    large = root.issue("CA", ca=True, extra=[x509.Extension(name.oid, False, name)])
    _, fault = rehearse(trusting(root), certificates(large.issue(), large), at_level(2))
    text = f"{openssl.error_text(errors.UNSPECIFIED)} (excessive message size)"
    assert fault == Fault(errors.UNSPECIFIED, 1, text)


def test_nothing_is_left_over() -> None:
    """The store is as it was, the error queue is empty, and the next question is another one."""
    root, other = authority("Root"), authority("Other")
    good, bad = certificates(root.issue()), certificates(other.issue())
    store = trusting(root)
    for _ in range(3):
        assert rehearse(store, good, at_level(2))[1] is None
        assert _lib.ERR_peek_error() == 0
        assert rehearse(store, bad, at_level(2))[1] == Fault.of(
            errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0
        )
        assert _lib.ERR_peek_error() == 0
        assert rehearse(trusting(other), bad, at_level(2))[1] is None
        assert rehearse(trusting(other), good, at_level(2))[1] is not None
        gc.collect()
    assert _lib.sk_X509_OBJECT_num(_lib.X509_STORE_get0_objects(store._store)) == 1


def test_threads() -> None:
    """Each asks with a store of its own, at the same time as others."""
    roots = [authority(f"Root {number}") for number in range(4)]
    leaves = [root.issue() for root in roots]
    wrong: list[object] = []

    def ask(mine: int) -> None:
        for turn in range(60):
            other = (mine + turn) % 4
            fault = rehearse(trusting(roots[mine]), certificates(leaves[other]), at_level(2))[1]
            if (fault is None) != (mine == other):
                wrong.append(fault)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
