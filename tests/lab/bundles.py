"""The forms in which certificates travel: PEM, PKCS#7 in DER, BER and PEM, files."""

import base64
import textwrap
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.lab import der
from tests.lab.certificates import Issued

_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_DATA = bytes.fromhex("06092a864886f70d010701")


def pem_bundle(*issued: Issued) -> bytes:
    """The certificates one after the other, in this order."""
    return b"".join(each.pem for each in issued)


def pkcs7_der(*issued: Issued) -> bytes:
    """A certs-only PKCS#7, what most authorities serve as .p7c."""
    return pkcs7.serialize_certificates([each.certificate for each in issued], Encoding.DER)


def pkcs7_pem(*issued: Issued) -> bytes:
    """The same, armoured: what many authorities serve as .p7b."""
    return pkcs7.serialize_certificates([each.certificate for each in issued], Encoding.PEM)


def pkcs7_ber(*issued: Issued) -> bytes:
    """The same with indefinite lengths, as Microsoft's and older Java tools write it."""
    return der.encode_indefinite(
        der.SEQUENCE,
        _SIGNED_DATA,
        der.encode_indefinite(
            der.CONTEXT_0,
            der.encode_indefinite(
                der.SEQUENCE,
                der.encode(der.INTEGER, b"\x01"),
                der.encode(der.SET),
                der.encode_indefinite(der.SEQUENCE, _DATA),
                der.encode_indefinite(der.CONTEXT_0, *(each.der for each in issued)),
                der.encode(der.SET),
            ),
        ),
    )


def pkcs7_ber_pem(*issued: Issued) -> bytes:
    """The BER form in PEM armour."""
    text = textwrap.fill(base64.b64encode(pkcs7_ber(*issued)).decode(), 64)
    return f"-----BEGIN PKCS7-----\n{text}\n-----END PKCS7-----\n".encode()


def trust_file(path: Path, *roots: Issued) -> Path:
    """Write the roots to `path`, in the form OpenSSL and mitmproxy load, and return it."""
    path.write_bytes(pem_bundle(*roots))
    return path
