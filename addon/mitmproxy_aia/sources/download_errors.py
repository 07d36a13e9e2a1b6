"""Why a URL gave no certificate, and for how long that is remembered of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mitmproxy_aia.egress import Refusal

FAILURE_REMEMBERED = 60.0
"""Seconds."""
BRIEFLY = 5.0
"""Seconds for which one is remembered that is perhaps not the URL's."""
FAILURES_REMEMBERED = 1_000

WhyNot = str | Refusal
"""Why not."""


class DownloadError(OSError):
    """Worded to follow the URL: `answered 404`. It is remembered of that for so many seconds."""

    remembered = FAILURE_REMEMBERED

    @property
    def outcome(self) -> WhyNot:
        return str(self)


class Missing(DownloadError):
    """The server was reached, and has no such thing."""


class Uncertain(DownloadError):
    """It may be the URL's fault as well as that of a proxy, or of our own network."""

    remembered = BRIEFLY


class NotTried(DownloadError):
    """It was our own doing, and says nothing of the URL."""

    remembered = 0.0


class UsedUp(NotTried):
    """One server's share of something was. Another may have some left."""


class Refused(NotTried):
    """The rules do not let it be downloaded; `redirected`: not what it has led to."""

    def __init__(self, refusal: Refusal, *, redirected: bool = False) -> None:
        super().__init__(refusal.what)
        self.refusal = refusal
        if redirected:
            # Somebody was asked to learn that.
            self.remembered = BRIEFLY

    @property
    def outcome(self) -> WhyNot:
        return self.refusal


_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class _Failure:
    """`at` and `until` are in seconds of time.monotonic()."""

    outcome: WhyNot
    at: float
    until: float


class Failures(Generic[_Key]):
    """The last ones, by what was asked for."""

    def __init__(self) -> None:
        self._failures: OrderedDict[_Key, _Failure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def remember(self, key: _Key, error: DownloadError) -> None:
        if error.remembered:
            now = time.monotonic()
            self._failures[key] = _Failure(error.outcome, now, now + error.remembered)
        while len(self._failures) > FAILURES_REMEMBERED:
            self._failures.popitem(last=False)

    def get(self, key: _Key) -> tuple[float, WhyNot] | None:
        """How many seconds ago it failed, and why, if that still counts."""
        failure = self._failures.get(key)
        if failure is None:
            return None
        now = time.monotonic()
        if now < failure.until:
            return now - failure.at, failure.outcome
        del self._failures[key]
        return None
