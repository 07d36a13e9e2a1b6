"""Just enough ASN.1 to write what `cryptography` declines to write.

It reads and writes DER elements with one-byte tags, and writes the indefinite lengths that
BER has and DER has not.
"""

INTEGER = 0x02
BIT_STRING = 0x03
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30
SET = 0x31
CONTEXT_0 = 0xA0


def encode(tag: int, *contents: bytes) -> bytes:
    """One element: tag, definite length, contents."""
    body = b"".join(contents)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def encode_indefinite(tag: int, *contents: bytes) -> bytes:
    """The same element as BER may write it: no length, and two zero bytes at the end."""
    return bytes([tag, 0x80]) + b"".join(contents) + b"\x00\x00"


def elements(der: bytes) -> list[bytes]:
    """The complete elements (tag and length included) inside a constructed DER element."""
    start, end = _extent(der, 0)
    found = []
    while start < end:
        after = _extent(der, start)[1]
        found.append(der[start:after])
        start = after
    return found


def _extent(der: bytes, offset: int) -> tuple[int, int]:
    """Where the contents of the element at `offset` start and end."""
    first = der[offset + 1]
    start = offset + 2
    if first < 0x80:
        return start, start + first
    count = first & 0x7F
    size = int.from_bytes(der[start : start + count], "big")
    return start + count, start + count + size
