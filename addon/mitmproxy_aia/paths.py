"""Path building: from a leaf and candidate issuers to the paths worth judging, in order.

RFC 4158 section 2.4 explained to a colleague: a path is grown from the leaf upwards. The
issuers of its last certificate are the candidates that carry the right name; each of them
makes a longer path. We walk that tree depth first, likeliest branch first, and never come
back to a key that is on the path already (section 5.2), so two CAs that certify each other
do not send us round in circles. Nothing is checked here: no signature, no date. Whoever
judges the paths says which are worth growing further.
"""

from __future__ import annotations

import datetime
from collections.abc import Generator, Iterable
from enum import IntEnum

from mitmproxy_aia.certificates import Certificate

Path = tuple[Certificate, ...]
"""Leaf first; each certificate is (by name) issued by the one after it."""

MAX_PATH_LENGTH = 32
"""Certificates in a path. Real ones have five at most."""


class KeyMatch(IntEnum):
    """What the key identifiers say of a candidate issuer, likeliest first (RFC 4158 3.5.1)."""

    MATCH = 0
    UNKNOWN = 1
    MISMATCH = 2


class Candidates:
    """Certificates that may be issuers, found by their subject. Each is held once."""

    def __init__(self, certificates: Iterable[Certificate] = ()) -> None:
        self._by_subject: dict[bytes, list[Certificate]] = {}
        self._all: set[Certificate] = set()
        for certificate in certificates:
            self.add(certificate)

    def add(self, certificate: Certificate) -> bool:
        """Returns whether it is new."""
        if certificate in self._all:
            return False
        self._all.add(certificate)
        self._by_subject.setdefault(certificate.subject, []).append(certificate)
        return True

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate in self._all

    def issuers(self, certificate: Certificate) -> list[Certificate]:
        """Those whose name is the issuer's name of `certificate`, likeliest first."""
        named = self._by_subject.get(certificate.issuer, ())
        return sorted(named, key=lambda issuer: likelihood(certificate, issuer))


def key_match(certificate: Certificate, issuer: Certificate) -> KeyMatch:
    """Compares the issuer's key identifier with the one that `certificate` asks for."""
    wanted, offered = certificate.authority_key_identifier, issuer.subject_key_identifier
    if wanted is None or offered is None:
        return KeyMatch.UNKNOWN
    return KeyMatch.MATCH if wanted == offered else KeyMatch.MISMATCH


def likelihood(
    certificate: Certificate, issuer: Certificate
) -> tuple[KeyMatch, bool, datetime.timedelta]:
    """A sort key; the likeliest issuer of `certificate` sorts first.

    BoringSSL's order (pki/path_builder.cc): key identifier match, then not self-issued (a
    presented root is never what is missing), then the newest validity.
    """
    age = _LATEST - issuer.not_before
    return key_match(certificate, issuer), issuer.self_issued, age


_LATEST = datetime.datetime.max.replace(tzinfo=datetime.UTC)


def paths(leaf: Certificate, candidates: Candidates) -> Generator[Path, bool, None]:
    """Every simple path upwards from `leaf` over `candidates`, each prefix before the paths
    that grow from it.

    After each path, send whether it is worth growing: `paths.send(True)` goes on with the
    issuers of its last certificate, `False` turns to the next branch.
    """
    if (yield (leaf,)):
        yield from _grow((leaf,), frozenset({_identity(leaf)}), candidates)


def _grow(
    path: Path, used: frozenset[tuple[bytes, bytes]], candidates: Candidates
) -> Generator[Path, bool, None]:
    if len(path) == MAX_PATH_LENGTH:
        return
    for issuer in candidates.issuers(path[-1]):
        identity = _identity(issuer)
        if identity in used:
            continue
        longer = (*path, issuer)
        if (yield longer):
            yield from _grow(longer, used | {identity}, candidates)


def _identity(certificate: Certificate) -> tuple[bytes, bytes]:
    return certificate.subject, certificate.key
