"""What `check` and `verify` have in common: sources and limits from options, and showing what
came of it."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

from mitmproxy_aia.bundle import save
from mitmproxy_aia.cli import pictures
from mitmproxy_aia.cli.configuration import CONFDIR
from mitmproxy_aia.cli.result_json import as_json
from mitmproxy_aia.cli.terminal import CommandError, complain
from mitmproxy_aia.egress import Policy
from mitmproxy_aia.inspection.results import Result, Verdict
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.remedies import full_chain
from mitmproxy_aia.sources.caches import from_home, where
from mitmproxy_aia.tiers import Tiers

OFFLINE = "--offline"


def limits_of(options: argparse.Namespace) -> Limits:
    return Limits(seconds=options.timeout, frozen=OFFLINE if options.offline else "")


@contextlib.asynccontextmanager
async def opened_tiers(
    options: argparse.Namespace, at: datetime.datetime | None = None
) -> AsyncIterator[Tiers]:
    """The sources that the options name, in the proxy's order; they offer what is valid at the
    time `at`, if that is not now. Raises CommandError."""
    tiers = _tiers(options, at)
    try:
        yield tiers
    finally:
        # Writes what is still to be written to the cache.
        tiers.close()


def _tiers(options: argparse.Namespace, at: datetime.datetime | None) -> Tiers:
    frozen = OFFLINE if options.offline else ""
    try:
        policy = Policy.parse(options.allow, options.deny)
        tiers = Tiers(lambda: options.timeout, lambda: policy, tuple, lambda: frozen, at=at)
        with _about("--intermediates"):
            paths = [from_home(Path(path)) for path in options.intermediates]
        with _about("--cache"):
            cache = where(options.cache, Path(CONFDIR))
        tiers.set(cache, paths)
    except (OSError, ValueError) as error:
        # It begins with the name of the proxy's option.
        raise CommandError(str(error).replace("aia_", "--", 1)) from error
    return tiers


@contextlib.contextmanager
def _about(flag: str) -> Iterator[None]:
    """What is wrong inside is wrong with this."""
    try:
        yield
    except ValueError as error:
        raise CommandError(f"{flag}: {error}") from error


def finish(results: Sequence[Result], trusted: str, options: argparse.Namespace) -> int:
    """Shows the results, writes what is to be written, and returns the exit status."""
    if options.json:
        print(in_flags(as_json(results)))
        _write_full_chain(results, options)
    elif len(results) == 1 or options.verbose:
        pen = pictures.Pen(sys.stdout)
        for position, result in enumerate(results):
            _print([""] if position else [])
            _print(pictures.picture(result, trusted, sys.stdout))
            written = _write_full_chain(results, options)
            if result.verdict is Verdict.BROKEN and result.inspection is not None:
                _print(pictures.what_may_help(result.inspection, pen))
            if result.verdict is Verdict.INCOMPLETE and options.noun == "server":
                file = options.fullchain or "fullchain.pem"
                starttls = result.link.starttls if result.link else ""
                _print(pictures.advice(file, starttls, written=written, pen=pen))
    else:
        _print(pictures.overview(results, options.noun, sys.stdout))
    return int(max((result.verdict for result in results), default=Verdict.UNREACHABLE))


def in_flags(text: str) -> str:
    """What is said of the proxy's options, in the words of the command line."""
    for option in "allow", "deny":
        text = text.replace(f"(aia_{option})", f"(--{option})")
    return text


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(in_flags(line))


def _write_full_chain(results: Sequence[Result], options: argparse.Namespace) -> bool:
    """Whether it was written."""
    if not options.fullchain:
        return False
    [result] = results
    chain = result.inspection.to_send if result.inspection else ()
    if not chain:
        complain(f"{options.fullchain} was not written: there is no verified chain to write")
        return False
    try:
        save(Path(options.fullchain), [full_chain(chain)])
    except OSError as error:
        raise CommandError(str(error)) from error
    return True
