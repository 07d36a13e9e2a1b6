"""`mitmproxy-aia cache`: looking into a cache from outside, and changing it."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from mitmproxy_aia.bundle import save, write_bundle
from mitmproxy_aia.cache import Cache, Entry
from mitmproxy_aia.cli import terminal, views
from mitmproxy_aia.cli.choosing import Choice, choose
from mitmproxy_aia.cli.configuration import configured_cache
from mitmproxy_aia.cli.terminal import CommandError, complain, count
from mitmproxy_aia.names import one_line
from mitmproxy_aia.sources.caches import open_cache, where

STDOUT = "-"


def list_(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        entries, empty = _looked_ahead(cache.entries())
        if options.json:
            _print_json(entries)
        elif not empty and terminal.is_terminal(sys.stdout):
            width = shutil.get_terminal_size().columns
            for line in views.as_table(entries, _now(), width):
                print(line)
        else:
            for entry in entries:
                print(views.as_line(entry))
        if empty:
            _say_empty(cache)
    return 0


def show(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        [choice] = choose(cache.entries(), [options.certificate])
        if not _is_one(choice, cache):
            return 1
    [entry] = choice.entries
    if options.json:
        print(views.as_json(entry, pem=views.pem(entry.certificate)))
    else:
        for line in views.in_full(entry, _now()):
            print(line)
    return 0


def remove(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        choices = choose(cache.entries(), options.certificate)
        # `_is_one` complains of each that is not, and the others are removed all the same.
        good = [
            choice
            for choice in choices
            if (options.all and choice.fingerprints) or _is_one(choice, cache)
        ]
        if wanted := {each for choice in good for each in choice.fingerprints}:
            removed = cache.remove(wanted)
            named = {line: None for choice in good for line in choice.candidates()}
            print("\n".join(f"removed  {line}" for line in named))
            if len(wanted) > 1:
                print(f"{count(removed, 'certificate')} removed")
    return 0 if len(good) == len(choices) else 1


def clear(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        if not options.yes:
            if not sys.stdin.isatty():
                options.parser.error("there is no terminal to ask for confirmation: add --yes")
            if not _confirmed(f"Remove all certificates from {cache.name}?"):
                complain("nothing was removed")
                return 1
        print(f"{count(cache.clear(), 'certificate')} removed from {one_line(cache.name)}")
    return 0


def prune(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        removed = cache.prune(_now())
        print(f"{count(removed, 'expired certificate')} removed from {one_line(cache.name)}")
    return 0


def export(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        written = 0

        def wanted() -> Iterator[Entry]:
            nonlocal written
            for entry in cache.entries():
                if not options.not_expired or entry.certificate.not_after >= _now():
                    written += 1
                    yield entry
            if not written:
                raise CommandError(f"{cache.name} holds nothing to export; nothing was written")

        # The last certificate is read before the first is written, so what is raised until
        # then leaves a good file as it is.
        parts = write_bundle(wanted())
        if options.file == STDOUT:
            for part in parts:
                print(part, end="")
            return 0
        try:
            save(Path(options.file), parts)
        except OSError as error:
            raise CommandError(str(error)) from error
        print(f"{count(written, 'certificate')} written to {one_line(options.file)}")
    return 0


def path(options: argparse.Namespace) -> int:
    with opened(options) as cache:
        print(cache.name)
    return 0


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[Cache]:
    """The cache that --cache names, or mitmproxy's configuration in --confdir. Raises
    CommandError and CacheError."""
    text, said_by = options.cache, "--cache"
    try:
        confdir = Path(options.confdir).expanduser()
        if not text and (configured := configured_cache(confdir)) is not None:
            text, said_by = configured[0], f"aia_cache in {configured[1]}"
        cache = open_cache(where(text, confdir))
    except (ValueError, RuntimeError) as error:  # the latter for a ~user who does not exist
        raise CommandError(f"{said_by}: {error}") from error
    with contextlib.closing(cache):
        yield cache


def _looked_ahead(entries: Iterator[Entry]) -> tuple[Iterator[Entry], bool]:
    """The same entries, and whether there are none."""
    first = next(entries, None)
    if first is None:
        return iter(()), True

    def all_of_them() -> Iterator[Entry]:
        yield first
        yield from entries

    return all_of_them(), False


def _print_json(entries: Iterator[Entry]) -> None:
    """An array, one element in a line. It is never whole in memory."""
    separator = "[\n"
    for entry in entries:
        print(f"{separator}{views.as_json(entry)}", end="")
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]")


def _say_empty(cache: Cache) -> None:
    # The name of a cache is a path or a URL, and no path is both absolute and a URL.
    missing = cache.name.startswith("/") and not os.path.exists(cache.name)
    complain(f"{cache.name} is empty" + (" (there is no such file yet)" if missing else ""))


def _is_one(choice: Choice, cache: Cache) -> bool:
    """False, and told on stderr with what could have been meant, if `choice` is not one."""
    problem = choice.problem(cache.name)
    if problem:
        complain(problem + (", name one by its SHA-256:" if choice.entries else ""))
        for line in choice.candidates():
            print(f"  {line}", file=sys.stderr)
    return not problem


def _confirmed(question: str) -> bool:
    print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
