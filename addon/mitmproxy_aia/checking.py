"""What the command aia.check does. Apart from it, because it takes all that the command line's
`check` takes, and mitmproxy would start later by a tenth of a second with every start."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
from collections.abc import Callable, Sequence

from mitmproxy import ctx

from mitmproxy_aia.cli.pictures import WORDS, in_short, picture
from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.inspection.client import How
from mitmproxy_aia.inspection.inspector import Inspector
from mitmproxy_aia.inspection.results import Result, Verdict
from mitmproxy_aia.inspection.targets import Target
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.options import Settings
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.sources.resolver import Resolver
from mitmproxy_aia.trust import Trust

logger = logging.getLogger(__name__)


async def check(
    target: Target,
    settings: Settings,
    frozen: str,
    sources: Callable[[], Sequence[IssuerSource]],
    resolve: Resolver,
) -> str:
    """One line on what came of it; the whole picture goes to the log. Raises OSError."""
    trust = Trust(
        ctx.options.ssl_verify_upstream_trusted_ca or "",
        ctx.options.ssl_verify_upstream_trusted_confdir or "",
    )
    limits = Limits(seconds=settings.timeout, frozen=frozen)
    # To load the roots takes longer than the event loop should wait.
    inspector = await asyncio.to_thread(Inspector, trust, sources, limits)
    how = How(seconds=settings.timeout)
    result = await inspector.server(target, how, resolve, _proxy_of(settings, trust))
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
