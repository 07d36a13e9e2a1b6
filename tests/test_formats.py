"""`formats.read_certificates`: every form in which authorities publish certificates."""

import base64

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from tests.lab import (
    authority,
    der,
    pem_bundle,
    pkcs7_ber,
    pkcs7_ber_pem,
    pkcs7_der,
    pkcs7_pem,
)
from tests.lab.rewriting import GENERALIZED_TIME, VALIDITY, rewritten

FIRST = authority("First")
SECOND = FIRST.issue("Second", ca=True)
# Its end is in the year 0, which is ASN.1 but no date.
DAMAGED = rewritten(
    FIRST,
    VALIDITY,
    der.encode(der.SEQUENCE, *[der.encode(GENERALIZED_TIME, b"00000101000000Z")] * 2),
)
VERSION_4 = FIRST.der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020103"), 1)


def names(data: bytes) -> list[str]:
    return [certificate.name.removeprefix("CN=") for certificate in read_certificates(data)]


def armoured(data: bytes, label: str = "CERTIFICATE") -> bytes:
    body = base64.encodebytes(data)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), body, label.encode())


def certs_only(*ders: bytes) -> bytes:
    """PKCS#7 of whatever stands in the place of certificates."""
    inside = der.elements(pkcs7_der(FIRST))
    signed_data = der.elements(der.elements(inside[1])[0])
    signed_data[3] = der.encode(der.CONTEXT_0, *ders)
    content = der.encode(der.CONTEXT_0, der.encode(der.SEQUENCE, *signed_data))
    return der.encode(der.SEQUENCE, inside[0], content)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (FIRST.der, ["First"]),
        (FIRST.pem, ["First"]),
        (pem_bundle(SECOND, FIRST), ["Second", "First"]),
        (pkcs7_der(FIRST), ["First"]),
        (pkcs7_ber(SECOND, FIRST), ["Second", "First"]),
        (pkcs7_pem(FIRST), ["First"]),
        (pkcs7_ber_pem(SECOND, FIRST), ["Second", "First"]),
        (pkcs7_pem(FIRST) + SECOND.pem, ["First", "Second"]),
    ],
    ids=["der", "pem", "pems", "p7-der", "p7-ber", "p7-pem", "p7-ber-pem", "mixed"],
)
def test_format(data: bytes, found: list[str]) -> None:
    """The content decides, and the order is kept."""
    assert names(data) == found


@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r", b" \n\t"])
def test_pem_of_every_platform(label: str, newline: bytes) -> None:
    """Line ends and the older label do not matter."""
    assert names(armoured(FIRST.der, label).replace(b"\n", newline)) == ["First"]


@pytest.mark.parametrize("label", ["PKCS7", "CMS", "PKCS #7 SIGNED DATA", "CERTIFICATE"])
def test_armoured_pkcs7(label: str) -> None:
    """PKCS#7 goes by several labels, some of them wrong."""
    assert names(armoured(pkcs7_der(FIRST), label)) == ["First"]


@pytest.mark.parametrize("before", [b"", b"0 junk\n", b"\xef\xbb\xbf", b"subject=CN = x\n\x00\xff"])
def test_pem_with_text_around(before: bytes) -> None:
    """What `openssl s_client` prints around a block is passed over."""
    assert names(before + FIRST.pem + b"\nissuer -----\n" + SECOND.pem + b"trailer") == [
        "First",
        "Second",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        armoured(DAMAGED),
        armoured(b"junk"),
        FIRST.pem.replace(b"M", b"M!!!!", 1),
        FIRST.key_pem,
        FIRST.pem[:-40],
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    ],
    ids=["unreadable", "junk", "not-base64", "key", "no-end", "empty"],
)
def test_one_bad_pem_block(bad: bytes) -> None:
    """It does not spoil the good ones around it."""
    third = FIRST.issue("Third")
    assert names(third.pem + bad + SECOND.pem) == ["Third", "Second"]


def test_duplicates_are_found_once() -> None:
    """Within a bundle and across bundles."""
    assert names(pem_bundle(FIRST, FIRST) + pkcs7_pem(FIRST)) == ["First"]
    assert names(pkcs7_der(FIRST, FIRST)) == ["First"]


def test_one_bad_certificate_in_pkcs7() -> None:
    """It is passed over, and without it there is nothing."""
    assert names(certs_only(DAMAGED, FIRST.der)) == ["First"]
    with pytest.raises(ValueError, match="is PKCS#7 without a certificate"):
        read_certificates(certs_only(DAMAGED))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<!doctype html><title>Not found</title>", "is not a certificate"),
        (b"\x00" + FIRST.der, "is not a certificate"),
        (b"0", "is a damaged certificate"),
        (FIRST.der[:-1], "is a damaged certificate"),
        (FIRST.der + b"\x00", "is a damaged certificate"),
        (DAMAGED, "is a damaged certificate"),
        (pkcs7_der(FIRST)[:-1], "is a damaged certificate"),
        (der.encode(der.SEQUENCE, bytes.fromhex("06092a864886f70d010701")), "is a damaged"),
        (FIRST.key_pem, "has PEM blocks, but none with a certificate"),
        (FIRST.pem[:-40], "has PEM blocks, but none with a certificate"),
        (armoured(DAMAGED), "has a damaged PEM block"),
        (FIRST.pem.replace(b"M", b"!", 1), "has a damaged PEM block"),
        (VERSION_4, "is a damaged certificate"),
        (armoured(VERSION_4), "has a damaged PEM block"),
    ],
    ids=[
        "empty", "html", "leading-byte", "one-byte", "cut", "trailing-byte", "unreadable",
        "cut-p7", "p7-of-data", "key", "cut-pem", "unreadable-pem", "not-base64",
        "version", "version-pem",
    ],
)  # fmt: skip
def test_no_certificate(data: bytes, reason: str) -> None:
    """A ValueError says in words what was there instead."""
    with pytest.raises(ValueError, match=f"^{reason}"):
        read_certificates(data)


def test_from_der_takes_der_only() -> None:
    """PEM and trailing bytes are for `read_certificates`."""
    for data in (FIRST.pem, FIRST.der + b"\x00", b""):
        with pytest.raises(ValueError, match=r"."):
            Certificate.from_der(data)


def test_a_certificate_that_speaks_of_pem() -> None:
    """The words of PEM in a name do not make it one."""
    ca = FIRST.issue("-----BEGIN CERTIFICATE-----", ca=True)
    for data in ca.der, pkcs7_der(ca):
        assert read_certificates(data) == (Certificate.from_der(ca.der),)
