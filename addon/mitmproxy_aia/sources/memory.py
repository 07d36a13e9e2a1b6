"""Issuers remembered in memory: bounded, the least recently used go first."""

from __future__ import annotations

import dataclasses
import datetime
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Attempt, Budget, Found, no_attempts

NAME = "memory"
CAPACITY = 2_000
"""Certificates. The web uses about 1,900 intermediates; what is kept of one takes some 3 kB."""


class MemorySource:
    """An `IssuerSource`. `capacity` is in certificates."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Certificate, Entry] = OrderedDict()
        self._by_subject: dict[bytes, tuple[Certificate, ...]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        now = datetime.datetime.now(datetime.UTC)
        named = self._by_subject.get(certificate.issuer, ())
        for issuer in named:
            if issuer.not_after < now:
                self._drop(issuer)
        return [
            Found(issuer, self._kept[issuer].origin, cache=NAME)
            for issuer in named
            if issuer in self._kept
        ]

    def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        return no_attempts()

    def keep(self, found: Sequence[Found]) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        for item in found:
            certificate = item.certificate
            kept = self._kept.get(certificate)
            if kept is None:
                certificate.let_go()
                self._kept[certificate] = Entry(certificate, item.origin, now, now)
                named = self._by_subject.get(certificate.subject, ())
                self._by_subject[certificate.subject] = (*named, certificate)
            elif kept.last_used != now:
                self._kept[certificate] = dataclasses.replace(kept, last_used=now)
            self._kept.move_to_end(certificate)
        while len(self._kept) > self._capacity:
            self._drop(next(iter(self._kept)))

    def entries(self) -> Sequence[Entry]:
        """What is kept, the least recently used first."""
        return tuple(self._kept.values())

    def clear(self) -> None:
        self._kept.clear()
        self._by_subject.clear()

    def _drop(self, certificate: Certificate) -> None:
        del self._kept[certificate]
        named = self._by_subject.pop(certificate.subject)
        if others := tuple(each for each in named if each != certificate):
            self._by_subject[certificate.subject] = others
