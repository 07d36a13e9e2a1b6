"""Just enough DER to find an element in a certificate."""

from __future__ import annotations


def elements(data: bytes) -> list[bytes]:
    """The DER elements that follow each other in `data`. Raises ValueError."""
    found, start = [], 0
    while start < len(data):
        end = _header(data, start)[1]
        found.append(data[start:end])
        start = end
    return found


def content(element: bytes) -> bytes:
    start, end = _header(element)
    return element[start:end]


def _header(data: bytes, start: int = 0) -> tuple[int, int]:
    """Where the content of the DER element at `start` begins and ends."""
    if len(data) < start + 2:
        raise ValueError("is cut off")
    begin, length = start + 2, data[start + 1]
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[start + 2 : begin])
    if begin + length > len(data):
        raise ValueError("is cut off")
    return begin, begin + length
