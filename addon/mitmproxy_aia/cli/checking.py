"""`mitmproxy-aia check`: what servers present, what is missing, and where it is."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence

from mitmproxy_aia.cli.inspecting import finish, limits_of, opened_tiers
from mitmproxy_aia.cli.intake import STDIN
from mitmproxy_aia.cli.terminal import CommandError, Progress, count
from mitmproxy_aia.inspection.client import How
from mitmproxy_aia.inspection.inspector import Inspector
from mitmproxy_aia.inspection.results import Result
from mitmproxy_aia.inspection.starttls import PROTOCOLS
from mitmproxy_aia.inspection.targets import Target, canonical_host, parse_target
from mitmproxy_aia.names import one_line
from mitmproxy_aia.sources.resolver import Resolver
from mitmproxy_aia.trust import Trust

HTTPS = 443
MAX_LIST = 16 * 2**20
"""Bytes of a file with hosts."""


def check(options: argparse.Namespace) -> int:
    port = PROTOCOLS[options.starttls][1] if options.starttls else HTTPS
    targets = list(dict.fromkeys(_targets(options, port)))
    if not targets:
        raise CommandError("there is no host to check: name one, or a file with --from")
    if len(targets) > 1:
        for flag in "fullchain", "sni", "connect":
            if getattr(options, flag):
                raise CommandError(f"--{flag} is for one host, and there are {len(targets):,}")
    try:
        how = How(
            parse_target(options.connect, 0) if options.connect else None,
            canonical_host(options.sni) if options.sni else "",
            options.starttls or "",
            options.timeout,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    trust = Trust(options.trust)
    return finish(asyncio.run(_inspect(targets, how, trust, options)), trust.words, options)


def _targets(options: argparse.Namespace, port: int) -> Iterator[Target]:
    for text in options.host:
        try:
            yield parse_target(text, port)
        except ValueError as error:
            raise CommandError(str(error)) from error
    for file in options.hosts_from:
        name = "stdin" if file == STDIN else file
        for number, line in enumerate(_read(file).splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text:
                try:
                    yield parse_target(text, port)
                except ValueError as error:
                    raise CommandError(f"{name}:{number}: {error}") from error


def _read(file: str) -> str:
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_LIST + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(MAX_LIST + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read ({error.strerror or error})") from error
    if len(data) > MAX_LIST:
        raise CommandError(f"{file} is larger than {MAX_LIST >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is no text in UTF-8") from error


async def _inspect(
    targets: Sequence[Target], how: How, trust: Trust, options: argparse.Namespace
) -> list[Result]:
    """In the order of the targets."""
    results: dict[Target, Result] = {}
    waiting = iter(targets)
    resolve = Resolver()
    async with opened_tiers(options) as tiers:
        try:
            inspector = Inspector(
                trust, lambda: tiers.sources, limits_of(options), tls12=options.tls12
            )
        except OSError as error:
            raise CommandError(f"--trust: {error}") from error
        with Progress("checking") as progress:

            async def work() -> None:
                for target in waiting:
                    _show(progress, len(results), len(targets), target)
                    results[target] = await inspector.server(target, how, resolve)

            async with asyncio.TaskGroup() as group:
                for _ in range(min(options.jobs, len(targets))):
                    group.create_task(work())
    return [results[target] for target in targets]


def _show(progress: Progress, done: int, total: int, target: Target) -> None:
    if total > 1:
        progress.update(done, total, f"{done:,} of {count(total, 'host')}  ")
    else:
        progress.update(0, 0, one_line(target.text))
