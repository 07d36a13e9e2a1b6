"""Bytes to certificates, and what a certificate says about its issuer."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Name
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from mitmproxy_aia.der import content, elements

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

MAX_NAME_CHARACTERS = 200
MAX_READABLE = 32 * 1024
"""Bytes of a certificate whose extensions are read: beyond that it could take tens of
milliseconds, which other connections would have to wait."""
MAX_KEPT = 8 * 1024
"""Bytes of a certificate that is kept at hand. Nearly all have less than 2,000, and what
strangers send must not fill the memory."""
MAX_NAME_BYTES = 4_096
"""A name may fill a whole certificate, and takes a hundred times as long to read as others."""
MAX_KEPT_NAME = 512
"""Bytes of a name whose key is kept. Nearly all have less than 200."""
KEPT_NAMES = 1_000

# `cryptography` warns of odd serial numbers, names that are too long and the like. That would
# go to the terminal of a user who can do nothing about a stranger's certificate.
warnings.filterwarnings("ignore", module=re.escape(__name__))

_PEM_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9# ]+)-----(?P<body>[^-]*)-----END (?P=label)-----"
)
_PEM_LABELS = frozenset(
    {b"CERTIFICATE", b"X509 CERTIFICATE", b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA"}
)
_VERSION = 0xA0  # [0] EXPLICIT
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


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
        except (x509.InvalidVersion, KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return certificate

    @cached_property
    def x509(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def subject(self) -> bytes:
        """The subject in the form in which OpenSSL compares names; see `name_key`."""
        return _key_of(self._names[1], lambda: self.x509.subject)

    @cached_property
    def issuer(self) -> bytes:
        """The issuer's name in the form in which OpenSSL compares names; see `name_key`."""
        return _key_of(self._names[0], lambda: self.x509.issuer, keep=True)

    @property
    def _subject_name(self) -> Name | None:
        return _read_name(self._names[1], lambda: self.x509.subject)

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
        except (UnsupportedAlgorithm, TypeError, ValueError):
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
        except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
            return False
        return True

    @cached_property
    def not_before(self) -> datetime.datetime:
        return self.x509.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime.datetime:
        return self.x509.not_valid_after_utc

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
        name = self._subject_name
        return display_name(name) if name is not None else _unreadable(self._names[1])

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
        name = _read_name(self._names[0], lambda: self.x509.issuer)
        return display_name(name) if name is not None else _unreadable(self._names[0])

    @property
    def full_name(self) -> str:
        """The subject in full, as RFC 4514 writes it. Not yet safe to print, nor bounded."""
        return _full_name(self._names[1], lambda: self.x509.subject)

    @property
    def full_issuer(self) -> str:
        """The same of the issuer."""
        return _full_name(self._names[0], lambda: self.x509.issuer)

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
        except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
            return False
        return True

    def _extension(self, kind: type[_Extension]) -> _Extension | None:
        if len(self.der) > MAX_READABLE:
            return None
        try:
            return self.x509.extensions.get_extension_for_class(kind).value
        except (
            x509.ExtensionNotFound,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
            ValueError,
        ):
            return None


@functools.lru_cache(maxsize=256)
def _read_lately(der: bytes) -> Certificate:
    return Certificate._from_der(der)


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
    # With all that it imports for e-mails, which nobody waits for who never needs it.
    from cryptography.hazmat.primitives.serialization import pkcs7

    try:
        bundle = pkcs7.load_der_pkcs7_certificates(data)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise ValueError(f"is a damaged certificate ({damage})") from damage
    found = tuple(dict.fromkeys(_readable(bundle)))
    if not found:
        raise ValueError("is PKCS#7 without a certificate")
    return found


def _readable(bundle: list[x509.Certificate]) -> Iterator[Certificate]:
    for certificate in bundle:
        try:
            yield Certificate.from_der(certificate.public_bytes(Encoding.DER))
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


def name_key(name: x509.Name) -> bytes:
    """A distinguished name in a form that is equal where OpenSSL would call two names equal:
    letter case (ASCII), runs of spaces and the kind of string do not matter.

    See x509_name_canon() in OpenSSL's crypto/x509/x_name.c and RFC 5280 section 7.1.
    """
    return repr(
        [
            sorted((attribute.oid.dotted_string, _fold(attribute.value)) for attribute in rdn)
            for rdn in name.rdns
        ]
    ).encode()


def _read_name(der: bytes, read: Callable[[], x509.Name]) -> x509.Name | None:
    """None if the name is too long to be an honest one, or not in its type's encoding."""
    if len(der) > MAX_NAME_BYTES:
        return None
    try:
        return read()
    except ValueError:
        return None


_keys: dict[bytes, bytes] = {}
"""Of issuers' names, by their DER, the oldest first: all that an authority has issued has the same
bytes for its name, and so most often has its own certificate."""
_changing_keys = threading.Lock()


def _key_of(der: bytes, read: Callable[[], x509.Name], *, keep: bool = False) -> bytes:
    """The key of a name (see `name_key`), which `read` takes apart; kept if that could be done."""
    if (key := _keys.get(der)) is not None:
        return key
    name = _read_name(der, read)
    if name is None:
        return _opaque(der)
    key = name_key(name)
    if keep and len(der) <= MAX_KEPT_NAME:
        with _changing_keys:
            _keys[der] = key
            if len(_keys) > KEPT_NAMES:
                del _keys[next(iter(_keys))]
    return key


def _opaque(name: bytes) -> bytes:
    """A name that cannot be read is equal only to itself."""
    return b"DER " + hashlib.sha256(name).digest()


def _fold(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return " ".join(value.split()).translate(_ASCII_LOWER)


def display_name(name: x509.Name) -> str:
    """A name for people; see `Certificate.name`."""
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = f"CN={common_names[-1].value!s}" if common_names else name.rfc4514_string()
    return printable(text or "(empty name)")


def _full_name(der: bytes, read: Callable[[], Name]) -> str:
    name = _read_name(der, read)
    return _unreadable(der) if name is None else name.rfc4514_string() or "(empty name)"


def _unreadable(name: bytes) -> str:
    return f"(a name of {len(name)} bytes that cannot be read)"


def printable(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """`text` from a stranger, fit for one line of a log: control characters are written as
    escapes and what is beyond `limit` characters is cut."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
