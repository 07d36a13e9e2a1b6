"""One path against one trust store. Each rule of trust that OpenSSL is to keep for us is
broken here once, in a path that is good in every other way."""

import gc
import ipaddress
import weakref
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL, crypto

from mitmproxy_aia import errors, loaded, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.rehearsal import at_level
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued, authority
from tests.test_trust_settings import with_trust_setting

_lib: Any = SSL._lib  # type: ignore[attr-defined]


def context_with(*roots: Issued) -> SSL.Context:
    """A context as TlsConfig makes it; its store is shared between connections."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER, None)
    store = store_of(context)
    for root in roots:
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, root.der))
    return context


def store_of(context: SSL.Context) -> crypto.X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


def connection_for(context: SSL.Context, address: str = "127.0.0.1") -> SSL.Connection:
    """A connection that asks for an IP address, in the way TlsConfig does."""
    connection = SSL.Connection(context)
    ip = ipaddress.ip_address(address).packed
    param = _lib.SSL_get0_param(connection._ssl)
    assert _lib.X509_VERIFY_PARAM_set1_ip(param, ip, len(ip)) == 1
    return connection


def verifier_for(*roots: Issued, level: int = 2, address: str = "127.0.0.1") -> Verifier:
    return Verifier.for_connection(connection_for(context_with(*roots), address), at_level(level))


def path(*issued: Issued) -> tuple[Certificate, ...]:
    return tuple(Certificate(item.der) for item in issued)


def objects_in(store: crypto.X509Store) -> int:
    objects = _lib.X509_STORE_get0_objects(store._store)
    return int(_lib.sk_X509_OBJECT_num(objects))


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


def test_good_path(root: Issued) -> None:
    """root -> intermediate -> leaf: the verified path ends with the trust anchor."""
    intermediate = root.issue("CA", ca=True)
    leaf = intermediate.issue()
    verdict = verifier_for(root).judge(path(leaf, intermediate))
    assert verdict.verified == path(leaf, intermediate, root)
    assert verdict.fault is None


def test_trust_anchor_that_only_openssl_can_read(root: Issued) -> None:
    """A root of a version that there is not: `cryptography` does not take it, OpenSSL does."""
    version_3, version_4 = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")
    odd = root.der.replace(version_3, version_4, 1)
    with pytest.raises(ValueError, match="version"):
        Certificate.from_der(odd)
    context = context_with()
    store_of(context).add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, odd))
    intermediate = root.issue("CA", ca=True)
    leaf = intermediate.issue()
    verifier = Verifier.for_connection(connection_for(context), at_level(2))
    verdict = verifier.judge(path(leaf, intermediate))
    assert verdict.verified == (*path(leaf, intermediate), Certificate(odd))


def test_missing_issuer_can_be_grown(root: Issued) -> None:
    """root -> [intermediate] -> leaf: no fault but that something is missing."""
    leaf = root.issue("CA", ca=True).issue()
    verdict = verifier_for(root).judge(path(leaf))
    assert verdict.verified is None
    assert verdict.growable
    assert verdict.fault == Fault(20, 0, "unable to get local issuer certificate")


def test_presented_root(root: Issued) -> None:
    """A path that contains the trust anchor ends with it, once."""
    leaf = root.issue()
    assert verifier_for(root).judge(path(leaf, root)).verified == path(leaf, root)


def test_intermediate_in_the_trust_store(root: Issued) -> None:
    """What is missing may be in the trust store, below its anchor."""
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    leaf = lower.issue()
    verdict = verifier_for(root, upper).judge(path(leaf, lower))
    assert verdict.verified == path(leaf, lower, upper, root)


def test_intermediate_alone_is_no_anchor(root: Issued) -> None:
    """As in a handshake of mitmproxy's, an intermediate is not trusted for being in the store."""
    intermediate = root.issue("CA", ca=True)
    verdict = verifier_for(intermediate).judge(path(intermediate.issue(), intermediate))
    assert verdict.verified is None


def test_self_signed_candidate_is_no_anchor(root: Issued) -> None:
    """An attacker's root, offered as an issuer, is judged as what it is."""
    evil = authority("Evil")
    leaf = evil.issue()
    verdict = verifier_for(root).judge(path(leaf, evil))
    assert verdict.verified is None
    assert not verdict.growable
    assert verdict.fault == Fault(19, 1, "self-signed certificate in certificate chain")


