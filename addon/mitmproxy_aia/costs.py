"""What it would cost OpenSSL to verify certificates. Pure.

OpenSSL verifies a whole chain in one go, and all other connections wait meanwhile. That takes a
millisecond or two for what certification authorities issue. Anybody can make a chain that takes
half a second: of RSA keys with exponents as long as their moduli, or with thousands of names and
as many name constraints, each of which is compared with each. A handshake of stock mitmproxy
ends before that, when the chain leads to no trust anchor.
"""

from __future__ import annotations

from collections.abc import Collection
from weakref import WeakKeyDictionary

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.der import content, elements

MOST = 10.0
"""Milliseconds, on a machine of 2020. Five certificates with keys of RSA 4096 are below 1."""

_RSA = (bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d01010a"))
_DSA = bytes.fromhex("06072a8648ce380401")
_EC = bytes.fromhex("06072a8648ce3d0201")
_UNCOMPRESSED = 0x04
_OTHER_KEYS = 1.0
"""Ed25519 takes a tenth, and the hash-based ones of FIPS 205 some."""

_NAMES = bytes.fromhex("0603551d11")  # subjectAltName
_CONSTRAINTS = bytes.fromhex("0603551d1e")  # nameConstraints
_EXTENSIONS = 0xA3  # [3] of a TBSCertificate
_COMPARISON = 7e-6
_MAX_COUNTED = 16 * 1024
"""Bytes of names that are counted. Beyond that they are taken for as short as they can be."""
_SHORTEST = 2


def too_much(certificates: Collection[Certificate]) -> bool:
    """Whether a chain of these, in whatever order, might keep others waiting for too long."""
    return milliseconds(certificates) > MOST


def milliseconds(certificates: Collection[Certificate]) -> float:
    """What it would take at most to verify a chain of these, roughly."""
    signatures = sum(map(_signature, certificates))
    return signatures + _COMPARISON * _comparisons(certificates)


_known: WeakKeyDictionary[Certificate, float] = WeakKeyDictionary()


def _signature(issuer: Certificate) -> float:
    """Milliseconds to verify one by the key in `issuer`."""
    # To take a key apart takes a quarter of the time to verify with it.
    known = _known.get(issuer)
    if known is None:
        known = _known[issuer] = _estimate(issuer)
    return known


def _estimate(issuer: Certificate) -> float:
    try:
        algorithm, bits = elements(content(issuer.public_key))
        kind, *parameters = elements(content(algorithm))
        key = content(bits)[1:]  # without the number of unused bits
        if kind in _RSA:
            modulus, exponent = (8 * len(content(number)) for number in elements(content(key)))
            return modulus**2 * exponent / 4e9
        if kind == _DSA and parameters:
            prime = 8 * len(content(elements(content(parameters[0]))[0]))
            return prime**2 * 500 / 4e9
        if kind == _EC:
            size = 8 * (len(key) - 1) // (2 if key[0] == _UNCOMPRESSED else 1)
            return 0.6 * (size / 384) ** 3
    except (ValueError, IndexError):
        return 0.0  # OpenSSL does nothing with it either.
    return _OTHER_KEYS


def _comparisons(certificates: Collection[Certificate]) -> int:
    """How many there are at most of a name with a constraint."""
    constrained = [each for each in certificates if _CONSTRAINTS in each.der]
    if not constrained:
        return 0
    constraints = sum(
        _count(subtrees)
        for each in constrained
        for subtrees in elements(content(_extension(each, _CONSTRAINTS)))
    )
    # And the subject, with what may be a host name in it.
    names = sum(2 + _count(_extension(each, _NAMES)) for each in certificates)
    return names * constraints


def _extension(certificate: Certificate, kind: bytes) -> bytes:
    """Its value, which is a SEQUENCE; an empty one if there is none."""
    empty = b"\x30\x00"
    try:
        last = certificate.fields[-1]
        if kind not in certificate.der or last[0] != _EXTENSIONS:
            return empty
        for extension in elements(content(content(last))):
            name, *_, value = elements(content(extension))
            if name == kind:
                return content(value)
    except (ValueError, IndexError):
        pass
    return empty


def _count(sequence: bytes) -> int:
    """How many elements there are in it, at most."""
    try:
        inside = content(sequence)
        return len(elements(inside)) if len(inside) <= _MAX_COUNTED else len(inside) // _SHORTEST
    except ValueError:
        return len(sequence) // _SHORTEST
