"""The command aia.check, for the console UI and for scripts."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
from collections.abc import Callable

from mitmproxy import command, ctx, exceptions

from mitmproxy_aia.background import Background
from mitmproxy_aia.cli.pictures import WORDS, in_short, picture
from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.inspection.client import How
from mitmproxy_aia.inspection.inspector import Inspector
from mitmproxy_aia.inspection.results import Result, Verdict
from mitmproxy_aia.inspection.targets import Target, parse_target
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.options import Settings
from mitmproxy_aia.sources.resolver import Resolver
from mitmproxy_aia.tiers import Tiers
from mitmproxy_aia.trust import Trust

logger = logging.getLogger(__name__)

HTTPS = 443


class CheckCommand:
    """`settings` gives those in force, and `frozen` why nothing may be downloaded, if so."""

    name = "aia_check_command"

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
        self._background.run(self._check(target))

    async def _check(self, target: Target) -> str:
        """One line on what came of it; the whole picture goes to the log. Raises OSError."""
        settings = self._settings()
        trust = Trust(
            ctx.options.ssl_verify_upstream_trusted_ca or "",
            ctx.options.ssl_verify_upstream_trusted_confdir or "",
        )
        limits = Limits(seconds=settings.timeout, frozen=self._frozen())
        # To load the roots takes longer than the event loop should wait.
        inspector = await asyncio.to_thread(Inspector, trust, lambda: self._tiers.sources, limits)
        how = How(seconds=settings.timeout)
        result = await inspector.server(target, how, self._resolve, _proxy_of(settings, trust))
        line = f"{result.name} {WORDS[result.verdict]}: {in_short(result)}"
        if result.verdict is Verdict.UNREACHABLE:
            raise OSError(line)
        logger.info(_plain(result, trust))
        return line


def _plain(result: Result, trust: Trust) -> str:
    # Below the time that a log line begins with.
    return "\n".join(["", *picture(result, trust.words, io.StringIO())])


def _proxy_of(settings: Settings, trust: Trust) -> Proxy | None:
    """What downloads go through; our connection to the server is direct."""
    if isinstance(settings.proxy, str):
        return None
    return dataclasses.replace(settings.proxy, ca_file=trust.file, ca_folder=trust.folder)
