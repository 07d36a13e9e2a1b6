"""Names in certificates: which are equal, and what is shown of them."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from mitmproxy_aia import names
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.names import MAX_NAME_CHARACTERS, name_key, printable
from tests.lab import Issued, common_name, der
from tests.lab.rewriting import (
    ISSUER,
    SUBJECT,
    T61_STRING,
    UTF8_STRING,
    VALIDITY,
    encoded_name,
    rewritten,
)

ROLE = ObjectIdentifier("2.5.4.72")


def parsed(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def named(*names: Any) -> x509.Name:  # NameAttribute, which newer versions made generic
    return x509.Name(names)


def test_an_issuer_is_named_once(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it has issued has its name in the same bytes, and so has its own certificate."""
    issuer = root.issue("An issuer", ca=True)
    leaves = [Certificate(issuer.issue().der) for _ in range(3)]
    read: list[x509.Name] = []

    def counted(name: x509.Name) -> bytes:
        read.append(name)
        return name_key(name)

    monkeypatch.setattr(names, "name_key", counted)
    assert len({leaf.issuer for leaf in leaves}) == 1
    assert Certificate(issuer.der).subject == leaves[0].issuer
    assert len(read) == 1


def test_named_once_within_bounds(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers can send as many names as they like, and as long ones; none is mistaken."""
    monkeypatch.setattr(names, "_keys", kept := dict[bytes, bytes]())
    monkeypatch.setattr(names, "KEPT_NAMES", 2)
    monkeypatch.setattr(names, "MAX_KEPT_NAME", 50)
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
    held = [
        named(x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, value, kind))
        for value in (b"\x00a", b"\x00b")
    ]
    first, second = (parsed(root.issue(name)).subject for name in held)
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
    # Escapes count as they are written.
    assert printable("\n", 2) == "\\n"
    assert printable("\n\n\n", 4) == "\\n\\…"


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
