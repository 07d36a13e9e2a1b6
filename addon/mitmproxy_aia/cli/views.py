"""The certificates of a cache as text: a table, lines for other programs, JSON, one in full."""

from __future__ import annotations

import datetime
import json
import ssl
import sys
from collections.abc import Iterable, Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli.terminal import RED, Column, Line, count, table
from mitmproxy_aia.names import one_line
from mitmproxy_aia.times import iso

SHORT = 8
"""Hexadecimal digits of a fingerprint in a table: enough to name one of 100,000."""
WIDE = 120
"""Columns of a terminal that has room for the issuer."""
FIELDS = (
    "sha256",
    "subject",
    "issuer",
    "not_before",
    "not_after",
    "key_identifier",
    "origin",
    "first_used",
    "last_used",
)
"""Of a line for other programs, and the keys in JSON."""


def as_table(entries: Iterable[Entry], now: datetime.datetime, width: int) -> Iterator[str]:
    """The lines of a table for a terminal of `width` columns, with a summary at the end."""
    columns = [Column("SHA-256"), Column("SUBJECT", least=8)]
    if width >= WIDE:
        columns.append(Column("ISSUER", least=24))
    columns += [Column("NOT AFTER"), Column("LAST USE"), Column("ORIGIN", least=16)]
    listed = expired = 0

    def lines() -> Iterator[Line]:
        nonlocal listed, expired
        for entry in entries:
            certificate = entry.certificate
            over = certificate.not_after < now
            listed += 1
            expired += over
            issuer = [_short(certificate.full_issuer)] if width >= WIDE else []
            yield Line(
                [
                    certificate.fingerprint.hex()[:SHORT],
                    _short(certificate.name),
                    *issuer,
                    certificate.not_after.date().isoformat() + ("!" if over else " "),
                    entry.last_used.date().isoformat(),
                    one_line(entry.origin.removeprefix("http://")),
                ],
                RED if over else "",
            )

    yield from table(columns, lines(), sys.stdout)
    yield ""
    yield count(listed, "certificate") + (f", {expired:,} expired (!)" if expired else "")


def as_line(entry: Entry) -> str:
    """The `FIELDS` with tabs between them, all in full. No field holds a tab or a newline."""
    return "\t".join(one_line(str(value or "")) for value in as_fields(entry).values())


def as_json(entry: Entry, **more: str) -> str:
    """One object, in one line of ASCII: whatever is in a name, it is no control character."""
    return json.dumps(as_fields(entry) | more)


def as_fields(entry: Entry) -> dict[str, str | None]:
    """The `FIELDS`: fingerprints in hexadecimal, names as in RFC 4514, times in UTC."""
    certificate = entry.certificate
    key_identifier = certificate.subject_key_identifier
    values = (
        certificate.fingerprint.hex(),
        certificate.full_name,
        certificate.full_issuer,
        iso(certificate.not_before),
        iso(certificate.not_after),
        None if key_identifier is None else key_identifier.hex(),
        entry.origin,
        iso(entry.first_used),
        iso(entry.last_used),
    )
    return dict(zip(FIELDS, values, strict=True))


def in_full(entry: Entry, now: datetime.datetime) -> Iterator[str]:
    """All that a person may want to know of one certificate, and its PEM."""
    certificate = entry.certificate
    key_identifier = certificate.subject_key_identifier
    issuers_key = certificate.authority_key_identifier
    facts = {
        "Subject": certificate.full_name,
        "Issuer": certificate.full_issuer,
        "SHA-256": certificate.fingerprint.hex(),
        "Serial number": f"{certificate.x509.serial_number:x}",
        "Not before": iso(certificate.not_before),
        "Not after": iso(certificate.not_after)
        + (" (expired)" if certificate.not_after < now else ""),
        "Key": _key(certificate),
        "Key id": key_identifier.hex() if key_identifier else "none",
        "Issuer key id": issuers_key.hex() if issuers_key else "none",
        "caIssuers": " ".join(certificate.ca_issuers) or "none",
        "Origin": entry.origin,
        "First use": iso(entry.first_used),
        "Last use": iso(entry.last_used),
    }
    # A fingerprint has just room in a line of 80 columns.
    for name, value in facts.items():
        yield f"{name + ':':14} {one_line(value)}"
    yield ""
    yield pem(certificate)


def summary(entry: Entry) -> str:
    """One certificate in one line, to tell it from others."""
    certificate = entry.certificate
    short, until = certificate.fingerprint.hex()[: 2 * SHORT], certificate.not_after.date()
    return f"{short}  {until}  {one_line(certificate.full_name)}"


def pem(certificate: Certificate) -> str:
    """Without the newline at its end."""
    return ssl.DER_cert_to_PEM_cert(certificate.der).rstrip()


def _short(name: str) -> str:
    return one_line(name.removeprefix("CN="))


def _key(certificate: Certificate) -> str:
    try:
        key = certificate.x509.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "of a kind that cannot be read"
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        kind = "RSA" if isinstance(key, rsa.RSAPublicKey) else "DSA"
        return f"{kind}, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC, {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")
