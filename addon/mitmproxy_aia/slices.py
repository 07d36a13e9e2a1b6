"""Computing in slices, of which the event loop does one and then, for as long, everything else.

A server can make its completion compute for as long as the limits allow, and many servers as many
completions. If each did its slice whenever the event loop comes round, a round would take as
many slices as there are of them, and all other connections would have to wait that long; and a
single request takes a dozen rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Hashable, Iterator
from weakref import WeakKeyDictionary

SHARED = 0.005
"""Seconds of a round of the event loop that are for all moments together."""
CRUMB = 0.001
"""Seconds that are enough for an honest chain of which all is known, whatever else has come at the
same moment."""
MAX_PAYERS = 1_000
"""Of whom it is known how much they have computed."""


async def moment() -> None:
    """Returns when the caller may do something small that a stranger can make take a while, until
    he awaits anything. As many do that in one round of the event loop as fit into `SHARED`, and
    one in any case, in the order of arrival; if that was too little for them, everybody else has
    as much time before they go on. They wait for nobody who computes in slices."""
    loop = asyncio.get_running_loop()
    moments = _moments.setdefault(loop, _Moments())
    caller = object()
    moments.waiting[caller] = None
    try:
        while (pause := moments.pause(caller)) is not None:  # noqa: ASYNC110 -- a round is no event
            await asyncio.sleep(pause)
    finally:
        del moments.waiting[caller]
    if moments.began is None:
        moments.began = time.thread_time()
        # Before those who have to wait come to look again.
        loop.call_soon(moments.over)


class _Moments:
    """Those of one event loop. `began` is when the first of this round did, in seconds of
    time.thread_time(), if there was one."""

    def __init__(self) -> None:
        self.waiting: dict[object, None] = {}
        self.began: float | None = None
        self._again = 0.0

    def pause(self, caller: object) -> float | None:
        """For how many seconds `caller` has to wait at least, if he has to."""
        rest = self._again - time.monotonic()
        if rest <= 0 and not self._spent and next(iter(self.waiting)) is caller:
            return None
        return max(0.0, rest)

    @property
    def _spent(self) -> bool:
        return self.began is not None and time.thread_time() - self.began >= SHARED

    def over(self) -> None:
        """Of this round."""
        if self.began is not None and self._spent:
            self._again = time.monotonic() + time.thread_time() - self.began
        self.began = None


_moments: WeakKeyDictionary[asyncio.AbstractEventLoop, _Moments] = WeakKeyDictionary()


@contextlib.contextmanager
def at_once(seconds: float) -> Iterator[float]:
    """For those who cannot wait for a turn: what is done in here takes its time from `seconds` that
    all of them have together in a round of the event loop. Gives the time.thread_time() at which
    that is used up, and for those who come too late their `CRUMB`."""
    began = time.thread_time()
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # nobody has to wait
        yield began + seconds
        return
    used = _used_at_once.get(loop)
    if used is None:
        used = _used_at_once[loop] = 0.0
        loop.call_soon(_used_at_once.pop, loop)
    try:
        yield began + max(CRUMB, seconds - used)
    finally:
        _used_at_once[loop] = used + time.thread_time() - began


_used_at_once: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""Seconds, in this round."""


class Slices:
    """Of one task in the running event loop, on behalf of `payer`. Before each slice await
    `next()`, and call `over()` in the end, whatever happens.

    The payer goes first for whom least has been computed, and of his tasks the one that has
    computed least.
    """

    def __init__(self, payer: Hashable = None) -> None:
        self._turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
        self._payer = payer
        self._used = 0.0
        self._began: float | None = None

    async def next(self) -> None:
        """Returns when it is our turn, at the earliest when the event loop comes round."""
        # Ours lasts until then, so that nobody else begins in the same round.
        used = 0.0 if self._began is None else time.thread_time() - self._began
        await asyncio.sleep(used)
        self._give_back(used)
        await self._turns.take(self._payer, self._used)
        self._began = time.thread_time()

    def over(self) -> None:
        if self._began is not None:
            self._give_back(time.thread_time() - self._began)

    def _give_back(self, used: float) -> None:
        if self._began is not None:
            self._began = None
            self._used += used
            self._turns.give_back(self._payer, used)


class _Turns:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._arrivals = itertools.count()
        # By payer: seconds, order of arrival, and what becomes done.
        self._waiting: dict[Hashable, list[tuple[float, int, asyncio.Future[None]]]] = {}
        # Seconds, since there was last nobody who had to wait.
        self._used: dict[Hashable, float] = {}

    async def take(self, payer: Hashable, used: float) -> None:
        """For a task that has computed for `used` seconds."""
        if not self._taken:
            self._taken = True
            return
        ours = asyncio.get_running_loop().create_future()
        task = used, next(self._arrivals), ours
        heapq.heappush(self._waiting.setdefault(payer, []), task)
        try:
            await ours
        except asyncio.CancelledError:
            # It may have become ours in the same round.
            if not ours.cancelled():
                self.give_back(payer, 0.0)
            raise

    def give_back(self, payer: Hashable, used: float) -> None:
        """`used` are seconds as well."""
        self._used[payer] = self._used.get(payer, 0.0) + used
        if len(self._used) > MAX_PAYERS:
            self._used.clear()
        while self._waiting:
            payer = min(self._waiting, key=lambda each: self._used.get(each, 0.0))
            tasks = self._waiting[payer]
            *_, next_one = heapq.heappop(tasks)
            if not tasks:
                del self._waiting[payer]
            # Who was cancelled stays until then.
            if not next_one.done():
                next_one.set_result(None)
                return
        self._taken = False
        self._used.clear()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
