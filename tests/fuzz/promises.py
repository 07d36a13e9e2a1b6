"""What targets share: promises about texts, certificates and OpenSSL."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from OpenSSL import SSL, crypto

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import printable
from mitmproxy_aia.rehearsal import at_level
from mitmproxy_aia.verification import Verifier

_lib: Any = SSL._lib  # type: ignore[attr-defined]

MOST_TEXT = 2_048
"""Characters of one text about one thing: 200 of a stranger's, each of which may be written as
an escape of ten, and some words of ours."""
SECONDS, SECONDS_PER_BYTE = 2.0, 0.000_05
"""CPU time. Far beyond what anything takes: who finds more has found something that grows
faster than its input."""


class Broken(AssertionError):
    """A promise was not kept."""


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise Broken(what)


def one_line(text: str, most: int = MOST_TEXT) -> None:
    """Fit for a log, whoever wrote it."""
    promise(text.isprintable(), f"cannot be printed on one line: {text[:500]!r}")
    promise(len(text) <= most, f"has {len(text)} characters: {text[:500]!r}")


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """What is done with `size` bytes takes a time in proportion to it."""
    started = time.thread_time()
    yield
    spent = time.thread_time() - started
    promise(spent <= SECONDS + SECONDS_PER_BYTE * size, f"{spent:.1f} s for {size} bytes")


def sound(certificate: Certificate, verifier: Verifier) -> None:
    """Everything may be asked of a certificate that was read, and all of it is bounded. OpenSSL
    may be asked about it, too, and nothing of that is left in its error queue."""
    der = certificate.der
    one_line(certificate.name)
    one_line(repr(certificate))
    for name in certificate.subject, certificate.issuer:
        promise(len(name) <= 64 * len(der) + 64, f"a name of {len(name)} bytes")
    promise(certificate.self_issued == (certificate.subject == certificate.issuer), "self_issued")
    promise(len(certificate.key) == len(certificate.fingerprint) == 32, "no SHA-256")
    for moment in certificate.not_before, certificate.not_after:
        promise(moment.tzinfo is datetime.UTC, "a time without a zone")
    for identifier in certificate.subject_key_identifier, certificate.authority_key_identifier:
        promise(identifier is None or len(identifier) <= len(der), "an identifier out of nowhere")
    urls = certificate.ca_issuers
    promise(sum(map(len, urls)) <= len(der), "URLs out of nowhere")
    promise(len(set(urls)) == len(urls), "a URL twice")
    promise(not urls or certificate.extensions_readable, "URLs in what cannot be read")
    for url in urls:
        one_line(printable(url))

    again = Certificate.from_der(der)
    promise(again == certificate and hash(again) == hash(certificate), "is not equal to itself")
    for attribute in ("subject", "issuer", "key", "name", "ca_issuers", "not_before", "not_after"):
        promise(getattr(again, attribute) == getattr(certificate, attribute), attribute)
    promise(read_certificates(der) == (certificate,), "its DER is read as something else")
    promise(read_certificates(_pem(der)) == (certificate,), "its PEM is read as something else")

    for fault in verifier.fault_above(certificate), verifier.step(certificate, certificate):
        if fault is not None:
            one_line(fault.text)
    verdict = verifier.judge((certificate,))
    promise((verdict.verified is None) != (verdict.fault is None), "neither verified nor faulty")
    promise(_lib.ERR_peek_error() == 0, "something is left in OpenSSL's error queue")


def empty_verifier() -> Verifier:
    """Nothing is trusted."""
    return Verifier(crypto.X509Store(), ciphers=at_level(2))


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()
