"""An event loop in which waiting takes no time, and waiting for nothing is found out."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from mitmproxy_aia import completion
from mitmproxy_aia.sources import aia
from tests.fuzz.promises import Broken


class Clock:
    """Stands in for the module `time` where the addon measures its waiting."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._computed = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        # The same on every machine, so that what is found is found again.
        self._computed += 0.001
        return self._computed


class Loop(asyncio.SelectorEventLoop):
    """Where the ordinary loop would sleep, this one moves `clock`. `complaints` are what the
    loop has to say about exceptions that nobody has caught."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._clock.now

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Broken("waits for something that can never happen")
        self._clock.now += max(timeout, 0.0)
        return []


@contextmanager
def fake_time() -> Iterator[Loop]:
    """A loop, and its clock in the modules that ask for the time."""
    clock = Clock()
    loop = Loop(clock)
    with mock.patch.object(completion, "time", clock), mock.patch.object(aia, "time", clock):
        try:
            yield loop
        finally:
            loop.close()
