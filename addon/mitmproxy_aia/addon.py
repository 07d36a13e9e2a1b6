"""The face to mitmproxy: hooks, commands and log lines. No cryptography and no I/O."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from mitmproxy import addonmanager, command, connection, ctx, exceptions, tls, types
from mitmproxy.log import ALERT

from mitmproxy_aia import bundle, handshake
from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate, printable
from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.connections import address_of, own_listeners, server_of
from mitmproxy_aia.egress import Server
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.options import NAMES, Settings, add_options
from mitmproxy_aia.recent import Recent
from mitmproxy_aia.sources import Found
from mitmproxy_aia.tiers import Tiers
from mitmproxy_aia.verification import Verifier

logger = logging.getLogger(__name__)

ANNOUNCED = 1_000
"""Completions that were logged at INFO, and are not again."""
LEARNED = 10_000
"""Servers whose complete chain was looked at, and is not again for `LEARNED_FOR` seconds."""
LEARNED_FOR = 3_600.0
LISTED = 1_000
"""Rows of a table that is still of use to a person, and takes no time to make."""
PATIENCE = 1.0
"""Seconds that a command may keep the event loop waiting for a cache."""
FROZEN = "aia_mode=frozen"


class Aia:
    """The addon. `-s addon/aia.py` makes one; so does `addons.add(Aia())` elsewhere."""

    name = "aia"

    def __init__(self) -> None:
        self._settings = Settings(mode="off")
        self._tiers = Tiers(
            lambda: self._settings.timeout,
            lambda: self._settings.policy,
            own_listeners,
            lambda: FROZEN if self._settings.mode == "frozen" else "",
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced = Recent(ANNOUNCED)
        self._learned = Recent(LEARNED, LEARNED_FOR)

    def load(self, loader: addonmanager.Loader) -> None:
        add_options(loader)
        if (flaw := incompatibility()) is not None:
            logger.error(flaw)

    def configure(self, updated: set[str]) -> None:
        if updated & NAMES or "confdir" in updated:
            settings = Settings.from_options()
            try:
                self._tiers.set(settings.cache, settings.intermediates)
            except (OSError, ValueError) as error:
                raise exceptions.OptionsError(str(error)) from error
            if settings.cache != self._settings.cache:
                self._learned.clear()
            self._settings = settings

    def tls_start_server(self, data: tls.TlsData) -> None:
        if self._settings.mode == "off" or ctx.options.ssl_insecure:
            return
        if data.ssl_conn is not None or not isinstance(data.conn, connection.Server):
            return  # Another addon's connection is its own business.
        tlsconfig = ctx.master.addons.get("tlsconfig")
        try:
            tlsconfig.tls_start_server(data)
        except Exception:
            # TlsConfig gets its turn after us, and will say itself what is wrong.
            logger.debug("TlsConfig refused a connection")
            data.ssl_conn = None
            return
        try:
            self._watch(data, data.conn)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # Only after an Exception would mitmproxy go on, with a verification of its own.
            logger.exception("a handshake cannot be watched")

    def _watch(self, data: tls.TlsData, server: connection.Server) -> None:
        address, audit = address_of(server), self._settings.mode == "audit"
        handshake.watch(
            data,
            functools.partial(self._begin, server_of(server, self._settings.proxy)),
            functools.partial(self._conclude, address, audit),
            learn=self._to_learn(address),
            audit=audit,
        )

    async def aia_complete(self, pause: handshake.Pause) -> None:
        """Handles `handshake.AiaCompleteHook`."""
        try:
            pause.outcome = await pause.completion.complete()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Only after an Exception would mitmproxy go on with the handshake, and so refuse it.
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            logger.exception("completing a certificate chain failed")

    def done(self) -> None:
        self._settings = Settings(mode="off")
        self._tiers.close()

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
            number = await self._tiers.clear()
            self._learned.clear()
            return f"{number} intermediates were forgotten"

        self._run(clear())

    @command.command("aia.cache.export")
    def cache_export(self, path: types.Path) -> None:
        """Write the intermediates that are remembered to a file, for aia_intermediates."""

        in_memory = self._tiers.entries()

        def write() -> str:
            remembered = [*in_memory, *self._tiers.cached()]
            bundle.save(Path(path).expanduser(), bundle.write_bundle(remembered))
            number = len({entry.certificate for entry in remembered})
            return f"{number} intermediates were written to {path}"

        self._run(asyncio.to_thread(write))

    def _run(self, work: Awaitable[str]) -> None:
        """Does what would keep the event loop waiting, and says what came of it."""

        async def run() -> None:
            try:
                logger.log(ALERT, await work)
            except (OSError, RuntimeError) as error:
                logger.error(str(error))

        task = asyncio.create_task(run(), name="aia command")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(
        self, server: Server, presented: Iterable[Certificate], verifier: Verifier
    ) -> Completion:
        frozen = FROZEN if self._settings.mode == "frozen" else ""
        limits = Limits(seconds=self._settings.timeout, frozen=frozen)
        return Completion(presented, verifier, self._tiers.sources, limits, server)

    def _to_learn(self, address: str) -> handshake.Learn | None:
        """What a complete chain of the server at `address` is to be given to, if it is."""
        if not self._settings.learn or address in self._learned:
            return None
        return functools.partial(self._learn, address)

    def _learn(self, address: str, intermediates: Sequence[Certificate]) -> None:
        self._learned.add(address)
        if intermediates:
            self._tiers.keep([Found(certificate, address) for certificate in intermediates])

    def _conclude(self, address: str, audit: bool, outcome: Outcome) -> None:
        if not outcome.verified:
            logger.warning(
                f"{address} sent a certificate chain that could not be completed: {outcome.reason}"
            )
            return
        where = ", ".join(f'"{item.certificate.name}" {item.place}' for item in outcome.found)
        # Whether this server has not been completed with these certificates before.
        what = (address, audit, *(item.certificate.fingerprint for item in outcome.found))
        news = what not in self._announced
        self._announced.add(what)
        logger.log(
            logging.INFO if news else logging.DEBUG,
            f"{address} sent an incomplete chain; found {where or 'a path in what it sent'} "
            f"in {outcome.seconds * 1000:.0f} ms"
            + (" and let it fail all the same (aia_mode=audit)" if audit else ""),
        )
