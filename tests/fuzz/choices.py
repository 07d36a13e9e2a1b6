"""Decisions drawn from bytes: what a fuzzer mutates becomes what a target does."""

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Choices:
    """Reads from the front of `data`. When that is used up, all that follows is 0, so that
    every loop over choices ends, and a shorter input means something simpler."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is something left."""
        return self._at < len(self._data)

    def below(self, limit: int) -> int:
        """0 to `limit` - 1."""
        size = (max(limit - 1, 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(size)) % limit

    def flag(self) -> bool:
        return self.below(2) == 1

    def rarely(self) -> bool:
        """Once in 16 times."""
        return self.below(16) == 15

    def pick(self, among: Sequence[_T]) -> _T:
        return among[self.below(len(among))]

    def several(self, among: Sequence[_T], most: int) -> list[_T]:
        """Up to `most`, perhaps the same more than once, in any order."""
        return [self.pick(among) for _ in range(self.below(most + 1))]

    def take(self, size: int) -> bytes:
        """Fewer bytes if there are no more."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def some(self) -> bytes:
        """Up to 255 bytes; the first says how many."""
        return self.take(self.below(256))

    def rest(self) -> bytes:
        return self.take(len(self._data))
