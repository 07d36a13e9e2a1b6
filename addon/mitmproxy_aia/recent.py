"""What happened lately: a bounded table of things and when they were added."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Hashable


class Recent:
    """What was added not more than `seconds` ago; the last `capacity` of it."""

    def __init__(self, capacity: int, seconds: float = math.inf) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._added: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, what: Hashable) -> bool:
        added = self._added.get(what)
        return added is not None and time.monotonic() - added < self._seconds

    def clear(self) -> None:
        self._added.clear()

    def add(self, what: Hashable) -> None:
        self._added[what] = time.monotonic()
        self._added.move_to_end(what)
        if len(self._added) > self._capacity:
            self._added.popitem(last=False)
