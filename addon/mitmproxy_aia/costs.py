"""What it would cost OpenSSL to verify certificates. Pure.

OpenSSL verifies a whole chain in one go, and all other connections wait meanwhile. That takes a
millisecond or two for what certification authorities issue. Anybody can make a chain that takes
half a second: of RSA keys with exponents as long as their moduli, or with thousands of names and
as many name constraints, each of which is compared with each. A handshake of stock mitmproxy
ends before that, when the chain leads to no trust anchor.

OpenSSL reads BER where it should be DER, and we do not. What we cannot read is therefore taken
for the worst that there may be in so many bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.comparisons import comparisons, extension
from mitmproxy_aia.der import content, elements
from mitmproxy_aia.remembered import remembered

MOST = 10.0
"""Milliseconds, on a machine of 2020. Five certificates with keys of RSA 4096 are below 1."""

_RSA = (bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d01010a"))
_DSA = bytes.fromhex("06072a8648ce380401")
_EC = bytes.fromhex("06072a8648ce3d0201")
_USUAL_CURVES = {
    # P-256, P-384 and P-521, for which OpenSSL has code of their own, or honest use has.
    bytes.fromhex(oid)
    for oid in ("06082a8648ce3d030107", "06052b81040022", "06052b81040023")
}
_OTHER_CURVES = 1.0
"""At least. Small binary curves take as much, with points in short form."""
_UNCOMPRESSED = 0x04
_FIELD_TYPES = bytes.fromhex("2a8648ce3d01")
"""1.2.840.10045.1, and behind it the kind of field: a curve that is spelt out (RFC 3279 section
2.3.5). Compressed points on curves made for it take 90 ms, each time that a certificate is read."""
_NULL = bytes.fromhex("0500")
_LONGEST_PRIME = 10_000
"""Bits (OPENSSL_DSA_MAX_MODULUS_BITS)."""
_LONGEST_FIELD = 661
"""Bits (OPENSSL_ECC_MAX_FIELD_BITS)."""
_RSA_UNIT = 4e9
"""Squared bits of a modulus, times bits of an exponent, that take a millisecond."""
_EDWARDS = (bytes.fromhex("06032b6570"), bytes.fromhex("06032b6571"))
_NIST = bytes.fromhex("06096086480165030403")
"""Signature algorithms of NIST (2.16.840.1.101.3.4.3): ML-DSA (FIPS 204), SLH-DSA (FIPS 205)."""
_OTHER_KEYS = 1.0
"""Ed25519 and ML-DSA take a tenth, and SLH-DSA some."""

_DISTRIBUTION_POINTS = bytes.fromhex("551d1f")  # cRLDistributionPoints
_RELATIVE_NAMES = b"\xa1", b"\xbf"
"""How they begin, also in BER."""
_COPIED_BYTE = 6e-5
"""Milliseconds."""


def too_much(certificates: Collection[Certificate]) -> bool:
    """Whether a chain of these, in whatever order, might keep others waiting for too long."""
    return milliseconds(certificates) > MOST


def milliseconds(certificates: Collection[Certificate]) -> float:
    """What it would take at most to verify a chain of these, roughly."""
    return sum(map(_alone, certificates)) + comparisons(certificates)


@remembered
def _alone(certificate: Certificate) -> float:
    """Milliseconds for what it takes whatever the others are."""
    return _signature(certificate) + _distribution_points(certificate)


def _distribution_points(certificate: Certificate) -> float:
    """Milliseconds to read them. Before version 4, OpenSSL makes a copy of a name for each that is
    relative to it, be it the issuer's or one in there (RFC 5280 section 4.2.1.13)."""
    if _DISTRIBUTION_POINTS not in certificate.der:
        return 0.0
    try:
        issuer, points = certificate.fields[2], extension(certificate, _DISTRIBUTION_POINTS)
    except (ValueError, IndexError):
        issuer = points = certificate.der
    copied = max(len(issuer), len(points))
    return sum(map(points.count, _RELATIVE_NAMES)) * copied * _COPIED_BYTE


def _signature(issuer: Certificate) -> float:
    """Milliseconds to verify one by the key in `issuer`."""
    info = issuer.der
    try:
        info = issuer.public_key
        algorithm, bits = elements(content(info))
        kind, *parameters = elements(content(algorithm))
        key = content(bits)[1:]  # without the number of unused bits
        if kind in _RSA:
            modulus, exponent = (8 * len(content(number)) for number in elements(content(key)))
            return modulus**2 * exponent / _RSA_UNIT
        if kind == _DSA:
            prime = _LONGEST_PRIME
            # Without parameters it has those of its issuer (RFC 3279 section 2.3.2).
            if parameters and parameters[0] != _NULL:
                prime = 8 * len(content(elements(content(parameters[0]))[0]))
            return prime**2 * 500 / _RSA_UNIT
        if kind == _EC:
            if _FIELD_TYPES in info:
                generator = content(elements(content(parameters[0]))[3])
                if {generator[0], key[0]} != {_UNCOMPRESSED}:
                    return math.inf
            # The point at infinity is one byte, whatever the curve.
            size = 8 * (len(key) - 1) // (2 if key[0] == _UNCOMPRESSED else 1) or _LONGEST_FIELD
            if parameters and parameters[0] in _USUAL_CURVES:
                return _curve(size)
            return max(_OTHER_CURVES, 1.5 * _curve(size))
        if kind in _EDWARDS or kind.startswith(_NIST):
            return _OTHER_KEYS
    except (ValueError, IndexError):
        if _FIELD_TYPES in info:
            return math.inf
    # OpenSSL knows RSA by other names as well. At worst two thirds of it are its modulus.
    return max(_curve(_LONGEST_FIELD), (8 * len(info)) ** 3 * 4 / 27 / _RSA_UNIT)


def _curve(bits: int) -> float:
    return 0.6 * (bits / 384) ** 3
