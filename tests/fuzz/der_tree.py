"""Damage to DER that keeps its lengths right, so that it gets past the first few bytes.

A fuzzer that flips bytes of a certificate learns for hours that lengths do not fit. Here it
says which element is to be what.
"""

from dataclasses import dataclass, field

from tests.fuzz.choices import Choices
from tests.lab import der

_CONSTRUCTED = 0x20
_STRINGS = (der.BIT_STRING, 0x04)
_TAGS = bytes([1, 2, 3, 4, 5, 6, 12, 19, 20, 22, 23, 24, 28, 30, 48, 49, 128, 134, 160, 163, 164])
_MOST_EDITS = 8
_MOST_DEPTH = 30
"""Of one edit: eight of these are within what Python's own recursion allows."""
_MOST_BYTES = 65_536


@dataclass
class Element:
    """One DER element. `prefix` stands before the elements in it: in a BIT STRING, the number
    of bits that are not used. `raw` is its content if it holds no elements."""

    tag: int
    inner: "list[Element]" = field(default_factory=list)
    raw: bytes = b""
    prefix: bytes = b""

    def encode(self) -> bytes:
        inner = b"".join(each.encode() for each in self.inner)
        return der.encode(self.tag, self.prefix, inner or self.raw)

    def copy(self) -> "Element":
        return Element(self.tag, [each.copy() for each in self.inner], self.raw, self.prefix)

    def all(self) -> "list[Element]":
        """This one and all in it, the outer before the inner."""
        return [self, *(each for inner in self.inner for each in inner.all())]


def parse(data: bytes) -> Element:
    """`data` is one element of sound DER. Strings that hold DER are taken apart, too."""
    tag, start = data[0], len(data) - _content_size(data)
    content = data[start:]
    if tag & _CONSTRUCTED:
        return Element(tag, [parse(each) for each in der.elements(data)], raw=b"")
    if tag in _STRINGS and content:
        prefix = content[:1] if tag == der.BIT_STRING else b""
        try:
            inner = parse(content[len(prefix) :])
        except (IndexError, RecursionError):
            return Element(tag, raw=content)
        if prefix + inner.encode() == content:
            return Element(tag, [inner], prefix=prefix)
    return Element(tag, raw=content)


def damaged(data: bytes, choices: Choices) -> bytes:
    """`data` with up to 8 elements changed, and perhaps cut off or flipped at the end."""
    tree = parse(data)
    for _ in range(choices.below(_MOST_EDITS + 1)):
        _edit(tree, choices)
    encoded = tree.encode()[:_MOST_BYTES]
    if choices.rarely():
        encoded = encoded[: choices.below(len(encoded) + 1)]
    if choices.rarely():
        at, flipped = choices.below(len(encoded) + 1), choices.take(4)
        encoded = encoded[:at] + flipped + encoded[at + len(flipped) :]
    return encoded


def _edit(tree: Element, choices: Choices) -> None:
    elements = tree.all()
    element, other = choices.pick(elements), choices.pick(elements)
    match choices.below(9):
        case 0:
            element.inner, element.raw = [], choices.some()
        case 1:
            element.tag = choices.pick(_TAGS)
        case 2:
            element.inner = element.inner[:-1]
        case 3:
            element.inner = [*element.inner, *(each.copy() for each in element.inner)]
        case 4:
            element.inner = element.inner[::-1]
        case 5:
            # A copy, because an element in itself would never end.
            element.inner = [*element.inner, other.copy()]
        case 6:
            element.inner, element.raw = [], bytes([choices.below(256)]) * choices.below(20_000)
        case 7:
            for _ in range(choices.below(_MOST_DEPTH)):
                element.inner, element.tag = [element.copy()], der.SEQUENCE
        case 8 if element.raw:
            at = choices.below(len(element.raw))
            element.raw = element.raw[:at] + choices.take(1) + element.raw[at + 1 :]


def _content_size(data: bytes) -> int:
    length = data[1]
    if length & 0x80:
        count = length & 0x7F
        start = 2 + count
        length = int.from_bytes(data[2:start])
    else:
        start = 2
    if start + length != len(data):
        raise IndexError("not one element")
    return length