def test_impostor_of_the_root(root: Issued) -> None:
    """A root with the trusted one's name, with and without key identifiers."""
    for identifiers in True, False:
        trusted = authority("Root", subject_key_identifier=identifiers)
        impostor = authority("Root", subject_key_identifier=identifiers)
        leaf = impostor.issue(authority_key_identifier=False)
        for candidates in [leaf], [leaf, impostor]:
            assert verifier_for(trusted).judge(path(*candidates)).verified is None


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_store_is_never_added_to(root: Issued, levels: int) -> None:
    """Whatever is judged, good or bad, the connection's X509_STORE stays as it was."""
    context = context_with(root)
    before = objects_in(store_of(context))
    verifier = Verifier.for_connection(connection_for(context), at_level(2))
    evil = authority("Evil")
    chain = [root]
    for number in range(levels):
        chain.insert(0, chain[0].issue(f"CA {number}", ca=True))
    leaf = chain[0].issue()
    assert verifier.judge(path(leaf, *chain[:-1])).verified
    verifier.judge(path(leaf, *chain))
    verifier.judge(path(evil.issue(), evil))
    verifier.judge(path(leaf, evil))
    gc.collect()
    assert objects_in(store_of(context)) == before
    assert verifier_for(root).judge(path(evil.issue())).verified is None


def test_the_purpose_of_the_store_is_not_changed(root: Issued) -> None:
    """The parameters of the shared store stay as they were: it still takes a client's leaf."""
    context = context_with(root)
    Verifier.for_connection(connection_for(context), at_level(2)).judge(path(root.issue()))
    client = root.issue(extended_key_usage=["clientAuth"])
    certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, client.der)
    crypto.X509StoreContext(store_of(context), certificate).verify_certificate()


BAD_LEAVES: dict[str, tuple[dict[str, Any], int]] = {
    "another address": ({"hosts": ["127.0.0.2"]}, 64),
    "a host name only": ({"hosts": ["localhost"]}, 64),
    "expired": ({"expired": True}, errors.CERT_HAS_EXPIRED),
    "not yet valid": ({"not_yet_valid": True}, errors.CERT_NOT_YET_VALID),
    "for clients": ({"extended_key_usage": ["clientAuth"]}, errors.INVALID_PURPOSE),
    "RSA 1024": ({"key": "rsa1024"}, errors.EE_KEY_TOO_SMALL),
    "EC 192": ({"key": "ec192"}, errors.EE_KEY_TOO_SMALL),
    "SHA-1": ({"digest": "sha1"}, errors.CA_MD_TOO_WEAK),
    "MD5": ({"digest": "md5"}, errors.CA_MD_TOO_WEAK),
}


@pytest.mark.parametrize("fault", BAD_LEAVES)
def test_bad_leaf(root: Issued, fault: str) -> None:
    """The handshake has asked all of this already; the verdict asks it again."""
    options, code = BAD_LEAVES[fault]
    intermediate = root.issue("CA", ca=True, key="rsa2048")
    verdict = verifier_for(root).judge(path(intermediate.issue(**options), intermediate))
    assert verdict.verified is None
    assert verdict.fault is not None
    assert (verdict.fault.code, verdict.fault.depth) == (code, 0)
    assert verdict.fault.text == openssl.error_text(code)


BAD_INTERMEDIATES: dict[str, tuple[dict[str, Any], int]] = {
    "expired": ({"expired": True}, errors.CERT_HAS_EXPIRED),
    "not yet valid": ({"not_yet_valid": True}, errors.CERT_NOT_YET_VALID),
    "no CA": ({"ca": False}, errors.INVALID_CA),
    "no basic constraints": ({"basic_constraints": False}, errors.INVALID_CA),
    "for clients": ({"extended_key_usage": ["clientAuth"]}, errors.INVALID_PURPOSE),
    "RSA 1024": ({"key": "rsa1024"}, errors.CA_KEY_TOO_SMALL),
    "EC 192": ({"key": "ec192"}, errors.CA_KEY_TOO_SMALL),
    "SHA-1": ({"digest": "sha1"}, errors.CA_MD_TOO_WEAK),
    "MD5": ({"digest": "md5"}, errors.CA_MD_TOO_WEAK),
}


