"""The addon's options: what they are called, what they take, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mitmproxy import addonmanager, ctx, exceptions

from mitmproxy_aia.sources.caches import CACHE_FILE, MEMORY_ONLY, Where, where

MODES = ("complete", "frozen", "audit", "off")
NAMES = frozenset({"aia_mode", "aia_timeout", "aia_cache", "aia_intermediates", "aia_learn"})


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


@dataclass(frozen=True)
class Settings:
    """The addon's options, checked."""

    mode: str = "complete"
    timeout: float = 10.0
    cache: Where = MEMORY_ONLY
    intermediates: tuple[Path, ...] = ()
    learn: bool = True

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
            raise exceptions.OptionsError(f"aia_cache: {error}") from error
        return cls(
            mode,
            timeout,
            cache,
            tuple(Path(path).expanduser() for path in ctx.options.aia_intermediates),
            ctx.options.aia_learn,
        )


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
