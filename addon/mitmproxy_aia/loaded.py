"""Certificates as OpenSSL has read them (`crypto.X509`), from ours and back, the last ones kept."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable

from OpenSSL import crypto

from mitmproxy_aia.certificates import Certificate

MAX_SMALL = 4 * 1024
"""Bytes of a certificate that is kept for others as OpenSSL has read it; most have 2,000."""


def to_openssl(certificate: Certificate) -> crypto.X509:
    """Raises crypto.Error if OpenSSL cannot parse it."""
    return (_small if len(certificate.der) <= MAX_SMALL else _large)(certificate)


def _load(certificate: Certificate) -> crypto.X509:
    loaded = crypto.load_certificate(crypto.FILETYPE_ASN1, certificate.der)
    _ders[loaded] = certificate.der
    return loaded


# Certificates that were used lately. OpenSSL takes up to fifty times the room of what it has read.
_small = functools.lru_cache(maxsize=256)(_load)
_large = functools.lru_cache(maxsize=4)(_load)

_ders: weakref.WeakKeyDictionary[crypto.X509, bytes] = weakref.WeakKeyDictionary()


def der_of(certificate: crypto.X509) -> bytes:
    """The certificate in DER. It is kept as long as the object."""
    der = _ders.get(certificate)
    if der is None:
        der = _ders[certificate] = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return der


def from_openssl(certificate: crypto.X509) -> Certificate:
    der = der_of(certificate)
    try:
        return Certificate.from_der(der)
    except ValueError:
        return Certificate(der)  # An anchor that only OpenSSL can read.


def unparsed(chain: Iterable[crypto.X509]) -> list[Certificate]:
    """The same certificates, not yet looked into."""
    return [Certificate(der_of(each)) for each in chain]