@pytest.mark.parametrize("fault", BAD_INTERMEDIATES)
def test_bad_intermediate(root: Issued, fault: str) -> None:
    """A fault of an intermediate, below another one, is found at its depth."""
    options, code = BAD_INTERMEDIATES[fault]
    upper = root.issue("Upper", ca=True, key="rsa2048")
    lower = upper.issue("Lower", **({"ca": True} | options))
    verdict = verifier_for(root).judge(path(lower.issue(), lower, upper))
    assert verdict.verified is None
    assert verdict.fault is not None
    assert (verdict.fault.code, verdict.fault.depth) == (code, 1)


def test_weak_key_of_the_anchor() -> None:
    """As check_auth_level() has it, an anchor's key counts and its signature does not."""
    weak_key = authority("Root", key="rsa1024")
    verdict = verifier_for(weak_key).judge(path(weak_key.issue()))
    assert verdict.fault == Fault.of(errors.CA_KEY_TOO_SMALL, 1)
    weak_digest = authority("Root", digest="sha1")
    assert verifier_for(weak_digest).judge(path(weak_digest.issue())).verified


@pytest.mark.parametrize(
    ("options", "level", "good"),
    [
        ({"digest": "sha1"}, 0, True),
        ({"digest": "sha1"}, 1, False),
        ({"key": "rsa1024"}, 1, True),
        ({"key": "rsa1024"}, 2, False),
        ({"key": "rsa2048"}, 2, True),
        ({"key": "rsa2048"}, 3, False),
        ({"key": "ec224"}, 2, True),
        ({"key": "ec224"}, 3, False),
        ({"key": "ec256"}, 3, True),
        ({"key": "ec256"}, 4, False),
        ({"key": "ed25519"}, 3, True),
    ],
)
def test_security_levels(options: dict[str, Any], level: int, good: bool) -> None:
    """The table of SSL_CTX_set_security_level(3), for the key and signature of a CA."""
    root = authority("Root", key="ec384")
    intermediate = root.issue("CA", **({"ca": True} | options))
    leaf = intermediate.issue(key="ec384")
    verdict = verifier_for(root, level=level).judge(path(leaf, intermediate))
    assert (verdict.verified is not None) == good


def test_constraints_of_the_path(root: Issued) -> None:
    """Name constraints and path length bind what is below, at any distance."""
    upper = root.issue("Upper", ca=True, path_length=0)
    middle = upper.issue("Middle", ca=True)
    verdict = verifier_for(root).judge(path(middle.issue(), middle, upper))
    assert verdict.fault == Fault.of(errors.PATH_LENGTH_EXCEEDED, 2)
    constrained = root.issue("Constrained", ca=True, excluded=["127.0.0.0/8"])
    lower = constrained.issue("Lower", ca=True)
    verdict = verifier_for(root).judge(path(lower.issue(), lower, constrained))
    assert verdict.fault == Fault.of(errors.EXCLUDED_VIOLATION, 0)
    assert not verdict.growable


def test_fault_above_the_path_can_be_grown() -> None:
    """An expired trust anchor: with a cross-certificate on top the path may still be good."""
    old = authority("Old Root", expired=True)
    new = authority("New Root")
    intermediate = old.issue("CA", ca=True)
    cross = new.issue("Old Root", key=old, ca=True)
    leaf = intermediate.issue()
    verifier = verifier_for(old, new)
    verdict = verifier.judge(path(leaf, intermediate))
    assert verdict.fault == Fault.of(errors.CERT_HAS_EXPIRED, 2)
    assert verdict.growable
    verdict = verifier.judge(path(leaf, intermediate, cross))
    assert verdict.verified == path(leaf, intermediate, cross, new)


def test_constrained_anchor_with_a_good_cross_certificate() -> None:
    """A fault of the anchor above is not the path's own: over the other root it is good."""
    constrained = authority("R1", excluded=["127.0.0.0/8"])
    other = authority("R2")
    cross = other.issue("R1", key=constrained, ca=True)
    intermediate = constrained.issue("CA", ca=True)
    leaf = intermediate.issue()
    verifier = verifier_for(constrained, other)
    verdict = verifier.judge(path(leaf, intermediate))
    assert verdict.fault == Fault.of(errors.EXCLUDED_VIOLATION, 0)
    assert verdict.growable
    verified = verifier.judge(path(leaf, intermediate, cross)).verified
    assert verified == path(leaf, intermediate, cross, other)


def test_wrong_issuer(root: Issued) -> None:
    """An issuer of the right name that did not sign ends the branch."""
    intermediate = root.issue("CA", ca=True, subject_key_identifier=False)
    twin = root.issue("CA", ca=True, subject_key_identifier=False)
    verdict = verifier_for(root).judge(path(intermediate.issue(), twin))
    assert verdict.fault == Fault.of(errors.CERT_SIGNATURE_FAILURE, 0)
    assert not verdict.growable


