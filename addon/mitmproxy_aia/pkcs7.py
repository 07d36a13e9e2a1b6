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
_MOST_SMALL = 1_000
"""Of those, and some more for each certificate that there may be: in BER it has three of its own,
and an honest bundle has a dozen besides."""


def certificates_in(data: bytes) -> list[bytes]:
    """What stands in the place of certificates, in its order; maybe nothing. Raises ValueError if
    `data` is not PKCS#7 with signed data. What follows the certificates is not looked at."""
    return _Bundle(data).certificates()


class _Element(NamedTuple):
    """Where one is in the data, and its content. `end` is None if only that will tell."""

    tag: int
    start: int
    begin: int
    end: int | None


class _Bundle:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._small = _MOST_SMALL + 4 * (len(data) // _SMALLEST)

    def certificates(self) -> list[bytes]:
        inside = self._children(self._element(0))
        kind, wrapped = next(inside, None), next(inside, None)
        if kind is None or wrapped is None or self._data[kind.begin : kind.end] != _SIGNED_DATA:
            raise ValueError("is not signed data")
        for signed in self._children(wrapped):
            for element in self._children(signed):
                if element.tag == _CONTEXT_0:
                    return [*self._in_the(element)]
        return []

    def _in_the(self, collection: _Element) -> Iterator[bytes]:
        for element in self._children(collection):
            after = self._after(element)
            if element.tag == _SEQUENCE and after - element.start >= _SMALLEST:
                end = after - len(_END) if element.end is None else element.end
                # What is in it was signed, and so is in DER.
                yield encoded(_SEQUENCE, self._data[element.begin : end])

    def _children(self, parent: _Element) -> Iterator[_Element]:
        position = parent.begin
        while position != parent.end:
            if parent.end is None and self._data.startswith(_END, position):
                return
            child = self._element(position)
            yield child
            position = self._after(child)
            if parent.end is not None and position > parent.end:
                raise ValueError("has an element that is longer than what it is in")

    def _after(self, element: _Element) -> int:
        """Where what follows `element` begins."""
        if element.end is not None:
            return element.end
        position, open_elements = element.begin, 1
        while open_elements:
            if self._data.startswith(_END, position):
                position += len(_END)
                open_elements -= 1
                continue
            inner = self._element(position)
            open_elements += inner.end is None
            position = inner.begin if inner.end is None else inner.end
        return position

    def _element(self, start: int) -> _Element:
        data = self._data
        if len(data) < start + 2:
            raise ValueError("is cut off")
        tag, length = data[start], data[start + 1]
        if tag & _HIGH == _HIGH:
            raise ValueError("has a tag that is not read here")
        begin = start + 2
        end: int | None = None
        if length == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise ValueError("has a length that is not read here")
        else:
            if length > _INDEFINITE:
                begin += length - _INDEFINITE
                length = int.from_bytes(data[start + 2 : begin])
            end = begin + length
            if end > len(data):
                raise ValueError("is cut off")
        if end is None or end - start < _SMALLEST:
            self._small -= 1
            if self._small < 0:
                raise ValueError("has too many elements")
        return _Element(tag, start, begin, end)
