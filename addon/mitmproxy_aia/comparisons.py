"""What it would cost OpenSSL to compare the names in certificates with name constraints. Pure.

Each name of a chain is compared with each constraint of its kind (RFC 5280 section 4.2.1.10; see
NAME_CONSTRAINTS_check in OpenSSL's crypto/x509/v3_ncons.c). There may be thousands of both, and
so they are not counted one by one, but the bytes with which one can begin; be it in DER or BER.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.der import content, elements
from mitmproxy_aia.remembered import remembered

# Object identifiers without tag and length: there are several ways to write these in BER.
_NAMES = bytes.fromhex("551d11")  # subjectAltName
_CONSTRAINTS = bytes.fromhex("551d1e")  # nameConstraints
_EXTENSIONS = 0xA3  # [3] of a TBSCertificate

# Kinds of GeneralName (RFC 5280 section 4.2.1.6) that are mentioned below.
_KINDS = range(9)
_OTHER_NAME, _RFC822_NAME, _DNS_NAME, _DIRECTORY_NAME, _URI = 0, 1, 2, 4, 6
_BEGINNINGS = [(bytes([0x80 | kind]), bytes([0xA0 | kind])) for kind in _KINDS]
"""Primitive and constructed."""
_BEGINNINGS_OF_ANY = b"\x9f", b"\xbf"
"""The tag is in a byte of its own, as it may be in BER (X.690 8.1.2.4)."""

_LOOK = 5e-6
"""Milliseconds to see that a name and a constraint are of different kinds."""
_COMPARISON = {**dict.fromkeys(_KINDS, 1e-5), _URI: 2e-4}
"""OpenSSL 4 takes a URI apart each time."""
_COMPARED_BYTE = 8e-7
"""For each byte of both: of some kinds OpenSSL looks at all of them."""
# SmtpUTF8Mailbox (RFC 9598), 1.3.6.1.5.5.7.8.9, for which constraints of e-mail addresses hold;
# they are decoded from Punycode each time.
_MAILBOX_NAME = bytes.fromhex("2b06010505070809")
_MAILBOX = 150
"""So many times as much. No TLS server has such a name."""
_SHORTEST_ATTRIBUTE = 9
"""Bytes of an attribute in a subject: each may be a host name or an e-mail address."""


class _Counted(NamedTuple):
    """How many there may be of each kind, and their bytes."""

    numbers: tuple[int, ...]
    bytes: int
    mailboxes: bool


def comparisons(certificates: Collection[Certificate]) -> float:
    """The milliseconds it may take at most in a chain of these, roughly."""
    constrained = [each for each in certificates if _CONSTRAINTS in each.der]
    if not constrained:
        return 0.0
    constraints, names = _sum(map(_constraints, constrained)), _sum(map(_names, certificates))
    taken = sum(names.numbers) * sum(constraints.numbers) * _LOOK
    for kind in _KINDS:
        number, constrained_number = names.numbers[kind], constraints.numbers[kind]
        if kind == _RFC822_NAME and names.mailboxes:
            number += _MAILBOX * names.numbers[_OTHER_NAME]
        if number and constrained_number:
            compared = number * constraints.bytes + constrained_number * names.bytes
            taken += number * constrained_number * _COMPARISON[kind] + compared * _COMPARED_BYTE
    return taken


def _sum(counted: Iterable[_Counted]) -> _Counted:
    numbers, sizes, mailboxes = zip(*counted, strict=True)
    return _Counted(tuple(map(sum, zip(*numbers, strict=True))), sum(sizes), any(mailboxes))


@remembered
def _constraints(certificate: Certificate) -> _Counted:
    try:
        return _count(extension(certificate, _CONSTRAINTS))
    except (ValueError, IndexError):
        return _count(certificate.der)


@remembered
def _names(certificate: Certificate) -> _Counted:
    mailboxes = _MAILBOX_NAME in certificate.der
    try:
        subject, alternatives = certificate.fields[4], extension(certificate, _NAMES)
    except (ValueError, IndexError):
        # The object identifier may be in pieces, too.
        subject = alternatives = certificate.der
        mailboxes = True
    numbers = [*_count(alternatives).numbers]
    for kind in _RFC822_NAME, _DNS_NAME:
        numbers[kind] += len(subject) // _SHORTEST_ATTRIBUTE
    numbers[_DIRECTORY_NAME] += 1
    return _Counted(tuple(numbers), len(subject) + len(alternatives), mailboxes)


def _count(data: bytes) -> _Counted:
    of_any = sum(map(data.count, _BEGINNINGS_OF_ANY))
    numbers = (of_any + sum(map(data.count, beginnings)) for beginnings in _BEGINNINGS)
    return _Counted(tuple(numbers), len(data), mailboxes=False)


def extension(certificate: Certificate, kind: bytes) -> bytes:
    """Its value; nothing if there is none. Raises ValueError or IndexError if the extensions cannot
    be read."""
    if kind not in certificate.der:
        return b""
    last = certificate.fields[-1]
    if last[0] != _EXTENSIONS:
        return b""
    for extension in elements(content(content(last))):
        name, *_, value = elements(content(extension))
        if content(name) == kind:
            return content(value)
    return b""
