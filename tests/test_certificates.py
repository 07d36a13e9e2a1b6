"""What `certificates.Certificate` says of a certificate, and of a damaged or malicious one."""

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_aia.certificates import MAX_READABLE, Certificate
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.memory import MemorySource
from tests.lab import Issued, common_name, der
from tests.lab.rewriting import GENERALIZED_TIME, KEY, UTC_TIME, VALIDITY, VERSION, rewritten

TLS_FEATURE = ObjectIdentifier("1.3.6.1.5.5.7.1.24")
ED25519 = bytes.fromhex("2b6570")


def parsed(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def raw_extension(oid: ObjectIdentifier, value: str) -> x509.Extension[x509.ExtensionType]:
    """An extension of any contents, in hexadecimal."""
    return x509.Extension(oid, False, x509.UnrecognizedExtension(oid, bytes.fromhex(value)))


def test_certificates_are_equal_if_their_der_is(root: Issued) -> None:
    """The same bytes parsed twice are one certificate; the same name and key are not."""
    again = root.issue(root.name, key=root, ca=True)
    assert parsed(root) == parsed(root)
    assert len({parsed(root), parsed(root), parsed(again)}) == 2


def test_let_go(root: Issued) -> None:
    """Nothing is lost with what is parsed."""
    one, other = (Certificate.from_der(root.issue("CA", ca=True).der) for _ in range(2))
    fresh = Certificate(one.der)
    one.let_go()
    assert not {"x509", "fields"} & one.__dict__.keys()
    for read in "key", "subject", "issuer", "name", "subject_key_identifier", "not_after":
        assert getattr(one, read) == getattr(fresh, read)
    assert not {"x509", "fields"} & one.__dict__.keys()
    for read in "x509", "fields", "public_key", "ca_issuers", "issuer_name":
        assert getattr(one, read) == getattr(fresh, read)
    assert "x509" in other.__dict__


def test_reads_what_it_is_asked_for(root: Issued) -> None:
    """Dates, key identifiers and names are those of the certificate."""
    leaf, issuer = parsed(root.issue("leaf")), parsed(root)
    assert leaf.not_before < leaf.not_after < issuer.not_after
    assert leaf.authority_key_identifier == issuer.subject_key_identifier
    assert leaf.authority_key_identifier is not None
    assert leaf.issuer == issuer.subject
    assert (issuer.self_issued, leaf.self_issued) == (True, False)
    assert repr(leaf) == "Certificate(CN=leaf)"


def test_key_identifies_the_public_key(root: Issued) -> None:
    """Two certificates of one key have the same `key`, whatever else differs."""
    first, second = root.issue("a"), root.issue("b")
    twin = root.issue("c", key=first)
    assert parsed(first).key == parsed(twin).key != parsed(second).key


@pytest.mark.parametrize(
    ("known", "unknown"),
    [("2a8648ce3d030107", "2a8648ce3d03017f"), ("2a8648ce3d0201", "2a8648ce3d0209")],
    ids=["curve", "algorithm"],
)
def test_unknown_kind_of_key(root: Issued, known: str, unknown: str) -> None:
    """A key that `cryptography` cannot load does not stop path building."""
    leaves = [root.issue("a"), root.issue("b")]
    first, second = (
        Certificate.from_der(leaf.der.replace(bytes.fromhex(known), bytes.fromhex(unknown), 1))
        for leaf in leaves
    )
    assert first.key == Certificate(first.der).key != second.key
    twin = root.issue("c", key=leaves[0])
    replaced = twin.der.replace(bytes.fromhex(known), bytes.fromhex(unknown), 1)
    assert Certificate.from_der(replaced).key == first.key


def test_ca_issuers_are_in_their_order(root: Issued) -> None:
    """Every scheme, without duplicates, without OCSP responders and other kinds of names."""
    leaf = root.issue(
        aia=["ldap://b/", x509.DirectoryName(common_name("d")), "http://a/", " http://a/ "],
        ocsp=["http://ocsp/"],
    )
    assert parsed(leaf).ca_issuers == ("ldap://b/", "http://a/")


def test_absent_extensions(root: Issued) -> None:
    """A certificate without extensions is asked nothing it does not say."""
    bare = parsed(root.issue(subject_key_identifier=False, authority_key_identifier=False))
    assert bare.ca_issuers == ()
    assert bare.subject_key_identifier is None
    assert bare.authority_key_identifier is None


def test_authority_key_identifier_without_a_key_identifier(root: Issued) -> None:
    """RFC 5280 4.2.1.1 also has issuer and serial number, which we do not use."""
    empty = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(common_name("x"))], 7)
    leaf = root.issue(
        authority_key_identifier=False, extra=[x509.Extension(empty.oid, False, empty)]
    )
    assert parsed(leaf).authority_key_identifier is None


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (ExtensionOID.AUTHORITY_INFORMATION_ACCESS, "6a756e6b"),
        (ExtensionOID.AUTHORITY_INFORMATION_ACCESS, ""),
        (ExtensionOID.ISSUER_ALTERNATIVE_NAME, "30048702ffff"),
        (ExtensionOID.ISSUER_ALTERNATIVE_NAME, "30048202ffff"),
        (ExtensionOID.ISSUER_ALTERNATIVE_NAME, "3004a3020500"),
    ],
    ids=["junk", "empty", "short-address", "not-ascii", "x400-address"],
)
def test_damaged_extension(root: Issued, oid: ObjectIdentifier, value: str) -> None:
    """It makes a certificate say less, and raises nothing."""
    certificate = parsed(root.issue(extra=[raw_extension(oid, value)]))
    assert certificate.name == "CN=Lab Leaf"
    assert certificate.ca_issuers == ()


