"""Names in certificates: when two are equal, and how they are shown to people.

A name comes as its DER, by which it is known again, and as a function that has it taken apart.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from cryptography import x509
from cryptography.x509.oid import NameOID

MAX_NAME_CHARACTERS = 200
MAX_NAME_BYTES = 4_096
"""A name may fill a whole certificate, and takes a hundred times as long to read as others."""
MAX_KEPT_NAME = 512
"""Bytes of a name whose key is kept. Nearly all have less than 200."""
KEPT_NAMES = 1_000

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


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


def _read(der: bytes, read: Callable[[], x509.Name]) -> x509.Name | None:
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


def key_of(der: bytes, read: Callable[[], x509.Name], *, keep: bool = False) -> bytes:
    """The key of a name (see `name_key`), which `read` takes apart; kept if that could be done."""
    if (key := _keys.get(der)) is not None:
        return key
    name = _read(der, read)
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


def short(der: bytes, read: Callable[[], x509.Name]) -> str:
    """A name for people, on one line; see `Certificate.name`."""
    name = _read(der, read)
    if name is None:
        return _unreadable(der)
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = f"CN={common_names[-1].value!s}" if common_names else name.rfc4514_string()
    return printable(text or "(empty name)")


def full(der: bytes, read: Callable[[], x509.Name]) -> str:
    """The whole name for people; see `Certificate.full_name`."""
    name = _read(der, read)
    return _unreadable(der) if name is None else name.rfc4514_string() or "(empty name)"


def _unreadable(der: bytes) -> str:
    return f"(a name of {len(der)} bytes that cannot be read)"


def printable(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """`text` from a stranger, fit for one line of a log: control characters are written as
    escapes and what is beyond `limit` characters is cut."""
    text = cut(text, limit)
    return text if text.isprintable() else cut(one_line(text), limit)


def one_line(text: str) -> str:
    """All of `text`, without control characters."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def cut(text: str, limit: int) -> str:
    """`text`, or as many characters of it as may be, the last of them "…"."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
