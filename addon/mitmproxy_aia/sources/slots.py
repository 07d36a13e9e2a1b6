"""Fair shares: how much may be under way at the same time, for whom, and to where.

Whoever presents hanging URLs uses up his own share, and others do not wait for him.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Hashable


class Place:
    """One place, taken (`entered`) or waited for. One of `payers` has it on its account. `number`
    is the order of arrival."""

    def __init__(self, number: int, payer: Hashable, target: Hashable) -> None:
        self.number = number
        self.payers: dict[Hashable, None] = {payer: None}
        self.target = target
        self.entered = asyncio.Event()
        self.charged: Hashable = None
        self.held = False


class Slots:
    """At most `total` places, `each` for one payer, and `at_one` for one target.

    Of those who wait, who has the least is let in first, and among equals who came first. The last
    quarter of the places, of all and of those for a target, is for those who have a quarter of
    their share at most, and the last eighth for those who have none: all that is taken may hang
    for long. Not more than `queue` places are waited for on one payer's account.
    """

    def __init__(self, total: int, each: int, at_one: int, queue: int) -> None:
        self._total = self._free = total
        self._each = each
        self._at_one = at_one
        self._queue = queue
        self._numbers = itertools.count()
        self._payers: Counter[Hashable] = Counter()
        self._targets: Counter[Hashable] = Counter()
        # By target, since all who wait for one may have to wait.
        self._waiting: dict[Hashable, dict[Place, None]] = {}
        self._in_line: Counter[Hashable] = Counter()

    def ask(self, payer: Hashable, target: Hashable) -> Place | None:
        """A place, taken at once if there is one; None if too many are waited for."""
        if self._in_line[payer] >= self._queue:
            return None
        place = Place(next(self._numbers), payer, target)
        self._waiting.setdefault(target, {})[place] = None
        self._in_line[payer] += 1
        self._let_in()
        return place

    def share(self, place: Place, payer: Hashable) -> None:
        """`payer` wants the same: it need not wait for others who wanted it first."""
        if self._waits(place) and payer not in place.payers:
            place.payers[payer] = None
            self._in_line[payer] += 1
            self._let_in()

    def give_back(self, place: Place) -> None:
        """Ends it, or the waiting for it."""
        if self._waits(place):
            self._leave_line(place)
        elif place.held:
            place.held = False
            self._free += 1
            _less(self._payers, place.charged)
            _less(self._targets, place.target)
            self._let_in()

    def _let_in(self) -> None:
        while self._free and (first := self._first_in_line()) is not None:
            place, payer = first
            self._leave_line(place)
            self._free -= 1
            self._payers[payer] += 1
            self._targets[place.target] += 1
            place.charged, place.held = payer, True
            place.entered.set()

    def _first_in_line(self) -> tuple[Place, Hashable] | None:
        """And on whose account. None if nobody who waits may have more."""
        first, best = None, (self._each, 0)
        for target, places in self._waiting.items():
            if not (most := self._most(target)):
                continue
            for place in places:
                for payer in place.payers:
                    rank = self._payers.get(payer, 0), place.number
                    if rank[0] < most and rank < best:
                        first, best = (place, payer), rank
        return first

    def _most(self, target: Hashable) -> int:
        """With how much a payer is not let in to `target` any more."""
        free_there = self._at_one - self._targets.get(target, 0)
        return min(self._allowed(self._free, self._total), self._allowed(free_there, self._at_one))

    def _allowed(self, free: int, total: int) -> int:
        if free > total // 4:
            return self._each
        if free > total // 8:
            return max(1, self._each // 4)
        return min(1, free)

    def _waits(self, place: Place) -> bool:
        return place in self._waiting.get(place.target, {})

    def _leave_line(self, place: Place) -> None:
        waiting = self._waiting[place.target]
        del waiting[place]
        if not waiting:
            del self._waiting[place.target]
        for payer in place.payers:
            _less(self._in_line, payer)


def _less(counter: Counter[Hashable], who: Hashable) -> None:
    """Takes one off. Counters keep zeros, and there are many strangers."""
    counter[who] -= 1
    if not counter[who]:
        del counter[who]
