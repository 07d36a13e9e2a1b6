"""The command aia.check, for the console UI and for scripts."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import command, ctx, exceptions

from mitmproxy_aia.background import Background
from mitmproxy_aia.options import Settings
from mitmproxy_aia.sources.resolver import Resolver
from mitmproxy_aia.tiers import Tiers

HTTPS = 443


class CheckCommand:
    """`settings` gives those in force, and `frozen` why nothing may be downloaded, if so."""

    def __init__(
        self, tiers: Tiers, settings: Callable[[], Settings], frozen: Callable[[], str]
    ) -> None:
        self._tiers = tiers
        self._settings = settings
        self._frozen = frozen
        self._resolve = Resolver()
        self._background = Background()

    @command.command("aia.check")
    def check(self, host: str) -> None:
        """Connect to HOST[:PORT] and show what it forgets to send: in the event log."""
        # What takes long to import is imported when it is first needed.
        from mitmproxy_aia.checking import check
        from mitmproxy_aia.inspection.targets import parse_target

        try:
            target = parse_target(host, HTTPS)
        except ValueError as error:
            raise exceptions.CommandError(str(error)) from error
        if any(mode.startswith("upstream:") for mode in ctx.options.mode):
            # By itself it might get where nothing else of this mitmproxy does.
            raise exceptions.CommandError(
                "aia.check connects directly, and in upstream mode nothing else does: use "
                "mitmproxy-aia check where the server can be reached"
            )
        running = check(
            target, self._settings(), self._frozen(), lambda: self._tiers.sources, self._resolve
        )
        self._background.run(running)
