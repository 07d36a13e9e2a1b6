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
    return tuple(dict.fromkeys(filter(None, pieces(data))))


def pieces(data: bytes) -> Iterator[Certificate | None]:
    """The same piece by piece, each read when it is taken. None is a place to pause: what was no
    certificate, or the end of a block. The ValueError comes in the end."""
    if not data:
        raise ValueError("is empty")
    damage: ValueError | None = None
    if data[0] == 0x30:  # an ASN.1 SEQUENCE, which both a certificate and PKCS#7 begin with
        try:
            yield from _in_der(data)
        except ValueError as error:
            damage = error
        else:
            return
    # A text may begin with 0x30, and a name in a certificate may hold the words of PEM.
    if b"-----BEGIN " not in data:
        raise damage or ValueError("is not a certificate (neither DER, PEM nor PKCS#7)")
    yield from _in_pem(data)


def _in_pem(data: bytes) -> Iterator[Certificate | None]:
    found = False
    reason = "has PEM blocks, but none with a certificate"
    for block in _PEM_BLOCK.finditer(data):
        if block["label"] in _PEM_LABELS:
            try:
                body = base64.b64decode(b"".join(block["body"].split()), validate=True)
                yield from _in_der(body)
                found = True
            except ValueError as error:
                reason = f"has a damaged PEM block ({error})"
        yield None
    if not found:
        raise ValueError(reason)


def _in_der(data: bytes) -> Iterator[Certificate | None]:
    """Raises ValueError if none is in it."""
    try:
        yield Certificate.from_der(data)
    except ValueError as error:
        damage = error
    else:
        return
    try:
        bundle = pkcs7.certificates_in(data)
    except ValueError:
        raise ValueError(f"is a damaged certificate ({damage})") from damage
    found = False
    for der in bundle:
        try:
            certificate = Certificate.from_der(der)
        except ValueError:
            yield None
        else:
            found = True
            yield certificate
    if not found:
        raise ValueError("is PKCS#7 without a certificate")


def presented(ders: Iterable[bytes]) -> Iterator[Certificate]:
    """What a server sent, in its order, leaf first, each parsed when it is taken. Raises
    ValueError if the leaf cannot be read; of the others, those that cannot are left out."""
    for position, der in enumerate(ders):
        try:
            yield Certificate.from_der(der)
        except ValueError as error:
            if position == 0:
                raise ValueError(f"the server's certificate cannot be read: {error}") from error
