"""What `certificates.Certificate` says of a certificate, and of a damaged or malicious one."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_aia import certificates
from mitmproxy_aia.certificates import (
    MAX_NAME_CHARACTERS,
    MAX_READABLE,
    Certificate,
    name_key,
    printable,
)
from tests.lab import Issued, common_name, der

ISSUER, VALIDITY, SUBJECT = 3, 4, 5
"""Positions in a TBSCertificate (RFC 5280 section 4.1)."""
ROLE = ObjectIdentifier("2.5.4.72")
COMMON_NAME = bytes.fromhex("0603550403")
UTF8_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x17, 0x18


def parsed(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def rewritten(issued: Issued, position: int, element: bytes) -> bytes:
    """The DER of `issued` with another element in its TBSCertificate. The signature is void."""
    tbs, algorithm, signature = der.elements(issued.der)
    fields = der.elements(tbs)
    fields[position] = element
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *fields), algorithm, signature)


def encoded_name(tag: int, value: bytes) -> bytes:
    """A name of one CN, of whatever type and contents."""
    attribute = der.encode(der.SEQUENCE, COMMON_NAME, der.encode(tag, value))
    return der.encode(der.SEQUENCE, der.encode(der.SET, attribute))


def raw_extension(oid: ObjectIdentifier, value: str) -> x509.Extension[x509.ExtensionType]:
    """An extension of any contents, in hexadecimal."""
    return x509.Extension(oid, False, x509.UnrecognizedExtension(oid, bytes.fromhex(value)))


def named(*names: Any) -> x509.Name:  # NameAttribute, which newer versions made generic
    return x509.Name(names)


def test_certificates_are_equal_if_their_der_is(root: Issued) -> None:
    """The same bytes parsed twice are one certificate; the same name and key are not."""
    again = root.issue(root.name, key=root, ca=True)
    assert parsed(root) == parsed(root)
    assert len({parsed(root), parsed(root), parsed(again)}) == 2


def test_an_issuer_is_named_once(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it has issued has its name in the same bytes, and so has its own certificate."""
    issuer = root.issue("An issuer", ca=True)
    leaves = [Certificate(issuer.issue().der) for _ in range(3)]
    read: list[x509.Name] = []

    def counted(name: x509.Name) -> bytes:
        read.append(name)
        return name_key(name)

    monkeypatch.setattr(certificates, "name_key", counted)
    assert len({leaf.issuer for leaf in leaves}) == 1
    assert Certificate(issuer.der).subject == leaves[0].issuer
    assert len(read) == 1


