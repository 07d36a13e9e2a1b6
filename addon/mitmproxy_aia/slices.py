"""Computing in slices, of which the event loop does one and then, for as long, everything else.

A server can make its completion compute for as long as the limits allow, and many servers as many
completions. If each did its slice whenever the event loop comes round, a round would take as
many slices as there are of them, and all other connections would have to wait that long; and a
single request takes a dozen rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from weakref import WeakKeyDictionary

SHARED = 0.005
"""Seconds of a round of the event loop that are for all moments together."""


async def moment() -> None:
    """Returns when the caller may do something small that a stranger can make take a while, until
    he awaits anything. As many do that in one round of the event loop as fit into `SHARED`, and
    one in any case, in the order of arrival. They wait for nobody who computes in slices."""
    loop = asyncio.get_running_loop()
    moments = _moments.setdefault(loop, _Moments())
    caller = object()
    moments.waiting[caller] = None
    try:
        while moments.spent or next(iter(moments.waiting)) is not caller:  # noqa: ASYNC110 -- for the next round
            await asyncio.sleep(0)
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

    @property
    def spent(self) -> bool:
        return self.began is not None and time.thread_time() - self.began >= SHARED

    def over(self) -> None:
        self.began = None


_moments: WeakKeyDictionary[asyncio.AbstractEventLoop, _Moments] = WeakKeyDictionary()


@contextlib.contextmanager
def at_once(seconds: float) -> Iterator[float]:
    """For those who cannot wait for a turn: what is done in here takes its time from `seconds` that
    all of them have together in a round of the event loop. Gives the time.thread_time() at which
    that is used up, which for who comes last is now."""
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
        yield began + max(0.0, seconds - used)
    finally:
        _used_at_once[loop] = used + time.thread_time() - began


_used_at_once: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""Seconds, in this round."""


class Slices:
    """Of one task in the running event loop, on behalf of `payer`: all who compute for the same one
    have as much together as others have. Before each one await `next()`. Call `over()` in the end,
    whatever happens."""

    def __init__(self, payer: Hashable = None) -> None:
        self._turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
        self._payer = payer
        self._held = False
        self._began = 0.0

    async def next(self) -> None:
        """Returns when it is our turn, at the earliest when the event loop comes round."""
        # Ours lasts until then, so that nobody else begins in the same round.
        await asyncio.sleep(time.thread_time() - self._began if self._held else 0)
        self.over()
        await self._turns.take(self._payer)
        self._held = True
        self._began = time.thread_time()

    def over(self) -> None:
        if self._held:
            self._held = False
            self._turns.give_back()


class _Turns:
    """Those of one event loop. Payers have theirs one after the other, and those of one payer in
    the order of arrival."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, payer: Hashable) -> None:
        if not self._taken:
            self._taken = True
            return
        ours = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(payer, deque()).append(ours)
        try:
            await ours
        except asyncio.CancelledError:
            # It may have become ours in the same round.
            if not ours.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            payer, those = self._waiting.popitem(last=False)
            next_one = those.popleft()
            if those:
                self._waiting[payer] = those
            # Who was cancelled stays until then.
            if not next_one.done():
                next_one.set_result(None)
                return
        self._taken = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
