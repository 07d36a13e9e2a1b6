"""Just enough DER to find an element in a certificate, and to write one."""

from __future__ import annotations

_LONG = 0x80
"""The length is in so many bytes that follow (X.690 8.1.3.5)."""
_HIGH = 0x1F
"""The tag is in bytes that follow (X.690 8.1.2.4). No certificate has such."""
_IN_PARTS = frozenset({*range(0x20, 0x40)} - {0x30, 0x31})
"""Universal tags of what is made of several elements, but for SEQUENCE and SET: in BER a string may
be cut into pieces (X.690 8.7.3)."""


MAX_ELEMENTS = 200
"""In a row. There may be thousands in a certificate, which would take milliseconds."""


def elements(data: bytes) -> list[bytes]:
    """The DER elements that follow each other in `data`. Raises ValueError, also of BER."""
    found, start = list[bytes](), 0
    while start < len(data):
        if len(found) == MAX_ELEMENTS:
            raise ValueError("has too many elements")
        end = _header(data, start)[1]
        found.append(data[start:end])
        start = end
    return found


def content(element: bytes) -> bytes:
    start, end = _header(element)
    return element[start:end]


def encoded(tag: int, inside: bytes) -> bytes:
    """The element with that content."""
    size = len(inside)
    if size < _LONG:
        return bytes([tag, size]) + inside
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, _LONG | len(length)]) + length + inside


def _header(data: bytes, start: int = 0) -> tuple[int, int]:
    """Where the content of the DER element at `start` begins and ends."""
    if len(data) < start + 2:
        raise ValueError("is cut off")
    if data[start] & _HIGH == _HIGH or data[start] in _IN_PARTS:
        raise ValueError("has a tag that is not read here")
    begin, length = start + 2, data[start + 1]
    if length & _LONG:
        begin += length & ~_LONG
        length = int.from_bytes(data[start + 2 : begin])
        # What BER has besides: lengths that come at the end, or with more bytes than they take.
        if length < _LONG or not data[start + 2]:
            raise ValueError("is not DER")
    if begin + length > len(data):
        raise ValueError("is cut off")
    return begin, begin + length
