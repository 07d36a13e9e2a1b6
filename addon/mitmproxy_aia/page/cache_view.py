"""What is remembered, for people to see."""

from __future__ import annotations

import asyncio
import itertools

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.page.settings import shown
from mitmproxy_aia.page.site import Listing
from mitmproxy_aia.sources.caches import Where
from mitmproxy_aia.tiers import Tiers

LISTED = 500
"""Intermediates that are shown of a cache, which may hold a hundred thousand."""
PATIENCE = 1.0
"""Seconds that the page waits for a cache."""


class CacheView:
    """What is remembered, without ever waiting long for a cache: it may be slow, or gone."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._look: asyncio.Task[list[Entry]] | None = None

    async def look(self, where: Where) -> Listing:
        """The first of what is in memory and in the cache, which is at `where`."""
        entries = {entry.certificate: entry for entry in self._tiers.entries()}
        problem = ""
        if self._look is None or self._look.done():
            # One at a time, so that a cache that hangs takes one thread and not all.
            self._look = asyncio.create_task(asyncio.to_thread(self._first), name="aia page")
            self._look.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(PATIENCE):
                listed = await asyncio.shield(self._look)
            entries |= {entry.certificate: entry for entry in listed}
        except CacheError as error:
            problem = f"The cache cannot be shown: {error}."
        except TimeoutError:
            problem = "The cache cannot be shown: it takes too long to answer."
        ordered = sorted(entries.values(), key=lambda entry: entry.certificate.name.lower())
        return Listing(shown(where), ordered[:LISTED], len(ordered) >= LISTED, problem)

    def _first(self) -> list[Entry]:
        return [*itertools.islice(self._tiers.cached(), LISTED)]