def test_nothing_is_left_in_the_error_queue(root: Issued) -> None:
    """A refusal must not be blamed on the next operation of whatever connection."""
    twin = root.issue("CA", ca=True, subject_key_identifier=False)
    leaf = root.issue("CA", ca=True, subject_key_identifier=False).issue()
    weak = root.issue("CA", ca=True, digest="sha1")
    forged = root.issue(signed_by=authority("Root"))
    for candidates in (
        *([leaf], [leaf, twin], [weak.issue(), weak], [root.issue(expired=True)]),
        *([forged], [leaf, root.issue("CA", ca=True, signed_by=leaf)]),
    ):
        assert verifier_for(root).judge(path(*candidates)).verified is None
        assert _lib.ERR_peek_error() == 0


def test_rejected_by_its_owner(root: Issued) -> None:
    """A CA that the owner of the trust store wants to know nothing of, presented or trusted."""
    rejected = root.issue("Rejected", ca=True)
    lower = rejected.issue("Lower", ca=True)
    leaf = lower.issue()
    identity = Certificate(rejected.der).identity
    for trusted in [root], [root, rejected]:
        context = context_with(*trusted)
        store = store_of(context)  # which is the context's
        verifier = Verifier(store, rejected=frozenset({identity}))
        for candidates in [leaf, lower, rejected], [leaf, lower]:
            verdict = verifier.judge(path(*candidates))
            assert verdict.verified is None
        assert Verifier(store).judge(path(leaf, lower, rejected)).fault is None
    assert verdict.fault == Fault.of(errors.CERT_REJECTED, 2)


def test_rejected_in_the_trust_store(root: Issued, tmp_path: Path) -> None:
    """As it stands in a trust file (openssl-x509(1), -addreject), and another certificate of it is
    presented: OpenSSL would have met the one in the trust store first."""
    rejected = root.issue("Rejected", ca=True)
    lower = rejected.issue("Lower", ca=True)
    other = root.issue("Rejected", ca=True, key=rejected)
    trust = tmp_path / "trust.pem"
    for setting, code in ("-addreject", errors.CERT_REJECTED), ("-addtrust", 0):
        trust.write_bytes(root.pem + with_trust_setting(rejected, setting, tmp_path))
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(trust))
        fault = Verifier(store_of(context)).judge(path(lower.issue(), lower, other)).fault
        assert (fault.code if fault else 0) == code, setting


def test_rejected_namesake(root: Issued, tmp_path: Path) -> None:
    """A CA that is rejected and has nothing but the name of one in the path is another one."""
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True, authority_key_identifier=False)
    leaf = lower.issue()
    namesake = authority("Upper", subject_key_identifier=False)
    trust = tmp_path / "trust.pem"
    trust.write_bytes(root.pem + with_trust_setting(namesake, "-addreject", tmp_path))
    context = context_with()
    context.load_verify_locations(str(trust))
    verifier = Verifier.for_connection(connection_for(context), at_level(2))
    assert verifier.judge(path(leaf, lower, upper)).verified == path(leaf, lower, upper, root)


def test_verifier_keeps_its_connection_alive(root: Issued) -> None:
    """The C structures it uses belong to the connection."""
    verifier = verifier_for(root)
    gc.collect()
    leaf = root.issue()
    assert verifier.judge(path(leaf)).verified == path(leaf, root)


def test_without_a_connection(root: Issued) -> None:
    """A store alone: everything but the host name is checked."""
    store = crypto.X509Store()
    store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, root.der))
    leaf = root.issue(hosts=["other.example"])
    assert Verifier(store).judge(path(leaf)).verified == path(leaf, root)
    client = root.issue(extended_key_usage=["clientAuth"])
    assert Verifier(store).judge(path(client)).verified is None


