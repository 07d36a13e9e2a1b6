"""The addon's options: what they are called, what they take, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mitmproxy import addonmanager, ctx, exceptions

from mitmproxy_aia.egress import Policy, Proxy
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.proxies import AUTO, Way, parse_proxy
from mitmproxy_aia.report_files import report_path
from mitmproxy_aia.sources.caches import CACHE_FILE, MEMORY_ONLY, Where, from_home, where

FROZEN = "aia_mode=frozen"
MODES = ("complete", "frozen", "audit", "off")
NAMES = frozenset(
    {
        "aia_mode",
        "aia_page",
        "aia_timeout",
        "aia_cache",
        "aia_intermediates",
        "aia_learn",
        "aia_allow",
        "aia_deny",
        "aia_proxy",
        "aia_annotate",
        "aia_report",
    }
)

_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


def add_options(loader: addonmanager.Loader) -> None:
    loader.add_option(
        name="aia_mode",
        typespec=str,
        default="complete",
        choices=MODES,
        help="What to do when a server sends an incomplete certificate chain. "
        "complete: get the missing intermediates from what is known or from the caIssuers URLs "
        "in the certificates (AIA), verify the whole chain, and go on if it is good. "
        "frozen: the same, but download nothing. "
        "audit: look and report, but fail as mitmproxy does without the addon. "
        "off: fail as mitmproxy does without the addon.",
    )
    loader.add_option(
        name="aia_timeout",
        # Not int: mitmproxy's message for a bad one ("Not an integer: x") names no option.
        typespec=str,
        default="10",
        help="Seconds that the completion of one certificate chain may take, all its "
        "downloads together. Only the connection concerned waits.",
    )
    loader.add_option(
        name="aia_cache",
        typespec=str,
        default="",
        help="Where intermediates are remembered: the path of an SQLite file "
        f"(default: {CACHE_FILE} in mitmproxy's confdir), redis://[user:password@]host:port/db "
        "or rediss://... for a fleet of proxies, or memory for nothing on disk.",
    )
    loader.add_option(
        name="aia_intermediates",
        typespec=Sequence[str],
        default=[],
        help="Files and folders with intermediates to complete chains with, in any format. "
        "They are not trusted, only tried. Read again when they change.",
    )
    loader.add_option(
        name="aia_learn",
        typespec=bool,
        default=True,
        help="Remember the intermediates of complete chains that were verified, too: a server "
        "that forgets one is then often cured without a download.",
    )
    loader.add_option(
        name="aia_allow",
        typespec=Sequence[str],
        default=[],
        help="Where downloads may go beyond the rule, which is: to port 80 in public, and to "
        "the private network or this machine only for a server that is there itself. Host "
        "names (*.pki.example is all below it), addresses and networks, each with a port or "
        "without: pki.example:8080, 10.1.0.0/16, [fd00::1]:8080.",
    )
    loader.add_option(
        name="aia_deny",
        typespec=Sequence[str],
        default=[],
        help="Where downloads may not go, written as in aia_allow. It wins over everything.",
    )
    loader.add_option(
        name="aia_proxy",
        typespec=str,
        default=AUTO,
        help="What downloads go through. auto: the way that the connection to the server goes, "
        "which is in upstream mode the upstream proxy, with upstream_auth. direct: no proxy. "
        "Or http://user:password@host:port, https://... or socks5://... The proxy variables of "
        "the environment are never used.",
    )
    loader.add_option(
        name="aia_annotate",
        typespec=bool,
        default=True,
        help="Annotate the flows of servers with an incomplete or broken certificate chain: "
        "flow.metadata['aia'], which the filter ~meta finds and flow files keep, and a comment "
        "if the flow has none.",
    )
    loader.add_option(
        name="aia_report",
        typespec=str,
        default="",
        help="Write a report to this file when the proxy ends: the servers whose certificate "
        "chain was incomplete or broken, what is missing and where it is. A name that ends in "
        ".json is for mitmproxy-aia report and other programs, one in .html for people.",
    )
    loader.add_option(
        name="aia_page",
        typespec=str,
        default="mitm.aia",
        help="The host name of the page that shows the servers with incomplete chains and how to "
        "mend them: http://mitm.aia/ in a browser that uses this proxy. Whoever can use the "
        "proxy can read it. Empty: no page.",
    )


@dataclass(frozen=True)
class Settings:
    """The addon's options, checked."""

    mode: str = "complete"
    timeout: float = 10.0
    cache: Where = field(default=MEMORY_ONLY, repr=False)
    intermediates: tuple[Path, ...] = ()
    learn: bool = True
    policy: Policy = field(default_factory=Policy)
    proxy: Proxy | Way = AUTO
    annotate: bool = True
    report: Path | None = None
    page: str = ""

    @cached_property
    def limits(self) -> Limits:
        """Of each completion."""
        return Limits(seconds=self.timeout, frozen=FROZEN if self.mode == "frozen" else "")

    @classmethod
    def from_options(cls) -> Settings:
        """Raises OptionsError, which names the option and what it takes."""
        mode, timeout = ctx.options.aia_mode, _seconds(ctx.options.aia_timeout)
        if mode not in MODES:
            raise exceptions.OptionsError(
                f"aia_mode takes one of {', '.join(MODES)}, and not {mode!r}"
            )
        if timeout is None:
            raise exceptions.OptionsError(
                f"aia_timeout takes a number of seconds greater than 0, for example 10 or 2.5, "
                f"and not {ctx.options.aia_timeout!r}"
            )
        try:
            cache = where(ctx.options.aia_cache, Path(ctx.options.confdir))
        except ValueError as error:
            raise exceptions.OptionsError(f"aia_cache: {error}") from None
        try:
            intermediates = tuple(
                map(from_home, map(Path, filter(None, ctx.options.aia_intermediates)))
            )
        except ValueError as error:
            raise exceptions.OptionsError(f"aia_intermediates: {error}") from None
        try:
            report = report_path(ctx.options.aia_report)
        except ValueError as error:
            raise exceptions.OptionsError(f"aia_report: {error}") from None
        try:
            policy = Policy.parse(ctx.options.aia_allow, ctx.options.aia_deny)
            proxy = parse_proxy(ctx.options.aia_proxy)
        except ValueError as error:
            raise exceptions.OptionsError(str(error)) from None
        return cls(
            mode,
            timeout,
            cache,
            intermediates,
            ctx.options.aia_learn,
            policy,
            proxy,
            ctx.options.aia_annotate,
            report,
            _page_host(ctx.options.aia_page),
        )


def _page_host(text: str) -> str:
    """The host name in the form in which a request's is compared with it."""
    host = text.strip().lower().removesuffix(".")
    if host and (len(host) > 253 or not _HOST.fullmatch(host)):
        raise exceptions.OptionsError(
            f"aia_page takes a host name, for example mitm.aia, or nothing, and not {text!r}"
        )
    return host


def _seconds(text: str) -> float | None:
    try:
        # Python reads 1_0 as 10.
        seconds = float(text.replace("_", "?"))
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