def test_named_once_within_bounds(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers can send as many names as they like, and as long ones; none is mistaken."""
    monkeypatch.setattr(certificates, "_keys", kept := dict[bytes, bytes]())
    monkeypatch.setattr(certificates, "KEPT_NAMES", 2)
    monkeypatch.setattr(certificates, "MAX_KEPT_NAME", 50)
    issuers = [f"Issuer {number}" for number in range(4)] + ["x" * 50]
    issued = [parsed(root.issue(issuer_name=common_name(issuer))) for issuer in issuers]
    assert len({each.issuer for each in issued}) == len(issuers)
    assert [*kept.values()] == [each.issuer for each in issued[2:4]]


def test_no_key_is_kept_of_what_cannot_be_read(root: Issued) -> None:
    """A name is none the worse for having been in a damaged certificate."""
    issuer = root.issue("An issuer of damaged ones", ca=True)
    damaged = Certificate(rewritten(issuer.issue(), VALIDITY, b"\x30\x00"))
    opaque = damaged.issuer
    assert parsed(issuer.issue()).issuer == parsed(issuer).subject != opaque


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (common_name("Lab CA"), common_name("Lab CA", "printable")),
        (common_name("Lab CA"), common_name("lAB ca")),
        (common_name("Lab CA"), common_name("  Lab \t CA ")),
    ],
    ids=["string-type", "letter-case", "spaces"],
)
def test_names_that_openssl_calls_equal(root: Issued, one: x509.Name, other: x509.Name) -> None:
    """String type, ASCII letter case and runs of spaces do not part issuer and subject."""
    assert parsed(root.issue(one)).subject == parsed(root.issue(other)).subject
    assert parsed(root.issue("x", issuer_name=one)).issuer == parsed(root.issue(other)).subject


@pytest.mark.parametrize(
    "other",
    [
        common_name("LabCA"),
        common_name("Lab CÄ"),
        named(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab Cä")),
        named(*common_name("Lab Cä"), *common_name("Lab Cä")),
        x509.Name([]),
    ],
    ids=["no-space", "non-ascii-letter-case", "attribute-type", "twice", "empty"],
)
def test_names_that_openssl_calls_different(root: Issued, other: x509.Name) -> None:
    """Only ASCII letters are folded, and everything else counts."""
    assert parsed(root.issue("Lab Cä")).subject != parsed(root.issue(other)).subject


def test_order_within_a_multi_valued_rdn_does_not_matter(root: Issued) -> None:
    """An RDN is a set, in DER sorted by its bytes; the RDNs of a name are a sequence."""
    (cn,) = common_name("aaaa")
    tight, loose = (
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in ("b b", "b    b")
    )
    sets = [x509.Name([x509.RelativeDistinguishedName([cn, o])]) for o in (tight, loose)]
    assert parsed(root.issue(sets[0])).subject == parsed(root.issue(sets[1])).subject
    one, other = parsed(root.issue(named(cn, tight))), parsed(root.issue(named(tight, cn)))
    assert one.subject != other.subject


def test_a_name_may_hold_a_bit_string(root: Issued) -> None:
    """The x500UniqueIdentifier attribute is bytes and not text."""
    kind = x509.name._ASN1Type.BitString
    names = [
        named(x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, value, kind))
        for value in (b"\x00a", b"\x00b")
    ]
    first, second = (parsed(root.issue(name)).subject for name in names)
    assert first != second


def test_name_is_the_most_specific_common_name(root: Issued) -> None:
    """The last CN, or the whole name where there is none, or words where that is empty."""
    role = x509.NameAttribute(ROLE, "keeper")
    assert parsed(root.issue(named(*common_name("a"), *common_name("b")))).name == "CN=b"
    assert parsed(root.issue(named(role))).name == "2.5.4.72=keeper"
    assert parsed(root.issue(x509.Name([]))).name == "(empty name)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"two\nlines\r", r"CN=two\nlines\r"),
        (b"\x1b[31mred\x07\x00", r"CN=\x1b[31mred\x07\x00"),
        ("\u202eevil \N{NO-BREAK SPACE}\N{PILE OF POO}".encode(), "CN=\\u202eevil \\xa0\U0001f4a9"),
        (b"", "CN="),
    ],
)
def test_name_is_fit_for_a_log(root: Issued, value: bytes, shown: str) -> None:
    """Control characters of a stranger's name are written as escapes."""
    certificate = Certificate.from_der(rewritten(root, SUBJECT, encoded_name(UTF8_STRING, value)))
    assert certificate.name == shown


@pytest.mark.parametrize("size", [3_000, 10_000])
def test_name_of_kilobytes(root: Issued, size: int) -> None:
    """A long name ends in an ellipsis, and one that no honest certificate has is not read."""
    name = encoded_name(UTF8_STRING, b"x" * size)
    certificate = Certificate.from_der(rewritten(root, SUBJECT, name))
    if size == 3_000:
        assert certificate.name == f"CN={'x' * 196}…"
        assert len(certificate.name) == MAX_NAME_CHARACTERS
    else:
        assert certificate.name == f"(a name of {len(name)} bytes that cannot be read)"
        assert certificate.subject == Certificate.from_der(certificate.der).subject
        assert certificate.subject != certificate.issuer


def test_printable_cuts_what_is_beyond_the_limit() -> None:
    """Text of exactly the limit stays whole."""
    assert printable("abc", 3) == "abc"
    assert printable("abcd", 3) == "ab…"


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


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x02, b"\x01"), (0x03, b"\x00a"), (0x05, b"")],
    ids=["integer", "bit-string", "null"],
)
def test_impossible_name(root: Issued, tag: int, value: bytes) -> None:
    """It is found when the certificate is parsed, and is a ValueError; or `cryptography` can
    read it (since version 50), and then so can we."""
    try:
        certificate = Certificate.from_der(rewritten(root, SUBJECT, encoded_name(tag, value)))
    except ValueError:
        return
    assert certificate.subject != certificate.issuer == Certificate(root.der).subject
    assert certificate.name.isprintable()


T61_STRING = 0x14


@pytest.mark.parametrize(
    ("tag", "value"),
    [(UTF8_STRING, b"\xff"), (T61_STRING, "Zürich".encode("latin-1"))],
    ids=["utf8", "latin-1"],
)
def test_name_that_only_others_can_read(root: Issued, tag: int, value: bytes) -> None:
    """`cryptography` refuses it, old CAs have it: it is equal to itself, byte for byte."""
    name = encoded_name(tag, value)
    certificate = Certificate.from_der(rewritten(root, SUBJECT, name))
    assert certificate.name == f"(a name of {len(name)} bytes that cannot be read)"
    below = Certificate.from_der(rewritten(root.issue(), ISSUER, name))
    assert below.issuer == certificate.subject
    other = Certificate.from_der(rewritten(root, SUBJECT, encoded_name(tag, value + value)))
    assert other.subject not in (certificate.subject, certificate.issuer)


def test_names_are_found_in_a_certificate_of_version_1(root: Issued) -> None:
    """It has no version field in front of its serial number, and no extensions."""
    version_3 = Certificate.from_der(root.der)
    tbs, algorithm, signature = der.elements(root.der)
    bare = der.encode(der.SEQUENCE, *der.elements(tbs)[1:7])
    version_1 = Certificate.from_der(der.encode(der.SEQUENCE, bare, algorithm, signature))
    assert version_1.x509.version is x509.Version.v1
    assert (version_1.subject, version_1.issuer) == (version_3.subject, version_3.issuer)


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