@pytest.mark.parametrize(
    ("code", "depth", "expected"),
    [
        (errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0, True),
        (errors.UNABLE_TO_VERIFY_LEAF_SIGNATURE, 0, True),
        (errors.CERT_SIGNATURE_FAILURE, 0, True),
        (errors.EXCLUDED_VIOLATION, 0, True),
        (errors.CERT_HAS_EXPIRED, 0, False),
        (errors.CERT_HAS_EXPIRED, 1, True),
        (errors.CA_MD_TOO_WEAK, 0, False),
        (errors.CA_MD_TOO_WEAK, 1, True),
        (errors.EE_KEY_TOO_SMALL, 0, False),
        (errors.DEPTH_ZERO_SELF_SIGNED_CERT, 0, False),
        (62, 0, False),  # host name mismatch
        (64, 0, False),  # IP address mismatch
        (23, 1, False),  # revoked
        (28, 1, False),  # rejected by the trust settings
        (1, 0, True),  # unspecified: for example, more name constraints than OpenSSL checks
    ],
)
def test_curable(code: int, depth: int, expected: bool) -> None:
    """What another path could cure; everything else is final."""
    assert errors.curable(code, depth) is expected


def test_error_codes_are_those_of_openssl() -> None:
    """Our constants against the names that pyOpenSSL's bindings have for them."""
    ours = {
        name: value
        for name, value in vars(errors).items()
        if name.isupper() and isinstance(value, int)
    }
    known = {name: getattr(_lib, f"X509_V_ERR_{name}", value) for name, value in ours.items()}
    assert ours == known
    assert all(openssl.error_text(value) for value in ours.values())


def test_no_store() -> None:
    """A connection without a trust store cannot be verified."""

    class NoStore:
        def get_context(self) -> "NoStore":
            return self

        def get_cert_store(self) -> None:
            return None

    connection: Any = NoStore()
    with pytest.raises(ValueError, match="no trust store"):
        Verifier.for_connection(connection, at_level(2))


def test_parameter_that_openssl_refuses() -> None:
    """Without a parameter the question would be another one: no verdict at all."""
    with pytest.raises(RuntimeError, match="refused a verification parameter"):
        openssl._assert(0)
    assert _lib.ERR_peek_error() == 0


def test_certificate_that_openssl_cannot_parse(
    root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends its branch, and not the completion."""
    ca = root.issue("CA", ca=True)
    leaf = ca.issue()

    parse, readable = loaded.to_openssl, [Certificate(ca.der)]

    def refuse(certificate: Certificate) -> crypto.X509:
        if certificate in readable:
            return parse(certificate)
        raise crypto.Error([])

    monkeypatch.setattr(loaded, "to_openssl", refuse)
    verdict = verifier_for(root).judge(path(leaf, ca))
    assert (verdict.verified, verdict.fault) == (None, Fault.of(errors.UNSPECIFIED, 1))
    readable.clear()
    verifier = verifier_for(root)
    verdict = verifier.judge(path(leaf, ca))
    assert (verdict.verified, verdict.growable) == (None, False)
    assert verdict.fault == Fault.of(errors.UNSPECIFIED, 1)
    assert verifier.step(*path(leaf, ca)) == Fault.of(errors.UNSPECIFIED, 1)


def test_step_is_looked_at_once(root: Issued) -> None:
    """One signature check for each pair, however many ask."""
    ca = root.issue("CA", ca=True)
    verifier = verifier_for(root)
    step = path(ca.issue(), ca)
    assert [verifier.step(*step) for _ in range(3)] == [None] * 3
    assert verifier.signatures == 1
    swapped = verifier.step(*reversed(step))
    assert swapped is not None
    assert verifier.signatures == 2


def test_openssl_without_a_chain(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenSSL has built none there is none, and no crash."""

    class NoChain:
        def __getattr__(self, name: str) -> Any:
            if name == "X509_STORE_CTX_get1_chain":
                return lambda _: openssl._ffi.NULL
            return getattr(_lib, name)

    monkeypatch.setattr(openssl, "_lib", NoChain())
    leaf = crypto.load_certificate(crypto.FILETYPE_ASN1, root.issue().der)
    chain, fault = openssl.verify(openssl.store_of([], partial=False), [leaf])
    assert (chain, fault) == ([], Fault.of(errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0))


def test_few_large_certificates_are_kept(root: Issued) -> None:
    """OpenSSL takes up to fifty times the room of what it has read, and anybody may send it."""
    large = [
        Certificate(root.issue(hosts=[f"{host}.example" for host in range(300)]).der)
        for _ in range(20)
    ]
    kept = [weakref.ref(loaded.to_openssl(certificate)) for certificate in large]
    gc.collect()
    assert sum(each() is not None for each in kept) == 4
    small = Certificate(root.issue().der)
    assert loaded.to_openssl(small) is loaded.to_openssl(small)
