"""The certificates in PKCS#7 certs-only (RFC 5652 sections 3 and 5.1), in DER or BER.

OpenSSL, which `cryptography` asks, decodes the keys of all of them, and no other thread runs
meanwhile. There are keys that take it 90 ms each. Here nothing is looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mitmproxy_aia.der import encoded

_SEQUENCE = 0x30
_CONTEXT_0 = 0xA0
_CONSTRUCTED = 0x20
_HIGH = 0x1F
"""The tag is in bytes that follow (X.690 8.1.2.4)."""
_INDEFINITE = 0x80
"""In place of a length: the content goes on until `_END` (X.690 8.1.3.6)."""
_END = b"\x00\x00"
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_SMALLEST = 128
"""Bytes. No certificate has less, and there may be thousands of elements that have."""


def certificates_in(data: bytes) -> list[bytes]:
    """What stands in the place of certificates, in its order; maybe nothing. Raises ValueError if
    `data` is not PKCS#7 with signed data. What follows the certificates is not looked at."""
    inside = _children(data, _element(data, 0))
    kind, wrapped = next(inside, None), next(inside, None)
    if kind is None or wrapped is None or data[kind.begin : kind.end] != _SIGNED_DATA:
        raise ValueError("is not signed data")
    for signed in _children(data, wrapped):
        for element in _children(data, signed):
            if element.tag == _CONTEXT_0:
                return [*_certificates(data, element)]
    return []


class _Element(NamedTuple):
    """Where one is in the data, and its content. `end` is None if only that will tell."""

    tag: int
    start: int
    begin: int
    end: int | None


def _certificates(data: bytes, collection: _Element) -> Iterator[bytes]:
    for element in _children(data, collection):
        after = _after(data, element)
        if element.tag == _SEQUENCE and after - element.start >= _SMALLEST:
            end = after - len(_END) if element.end is None else element.end
            # What is in it was signed, and so is in DER.
            yield encoded(_SEQUENCE, data[element.begin : end])


def _children(data: bytes, parent: _Element) -> Iterator[_Element]:
    position = parent.begin
    while position != parent.end:
        if parent.end is None and data.startswith(_END, position):
            return
        child = _element(data, position)
        yield child
        position = _after(data, child)
        if parent.end is not None and position > parent.end:
            raise ValueError("has an element that is longer than what it is in")


def _after(data: bytes, element: _Element) -> int:
    """Where what follows `element` begins."""
    if element.end is not None:
        return element.end
    position, open_elements = element.begin, 1
    while open_elements:
        if data.startswith(_END, position):
            position += len(_END)
            open_elements -= 1
            continue
        inner = _element(data, position)
        open_elements += inner.end is None
        position = inner.begin if inner.end is None else inner.end
    return position


def _element(data: bytes, start: int) -> _Element:
    if len(data) < start + 2:
        raise ValueError("is cut off")
    tag, length = data[start], data[start + 1]
    if tag & _HIGH == _HIGH:
        raise ValueError("has a tag that is not read here")
    begin = start + 2
    if length == _INDEFINITE:
        if not tag & _CONSTRUCTED:
            raise ValueError("has a length that is not read here")
        return _Element(tag, start, begin, None)
    if length > _INDEFINITE:
        begin += length - _INDEFINITE
        length = int.from_bytes(data[start + 2 : begin])
    if begin + length > len(data):
        raise ValueError("is cut off")
    return _Element(tag, start, begin, begin + length)
