"""One certificate: what it says about itself and about its issuer."""

from __future__ import annotations

import datetime
import functools
import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import AuthorityInformationAccessOID

from mitmproxy_aia import names
from mitmproxy_aia.der import content, elements
from mitmproxy_aia.times import in_der

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

MAX_READABLE = 32 * 1024
"""Bytes of a certificate whose extensions are read: beyond that it could take tens of
milliseconds, which other connections would have to wait."""
MAX_KEPT = 8 * 1024
"""Bytes of a certificate that is kept at hand. Nearly all have less than 2,000, and what
strangers send must not fill the memory."""

# `cryptography` warns of odd serial numbers, names that are too long and the like. That would
# go to the terminal of a user who can do nothing about a stranger's certificate.
warnings.filterwarnings("ignore", module=re.escape(__name__))

_VERSION = 0xA0  # [0] EXPLICIT
UNREADABLE = (
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    KeyError,  # a TLS feature (RFC 7633) that it does not know
    TypeError,  # no TLS feature at all
    ValueError,
)
"""What `cryptography` raises of an extension that it cannot read."""
# InternalError: of a key of Ed25519 that has not 32 bytes, before `cryptography` 45.
_NO_SIGNATURE = (InvalidSignature, InternalError, UnsupportedAlgorithm, TypeError, ValueError)


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate; two are equal if their DER is.

    What is read from it is read once, when first asked for. An extension that cannot be
    parsed counts as absent: it can make a certificate a less likely issuer, never a
    trusted one (that is for `verification` to say).
    """

    der: bytes

    @classmethod
    def from_der(cls, der: bytes) -> Certificate:
        """Raises ValueError if `der` is not exactly one certificate that can be parsed.

        The last ones are kept at hand with what was read from them: a leaf comes again with
        each connection.
        """
        return _read_lately(der) if len(der) <= MAX_KEPT else cls._from_der(der)

    @classmethod
    def _from_der(cls, der: bytes) -> Certificate:
        certificate = cls(der)
        # Parsed now, so that the properties below cannot fail on a name or a date.
        try:
            _ = certificate.x509, certificate.subject, certificate.issuer, certificate.key
            _ = certificate.not_before, certificate.not_after
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return certificate

    @cached_property
    def x509(self) -> x509.Certificate:
        try:
            return x509.load_der_x509_certificate(self.der)
        except x509.InvalidVersion as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def subject(self) -> bytes:
        """The subject in the form in which OpenSSL compares names; see `names.name_key`."""
        return names.key_of(self._names[1], lambda: self.x509.subject)

    @cached_property
    def issuer(self) -> bytes:
        """The issuer's name in the form in which OpenSSL compares names; see `names.name_key`."""
        return names.key_of(self._names[0], lambda: self.x509.issuer, keep=True)

    @cached_property
    def fields(self) -> list[bytes]:
        """Of the TBSCertificate, in DER, from the serial number on (RFC 5280 section 4.1)."""
        fields = elements(content(content(self.der)))
        # The version is absent in certificates of version 1.
        return fields[1:] if fields[0][0] == _VERSION else fields

    @property
    def _names(self) -> tuple[bytes, bytes]:
        """Issuer and subject, in DER."""
        return self.fields[2], self.fields[4]

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer

    @property
    def self_signed(self) -> bool:
        """Whether it is self-issued, and signed by its own key as far as can be told. For what is
        told to people, and what is worth keeping: no trust comes of it."""
        if not self.self_issued:
            return False
        try:
            self.x509.verify_directly_issued_by(self.x509)
        except InvalidSignature:
            return False  # one key of an authority certifies its next one
        except _NO_SIGNATURE:
            pass
        return True

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo, in DER."""
        return self.fields[5]

    @cached_property
    def key(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.public_key).digest()

    @cached_property
    def identity(self) -> tuple[bytes, bytes]:
        """Subject and key: which CA it is (RFC 4158 section 5.2), whoever has certified it."""
        return self.subject, self.key

    @cached_property
    def subject_key_identifier(self) -> bytes | None:
        """RFC 5280 section 4.2.1.2."""
        extension = self._extension(x509.SubjectKeyIdentifier)
        return extension.digest if extension else None

    @cached_property
    def authority_key_identifier(self) -> bytes | None:
        """RFC 5280 section 4.2.1.1; None also when it names the issuer in another way."""
        extension = self._extension(x509.AuthorityKeyIdentifier)
        return extension.key_identifier if extension else None

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Whether the signature is that of the key in `issuer`. For what is told to people: no
        trust comes of it."""
        try:
            self.x509.verify_directly_issued_by(issuer.x509)
        except _NO_SIGNATURE:
            return False
        return True

    @cached_property
    def not_before(self) -> datetime.datetime:
        return self._date(0) if self._foreign else self.x509.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime.datetime:
        return self._date(1) if self._foreign else self.x509.not_valid_after_utc

    @property
    def _foreign(self) -> bool:
        """Whether only OpenSSL can read it, as it may be with a trust anchor."""
        try:
            _ = self.x509
        except ValueError:
            return True
        return False

    def _date(self, position: int) -> datetime.datetime:
        return in_der(elements(content(self.fields[3]))[position])

    @cached_property
    def ca_issuers(self) -> tuple[str, ...]:
        """The caIssuers URLs in their order, of every scheme (RFC 5280 section 4.2.2.1)."""
        extension = self._extension(x509.AuthorityInformationAccess)
        if extension is None:
            return ()
        return tuple(
            dict.fromkeys(
                description.access_location.value.strip()
                for description in extension
                if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS
                and isinstance(description.access_location, x509.UniformResourceIdentifier)
            )
        )

    @cached_property
    def name(self) -> str:
        """The subject for people: `CN=R11`, or the whole name where there is no CN.

        Safe to print: it holds no control characters and has a bounded length.
        """
        return names.short(self._names[1], lambda: self.x509.subject)

    def let_go(self) -> None:
        """Forgets what is large and is there only to read the rest from, after reading what is
        asked of a certificate that is kept."""
        _ = self.name, self.subject_key_identifier
        for read in "x509", "fields":
            self.__dict__.pop(read, None)

    @property
    def bare(self) -> Certificate:
        """The same without what was read from it, which takes several times the room; but for
        name and fingerprint."""
        bare = Certificate(self.der)
        for read in "name", "fingerprint":
            if read in self.__dict__:
                bare.__dict__[read] = self.__dict__[read]
        return bare

    @property
    def issuer_name(self) -> str:
        """The issuer for people, in the same way."""
        return names.short(self._names[0], lambda: self.x509.issuer)

    @property
    def full_name(self) -> str:
        """The subject in full, as RFC 4514 writes it. Not yet safe to print, nor bounded."""
        return names.full(self._names[1], lambda: self.x509.subject)

    @property
    def full_issuer(self) -> str:
        """The same of the issuer."""
        return names.full(self._names[0], lambda: self.x509.issuer)

    def __repr__(self) -> str:
        return f"Certificate({self.name})"

    @property
    def extensions_readable(self) -> bool:
        """False if one of them is damaged (`cryptography` then reads none at all), or if the
        certificate is too large."""
        if len(self.der) > MAX_READABLE:
            return False
        try:
            _ = self.x509.extensions
        except UNREADABLE:
            return False
        return True

    def _extension(self, kind: type[_Extension]) -> _Extension | None:
        if len(self.der) > MAX_READABLE:
            return None
        try:
            return self.x509.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, *UNREADABLE):
            return None


@functools.lru_cache(maxsize=256)
def _read_lately(der: bytes) -> Certificate:
    return Certificate._from_der(der)
