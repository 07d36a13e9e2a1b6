"""The face to mitmproxy: its hooks. No cryptography and no I/O."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from mitmproxy import addonmanager, connection, ctx, exceptions, http, tls

from mitmproxy_aia import deferred, handshake, pausing
from mitmproxy_aia.announcements import Announcements
from mitmproxy_aia.cache_commands import CacheCommands
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.check_command import CheckCommand
from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.connections import address_of, own_listeners, protocol_of, server_of
from mitmproxy_aia.counters import Counters
from mitmproxy_aia.flow_annotations import Annotations
from mitmproxy_aia.history import History
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.options import NAMES, Settings, add_options
from mitmproxy_aia.page.serving import Page, settings_in_force
from mitmproxy_aia.preparation import Preparation, look_at_roots
from mitmproxy_aia.quic_compatibility import quic_incompatibility
from mitmproxy_aia.recent import Recent
from mitmproxy_aia.report_files import ReportFiles
from mitmproxy_aia.sources import Found
from mitmproxy_aia.status_commands import StatusCommands
from mitmproxy_aia.tiers import Tiers
from mitmproxy_aia.turn import Turn
from mitmproxy_aia.verification import Verifier

if TYPE_CHECKING:
    from mitmproxy.proxy.layers.quic import QuicTlsData

logger = logging.getLogger(__name__)

Data = TypeVar("Data", bound=tls.TlsData)

LEARNED = 10_000
"""Servers whose complete chain was looked at, and is not again for `LEARNED_FOR` seconds."""
LEARNED_FOR = 3_600.0
OFF = Settings(mode="off")
"""Before the options are known, and after the end."""


class Aia:
    """The addon. `-s addon/aia.py` makes one; so does `addons.add(Aia())` elsewhere."""

    name = "aia"
    script = ""
    """The path of the script that it came with, if it did."""

    def __init__(self) -> None:
        self._settings = OFF
        self._configured = False
        self._counters = Counters()
        self._tiers = Tiers(
            lambda: self._settings.timeout,
            lambda: self._settings.policy,
            own_listeners,
            self._frozen,
            self._counters.counted,
        )
        self.history = History()
        self._announcements = Announcements()
        self._learned = Recent(LEARNED, LEARNED_FOR)
        self._annotations = Annotations(lambda: self._settings.annotate)
        self._turns: list[Turn] = []
        self._preparation = Preparation(self._try_cache, look_at_roots)
        self._reports = ReportFiles(self.history)
        self._page = Page(
            self.history,
            self._tiers,
            Metrics(self._counters, self.history, self._tiers.remembered),
            lambda: self._settings,
        )
        self._commands = [
            CacheCommands(self._tiers, self._learned.clear),
            CheckCommand(self._tiers, lambda: self._settings, self._frozen),
            StatusCommands(
                self.history,
                self._counters,
                self._tiers.remembered,
                lambda: settings_in_force(self._settings),
            ),
            self._reports,
        ]
        # mitmproxy asks each addon about each event, which takes longer than what is done then;
        # so these are no addons of their own.
        for hook in self._annotations.HOOKS:
            setattr(self, hook, getattr(self._annotations, hook))

    def load(self, loader: addonmanager.Loader) -> None:
        add_options(loader)
        if flaws := deferred.take():
            for bad_value in flaws:
                logger.error(bad_value)
            # Whoever adds it is told, and mitmproxy takes it back.
            raise exceptions.OptionsError("; ".join(flaws))
        self._turns = self._possible_turns()
        for commands in self._commands:
            loader.master.commands.collect_commands(commands)
        self._take_turns()

    def _possible_turns(self) -> list[Turn]:
        """Those that work with this mitmproxy; says why not."""
        if (flaw := incompatibility()) is not None:
            # At the start that is the end. Where mitmproxy goes on, nothing is watched.
            logger.error(flaw)
            return []
        turns = [Turn("tls_start_server", "ssl_conn", self._start_tls)]
        if (flaw := quic_incompatibility()) is not None:
            logger.warning(f"{flaw}; until then QUIC is as without the addon")
            return turns
        return [*turns, Turn("quic_start_server", "settings", self._start_quic)]

    def configure(self, updated: set[str]) -> None:
        if not (updated & NAMES or "confdir" in updated):
            return
        first, self._configured = not self._configured, True
        try:
            self._take_options()
        except exceptions.OptionsError as error:
            if not first or set(updated) != set(ctx.options.keys()):
                raise
            # No change that mitmproxy would take back, but the start. It would show with it all
            # that has led to it, and it says all by itself.
            logger.error(str(error))

    def _take_options(self) -> None:
        settings = Settings.from_options()
        try:
            self._tiers.set(settings.cache, settings.intermediates)
        except (OSError, ValueError) as error:
            raise exceptions.OptionsError(str(error)) from None
        if settings.cache != self._settings.cache:
            self._learned.clear()
        self._settings = settings

    def running(self) -> None:
        if not self._configured:
            # Where mitmproxy is embedded, nobody may have told the last addon of the options.
            self.configure(set(ctx.options.keys()))
        for misspelled in deferred.unknown():
            logger.warning(misspelled)
        self._take_turns()
        self._preparation.begin()

    def _take_turns(self) -> None:
        # There, too, TlsConfig may come after us.
        if (tlsconfig := ctx.master.addons.get("tlsconfig")) is not None:
            for turn in self._turns:
                turn.take(tlsconfig)

    def _start_tls(self, data: tls.TlsData) -> None:
        """TlsConfig has made `data.ssl_conn`."""
        self._start(data, handshake.watch)

    def _start_quic(self, data: QuicTlsData) -> None:
        """TlsConfig has made `data.settings`."""
        from mitmproxy_aia import quic  # Where it cannot work it may not even be imported.

        self._start(data, quic.watch)

    def _start(self, data: Data, watch: Callable[[Data, pausing.Watcher], bool]) -> None:
        server = data.conn
        off = self._settings.mode == "off" or ctx.options.ssl_insecure
        if off or not isinstance(server, connection.Server):
            return
        try:
            watch(data, self._watcher(data.context.client, server))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # Only after an Exception would mitmproxy go on, with a verification of its own.
            logger.exception("a handshake cannot be watched")

    def _watcher(self, client: connection.Client, server: connection.Server) -> pausing.Watcher:
        audit = self._settings.mode == "audit"
        return pausing.Watcher(
            functools.partial(self._begin, server),
            functools.partial(self._conclude, client, server, audit),
            functools.partial(self._complete, server),
            audit,
        )

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        self._annotations.request(flow)
        # Nobody has to wait for what is no request to the page.
        return self._page.answer(flow) if self._page.is_asked(flow) else None

    async def aia_complete(self, pause: pausing.Pause) -> None:
        """Handles `pausing.AiaCompleteHook`."""
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
        report, self._settings, self._configured = self._settings.report, OFF, False
        for turn in self._turns:
            turn.give_back()
        self._page.close()
        self._preparation.end()
        self._tiers.close()
        self._reports.finish(report)

    async def _try_cache(self) -> None:
        if self._settings.mode != "off":
            await self._tiers.try_cache()

    def _begin(
        self, conn: connection.Server, presented: Iterable[Certificate], verifier: Verifier
    ) -> Completion:
        settings = self._settings
        return Completion(
            presented,
            verifier,
            self._tiers.sources,
            settings.limits,
            lambda: server_of(conn, settings.proxy),
        )

    def _frozen(self) -> str:
        """Why nothing may be downloaded, if so."""
        return self._settings.limits.frozen

    def _complete(self, server: connection.Server, intermediates: pausing.Intermediates) -> None:
        """Takes note of a complete chain, and learns from it."""
        address, protocol = address_of(server), protocol_of(server)
        self.history.note_complete(address, protocol)
        if not self._settings.learn or (address, protocol) in self._learned:
            return
        found = [Found(certificate, address) for certificate in intermediates()]
        self._learned.add((address, protocol))
        if found:
            self._tiers.keep(found)

    def _conclude(
        self,
        client: connection.Client,
        server: connection.Server,
        audit: bool,
        outcome: Outcome,
    ) -> None:
        address, protocol = address_of(server), protocol_of(server)
        record = self.history.note(address, outcome, protocol=protocol, audit=audit)
        self._counters.note(outcome, audit=audit)
        self._annotations.remember(client, server, record)
        self._announcements.tell(address, outcome, audit=audit)


def only_one(script: str) -> list[Aia]:
    """The addons of the script at this path: one `Aia`, or none and a WARNING if mitmproxy has
    one already. Two would get in each other's way in everything: options, commands, hooks."""
    # mitmproxy has removed a script before it loads it again. Without mitmproxy: no master.
    master = getattr(ctx, "master", None)
    first = master.addons.get(Aia.name) if master else None
    if isinstance(first, Aia):
        logger.warning(
            f"{script} does nothing: mitmproxy-aia is loaded already"
            + (f", from {first.script}" if first.script else "")
        )
        return []
    addon = Aia()
    addon.script = script
    return [addon]
