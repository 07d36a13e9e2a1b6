"""Certificates are cut out of PKCS#7, in DER or BER, and nothing in them is looked into."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mitmproxy_aia.pkcs7 import certificates_in
from tests.lab import authority, der, pkcs7_ber, pkcs7_der

FIRST = authority("First")
SECOND = FIRST.issue("Second", ca=True)
BOTH = [FIRST.der, SECOND.der]
SIGNED_DATA, DATA = (bytes.fromhex(f"06092a864886f70d0107{kind}") for kind in ("02", "01"))
UNDEFINED = bytes([der.SEQUENCE, 0x80])

Encode = Callable[..., bytes]


def certs_only(*certificates: bytes, encode: Encode = der.encode, before: bytes = b"") -> bytes:
    """PKCS#7 with whatever stands in the place of certificates, and before them."""
    version = der.encode(der.INTEGER, b"\x01")
    signed = encode(der.SEQUENCE, version, before, encode(der.CONTEXT_0, *certificates))
    return encode(der.SEQUENCE, SIGNED_DATA, encode(der.CONTEXT_0, signed))


@pytest.mark.parametrize(
    "options",
    [
        "crl2pkcs7 -nocrl -certfile certs",
        "smime -sign -nodetach -certfile certs",
        "smime -sign -nodetach -certfile certs -stream",
        "cms -sign -nodetach -certfile certs",
        "cms -sign -nodetach -certfile certs -stream",
        "cms -sign -keyid -certfile certs",
    ],
)
def test_made_by_openssl(options: str, tmp_path: Path) -> None:
    """There may be more in it than certificates, with lengths of all kinds."""
    signed = "-sign" in options
    (tmp_path / "certs").write_bytes(FIRST.pem + (b"" if signed else SECOND.pem))
    (tmp_path / "signer").write_bytes(SECOND.pem + SECOND.key_pem)
    (tmp_path / "text").write_bytes(b"text\n" * 3_000)
    signing = ["-signer", "signer", "-binary", "-in", "text"] if "-sign" in options else []
    command = ["openssl", *options.split(), *signing, "-outform", "DER", "-out", "made"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    made = (tmp_path / "made").read_bytes()
    assert {*certificates_in(made)} == {*BOTH}
    assert made.startswith(UNDEFINED) == ("-stream" in options)


@pytest.mark.parametrize("encode", [der.encode, der.encode_indefinite])
def test_lengths(encode: Encode) -> None:
    """Those at the end, also of what is passed over, and those with more bytes than they take."""
    before = encode(der.SET, encode(der.SEQUENCE, encode(der.SET), DATA), encode(der.SEQUENCE))
    assert certificates_in(certs_only(*BOTH, encode=encode, before=before)) == BOTH
    long = b"\x31\x84\x00\x00\x00\x02\x05\x00"
    assert certificates_in(certs_only(*BOTH, encode=encode, before=long)) == BOTH


@pytest.mark.parametrize("encode", [der.encode, der.encode_indefinite])
def test_certificate_in_ber(encode: Encode) -> None:
    """The outermost element of a certificate is not signed, and comes out as DER."""
    ber = [der.encode_indefinite(der.SEQUENCE, *der.elements(each)) for each in BOTH]
    assert certificates_in(certs_only(*ber, encode=encode)) == BOTH


def test_other_elements() -> None:
    """What is no certificate, or has too few bytes to be one, is passed over."""
    others = [bytes([0xA0 + kind, 0x82, 0x01, 0x00]) + bytes(256) for kind in range(4)]
    small = [der.encode(der.SEQUENCE), der.encode(der.SEQUENCE, bytes(100)), UNDEFINED + bytes(2)]
    assert certificates_in(certs_only(*others, FIRST.der, *small, SECOND.der)) == BOTH


@pytest.mark.parametrize("encode", [der.encode, der.encode_indefinite])
def test_small_elements(encode: Encode) -> None:
    """A thousand, of which each takes a moment, may be beside any number of certificates."""
    null = b"\x05\x00"
    many = [der.encode_indefinite(der.SEQUENCE, *der.elements(each)) for each in BOTH * 2_000]
    assert certificates_in(certs_only(*many, *[null] * 900, encode=encode)) == BOTH * 2_000
    with pytest.raises(ValueError, match=r"^has too many elements$"):
        certificates_in(certs_only(*BOTH, *[null] * 1_100, encode=encode))


def test_none() -> None:
    """Signed data may have no certificates."""
    assert certificates_in(certs_only()) == []
    signed = der.encode(der.SEQUENCE, der.encode(der.INTEGER, b"\x01"), der.encode(der.SET))
    for inside in [der.encode(der.CONTEXT_0, signed), der.encode(der.CONTEXT_0)]:
        assert certificates_in(der.encode(der.SEQUENCE, SIGNED_DATA, inside)) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is cut off"),
        (b"\x30", "is cut off"),
        (b"\x30\x82\x01", "is cut off"),
        (der.encode(der.SEQUENCE), "is not signed data"),
        (der.encode(der.SEQUENCE, SIGNED_DATA), "is not signed data"),
        (der.encode(der.SEQUENCE, DATA, der.encode(der.CONTEXT_0)), "is not signed data"),
        (FIRST.der, "is not signed data"),
        (b"\x04\x80" + bytes(2), "has a length that is not read here"),
        (b"\x3f\x30\x00", "has a tag that is not read here"),
        (certs_only(b"\x30\x10" + bytes(8)), "is cut off"),
        (der.encode(der.SEQUENCE, SIGNED_DATA[:-1]) + b"\x00", "has an element that is longer"),
        (certs_only(UNDEFINED, encode=der.encode), "is cut off"),
        (certs_only(FIRST.der, UNDEFINED * 900, encode=der.encode_indefinite), "is cut off"),
        (certs_only(FIRST.der, UNDEFINED * 3_000), "has too many elements"),
        (b"\x30\x80" * 3_000, "has too many elements"),
    ],
)
def test_damage(data: bytes, reason: str) -> None:
    """It is a ValueError, of which the words say what is wrong."""
    with pytest.raises(ValueError, match=f"^{reason}"):
        certificates_in(data)


@pytest.mark.parametrize("write", [pkcs7_der, pkcs7_ber])
def test_cut_off(write: Callable[..., bytes]) -> None:
    """Wherever it is, there are whole certificates or none."""
    whole = write(FIRST, SECOND)
    for size in range(len(whole)):
        with contextlib.suppress(ValueError):
            assert certificates_in(whole[:size]) == BOTH


def test_keys_are_not_decoded(tmp_path: Path) -> None:
    """OpenSSL would decode those of all certificates at once, and take seconds for some."""
    (tmp_path / "bundle.p7c").write_bytes(pkcs7_der(FIRST, SECOND))
    program = """
        import sys
        from pathlib import Path
        from mitmproxy_aia.formats import read_certificates
        assert len(read_certificates(Path("bundle.p7c").read_bytes())) == 2
        assert "cryptography.hazmat.primitives.serialization.pkcs7" not in sys.modules
    """
    lines = [line.strip() for line in program.splitlines()]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True, timeout=60)
