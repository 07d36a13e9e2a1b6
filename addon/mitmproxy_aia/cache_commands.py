"""The commands aia.cache.*, for the console UI and for scripts."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from mitmproxy import command, types

from mitmproxy_aia.background import Background
from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.names import printable
from mitmproxy_aia.tiers import Tiers

logger = logging.getLogger(__name__)

LISTED = 1_000
"""Rows of a table that is still of use to a person, and takes no time to make."""
PATIENCE = 1.0
"""Seconds that a command may keep the event loop waiting for a cache."""


class CacheCommands:
    """`forget` is called when everything was forgotten."""

    def __init__(self, tiers: Tiers, forget: Callable[[], None]) -> None:
        self._tiers = tiers
        self._forget = forget
        self._background = Background()

    @command.command("aia.cache.list")
    def cache_list(self) -> types.Data:
        """The intermediates that are remembered, in memory and in the cache."""
        entries = {entry.certificate: entry for entry in self._tiers.entries()}
        entries |= {entry.certificate: entry for entry in self._cached()}
        ordered = sorted(entries.values(), key=lambda entry: entry.certificate.name.lower())
        rows = [["subject", "valid until", "from", "last used"]]
        rows += [
            [
                entry.certificate.name,
                f"{entry.certificate.not_after:%Y-%m-%d}",
                printable(entry.origin),
                f"{entry.last_used:%Y-%m-%d %H:%M}",
            ]
            for entry in ordered[:LISTED]
        ]
        if len(ordered) >= LISTED:
            rows.append(["... more: mitmproxy-aia cache list", "", "", ""])
        return cast(types.Data, rows)

    def _cached(self) -> Sequence[Entry]:
        """The first of what is in the cache; nothing if it does not answer at once."""
        thread = ThreadPoolExecutor(1, "aia-cache-list")
        listing = thread.submit(lambda: [*itertools.islice(self._tiers.cached(), LISTED)])
        try:
            return listing.result(PATIENCE)
        except (CacheError, TimeoutError) as error:
            why = str(error) or "takes too long"
            logger.warning(f"the cache cannot be listed: {why}; see mitmproxy-aia cache list")
            return ()
        finally:
            thread.shutdown(wait=False)

    @command.command("aia.cache.clear")
    def cache_clear(self) -> None:
        """Forget all intermediates, in memory and in the cache."""

        async def clear() -> str:
            try:
                number = await self._tiers.clear()
            finally:
                # What is in memory is gone, whatever the cache says.
                self._forget()
            return f"{_were(number)} forgotten"

        self._background.run(clear())

    @command.command("aia.cache.export")
    def cache_export(self, path: types.Path) -> None:
        """Write the intermediates that are remembered to a file, for aia_intermediates."""

        in_memory = self._tiers.entries()

        def write() -> str:
            from mitmproxy_aia import bundle  # in a thread, and for few

            remembered = [*in_memory, *self._tiers.cached()]
            bundle.save(Path(path).expanduser(), bundle.write_bundle(remembered))
            number = len({entry.certificate for entry in remembered})
            return f"{_were(number)} written to {path}"

        self._background.run(asyncio.to_thread(write))


def _were(number: int) -> str:
    return "1 intermediate was" if number == 1 else f"{number:,} intermediates were"
