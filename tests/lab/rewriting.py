"""Certificates with other bytes in them than any library would put there."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab import der
from tests.lab.certificates import Issued

VERSION, ISSUER, VALIDITY, SUBJECT, KEY = 0, 3, 4, 5, 6
"""Positions in a TBSCertificate (RFC 5280 section 4.1)."""
COMMON_NAME = bytes.fromhex("0603550403")
UTF8_STRING, T61_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x14, 0x17, 0x18


def rewritten(issued: Issued, position: int, element: bytes, signer: Issued | None = None) -> bytes:
    """The DER of `issued` with another element in its TBSCertificate, signed by `signer`, who has
    an elliptic curve key. Without one the signature is void."""
    tbs, algorithm, signature = der.elements(issued.der)
    fields = der.elements(tbs)
    fields[position] = element
    tbs = der.encode(der.SEQUENCE, *fields)
    if signer is not None:
        assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
        made = signer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        signature = der.encode(der.BIT_STRING, b"\x00", made)
    return der.encode(der.SEQUENCE, tbs, algorithm, signature)


def encoded_name(tag: int, value: bytes) -> bytes:
    """A name of one CN, of whatever type and contents."""
    attribute = der.encode(der.SEQUENCE, COMMON_NAME, der.encode(tag, value))
    return der.encode(der.SEQUENCE, der.encode(der.SET, attribute))
