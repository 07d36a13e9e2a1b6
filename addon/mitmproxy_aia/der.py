"""Just enough DER to find an element in a certificate."""

from __future__ import annotations


def elements(data: bytes) -> list[bytes]:
    """The DER elements that follow each other in `data`. Raises ValueError."""
    found = []
    while data:
        end = _header(data)[1]
        found.append(data[:end])
        data = data[end:]
    return found


def content(element: bytes) -> bytes:
    start, end = _header(element)
    return element[start:end]


def _header(element: bytes) -> tuple[int, int]:
    """Where the content of a DER element begins and ends."""
    if len(element) < 2:
        raise ValueError("is cut off")
    start, length = 2, element[1]
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(element[2:start])
    if start + length > len(element):
        raise ValueError("is cut off")
    return start, start + length
