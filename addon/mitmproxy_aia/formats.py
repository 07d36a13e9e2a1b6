"""Certificates in any format to `Certificate`: DER, PEM, PKCS#7, and what a handshake gives."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

from mitmproxy_aia import pkcs7
from mitmproxy_aia.certificates import Certificate

_PEM_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9# ]+)-----(?P<body>[^-]*)-----END (?P=label)-----"
)
_PEM_LABELS = frozenset(
    {b"CERTIFICATE", b"X509 CERTIFICATE", b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA"}
)


def read_certificates(data: bytes) -> tuple[Certificate, ...]:
    """Every certificate in `data`, told by its content and not by any label around it.

    Accepted: one DER certificate; PKCS#7 certs-only (RFC 5652) in DER or BER; and PEM, any
    number of blocks of either kind with any text around them. PEM blocks that are damaged
    or hold something else are passed over as long as one is good.

    Raises ValueError with a reason if there is not one certificate.
    """
    if not data:
        raise ValueError("is empty")
    damage: ValueError | None = None
    if data[0] == 0x30:  # an ASN.1 SEQUENCE, which both a certificate and PKCS#7 begin with
        try:
            return _read_der(data)
        except ValueError as error:
            damage = error
    # A text may begin with 0x30, and a name in a certificate may hold the words of PEM.
    if b"-----BEGIN " in data:
        return _read_pem(data)
    raise damage or ValueError("is not a certificate (neither DER, PEM nor PKCS#7)")


def _read_pem(data: bytes) -> tuple[Certificate, ...]:
    found: dict[Certificate, None] = {}
    reason = "has PEM blocks, but none with a certificate"
    for block in _PEM_BLOCK.finditer(data):
        if block["label"] not in _PEM_LABELS:
            continue
        try:
            body = base64.b64decode(b"".join(block["body"].split()), validate=True)
            found.update(dict.fromkeys(_read_der(body)))
        except ValueError as error:
            reason = f"has a damaged PEM block ({error})"
    if not found:
        raise ValueError(reason)
    return tuple(found)


def _read_der(data: bytes) -> tuple[Certificate, ...]:
    try:
        return (Certificate.from_der(data),)
    except ValueError as error:
        damage = error
    try:
        bundle = pkcs7.certificates_in(data)
    except ValueError:
        raise ValueError(f"is a damaged certificate ({damage})") from damage
    found = tuple(dict.fromkeys(_readable(bundle)))
    if not found:
        raise ValueError("is PKCS#7 without a certificate")
    return found


def _readable(ders: Iterable[bytes]) -> Iterator[Certificate]:
    for der in ders:
        try:
            yield Certificate.from_der(der)
        except ValueError:
            continue


def presented(ders: Iterable[bytes]) -> Iterator[Certificate]:
    """What a server sent, in its order, leaf first, each parsed when it is taken. Raises
    ValueError if the leaf cannot be read; of the others, those that cannot are left out."""
    for position, der in enumerate(ders):
        try:
            yield Certificate.from_der(der)
        except ValueError as error:
            if position == 0:
                raise ValueError(f"the server's certificate cannot be read: {error}") from error