@pytest.mark.parametrize("feature", ["", "020100", "020106", "020900ffffffffffffffff"])
def test_unknown_tls_feature(root: Issued, feature: str) -> None:
    """RFC 7633. `cryptography` has no word for it, and reads no extension then."""
    value = der.encode(der.SEQUENCE, bytes.fromhex(feature)).hex()
    odd = parsed(root.issue("CA", ca=True, extra=[raw_extension(TLS_FEATURE, value)]))
    assert not odd.extensions_readable
    assert odd.subject_key_identifier is None
    source = MemorySource()
    source.keep([Found(odd, "here")])
    source.keep([Found(odd, "here")])
    assert [*map(repr, source.known_issuers(parsed(root.issue(issuer_name=odd.x509.subject))))]


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_of_a_wrong_size(root: Issued, size: int) -> None:
    """Nobody has signed with it, whatever `cryptography` says of that."""
    algorithm = der.encode(der.SEQUENCE, der.encode(der.OBJECT_IDENTIFIER, ED25519))
    key = der.encode(der.SEQUENCE, algorithm, der.encode(der.BIT_STRING, b"\0" + bytes(size)))
    odd = Certificate(rewritten(root, KEY, key))
    assert not Certificate(root.issue().der).is_signed_by(odd)
    assert odd.self_signed  # as far as can be told


def test_anchor_that_only_openssl_can_read(root: Issued) -> None:
    """It has names, dates and what else people are shown; only some of it is left out."""
    version_4 = der.encode(der.CONTEXT_0, der.encode(der.INTEGER, b"\3"))
    odd = Certificate(rewritten(root, VERSION, version_4))
    with pytest.raises(ValueError, match="InvalidVersion"):
        Certificate.from_der(odd.der)
    assert odd.name == odd.issuer_name == "(a name of 21 bytes that cannot be read)"
    assert (odd.not_before, odd.not_after) == (parsed(root).not_before, parsed(root).not_after)
    assert (odd.ca_issuers, odd.self_signed, odd.extensions_readable) == ((), True, False)


def test_duplicate_extension(root: Issued) -> None:
    """Two subject key identifiers, which RFC 5280 4.2 forbids, count as none."""
    authority_identifier, subject_identifier = bytes.fromhex("0603551d23"), b"\x06\x03U\x1d\x0e"
    damaged = root.der.replace(authority_identifier, subject_identifier)
    assert Certificate.from_der(damaged).subject_key_identifier is None


@pytest.mark.parametrize(
    "not_before",
    [(GENERALIZED_TIME, b"00000101000000Z"), (UTC_TIME, b"230231000000Z"), (UTC_TIME, b"later")],
    ids=["year-0", "31-february", "words"],
)
def test_impossible_date(root: Issued, not_before: tuple[int, bytes]) -> None:
    """It is found when the certificate is parsed, and not later when it is used."""
    dates = der.encode(*not_before), der.encode(UTC_TIME, b"490101000000Z")
    with pytest.raises(ValueError, match=r"."):
        Certificate.from_der(rewritten(root, VALIDITY, der.encode(der.SEQUENCE, *dates)))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes are a certificate or a ValueError, and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        Certificate.from_der(data)


def test_certificate_that_is_too_large(root: Issued) -> None:
    """Its extensions are not read: other connections would have to wait."""
    large = parsed(root.issue(hosts=[f"host-{number}.example" for number in range(2_000)]))
    assert len(large.der) > MAX_READABLE
    assert not large.extensions_readable
    assert large.authority_key_identifier is None
    small = parsed(root.issue(hosts=[f"host-{number}.example" for number in range(1_000)]))
    assert small.extensions_readable
    assert small.authority_key_identifier is not None


def test_bare(root: Issued) -> None:
    """It is the same certificate, and takes less room."""
    certificate = Certificate.from_der(root.der)
    assert Certificate(root.der).bare == certificate
    assert [*Certificate(root.der).bare.__dict__] == ["der"]
    name, fingerprint = certificate.name, certificate.fingerprint
    read = {"der": certificate.der, "name": name, "fingerprint": fingerprint}
    assert certificate.bare.__dict__ == read
