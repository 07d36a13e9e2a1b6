"""Caches seen from outside: what they keep, and what a person may do with one."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mitmproxy_aia.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Entry:
    """What a cache keeps of one intermediate.

    `origin` is where it came from: a URL, a file, or a server (host:port). The times are in
    UTC and in whole seconds.
    """

    certificate: Certificate
    origin: str
    first_used: datetime.datetime
    last_used: datetime.datetime


class CacheError(OSError):
    """Why a cache cannot be used: one sentence that names it, fit for a person."""


class Cache(Protocol):
    """One cache, for the command line and the commands of the console. Every method blocks,
    and raises `CacheError`. Proxies may be using the cache at the same time."""

    @property
    def name(self) -> str:
        """What to call it: a path, or a URL without its password."""
        ...

    def entries(self) -> Iterator[Entry]:
        """All of them, in the order of their subjects, without holding all in memory."""
        ...

    def add(self, entries: Iterable[Entry]) -> int:
        """Returns how many were new. Of one that is there already only `last_used` changes,
        and only to a later time. All are written or, if anything is raised, none."""
        ...

    def remove(self, fingerprints: Collection[bytes]) -> int:
        """Removes the certificates with these SHA-256 fingerprints. Returns how many it had."""
        ...

    def clear(self) -> int:
        """Removes everything. Returns how many certificates there were."""
        ...

    def prune(self, now: datetime.datetime) -> int:
        """Removes what has expired at `now`. Returns how many certificates it were."""
        ...

    def close(self) -> None: ...
