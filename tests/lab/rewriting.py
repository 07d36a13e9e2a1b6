"""Certificates with other bytes in them than any library would put there."""

from tests.lab import der
from tests.lab.certificates import Issued

ISSUER, VALIDITY, SUBJECT = 3, 4, 5
"""Positions in a TBSCertificate (RFC 5280 section 4.1)."""
COMMON_NAME = bytes.fromhex("0603550403")
UTF8_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x17, 0x18


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
