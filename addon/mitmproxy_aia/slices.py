"""Computing in slices, of which the event loop does one and then everything else.

A server can make its completion compute for as long as the limits allow, and many servers as many
completions. If each did its slice whenever the event loop comes round, a round would take as
many slices as there are of them, and all other connections would have to wait that long.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

_Locks = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]

_slices: _Locks = WeakKeyDictionary()
# Downloads are not to wait for those who compute for long.
_turns: _Locks = WeakKeyDictionary()


async def turn() -> None:
    """Returns when it is the caller's turn for a moment, which lasts until he awaits anything: one
    in each round of the event loop, in the order of arrival."""
    lock = _lock(_turns)
    await lock.acquire()
    # In the next round, whatever the caller does or awaits meanwhile.
    asyncio.get_running_loop().call_soon(lock.release)


def _lock(locks: _Locks) -> asyncio.Lock:
    return locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class Slices:
    """Of one task in the running event loop. The first one may be begun at once; before each
    other one await `next()`. Call `over()` in the end, whatever happens."""

    def __init__(self) -> None:
        self._lock = _lock(_slices)
        self._held = False

    async def next(self) -> None:
        """Returns when it is our turn, at the earliest when the event loop comes round."""
        # Ours lasts until then, so that nobody else begins in the same round.
        await asyncio.sleep(0)
        self.over()
        # Who waits gets it in the order of arrival.
        await self._lock.acquire()
        self._held = True

    def over(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()
