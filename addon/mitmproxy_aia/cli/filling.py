"""`mitmproxy-aia cache add` and `cache import`: certificates from files into a cache."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator
from itertools import islice

from mitmproxy_aia.cache import Cache, Entry
from mitmproxy_aia.ccadb import MOZILLA_REPORT, BadRow, read_any
from mitmproxy_aia.cli.intake import Input, Tally, inputs, useless
from mitmproxy_aia.cli.managing import opened
from mitmproxy_aia.cli.terminal import CommandError, Progress, complain
from mitmproxy_aia.cli.views import summary
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import one_line

MOST_LISTED = 50
"""Certificates of one file that `add` names one by one."""
BATCH = 500
"""Certificates that `import` writes together: proxies that write meanwhile have to wait."""


def add(options: argparse.Namespace) -> int:
    tally, failed = Tally(), False
    with opened(options) as cache:
        for source in inputs(options.file):
            if isinstance(source, CommandError):
                complain(str(source))
                failed = True
                continue
            before = tally.useful
            try:
                _add(source, cache, tally)
            except ValueError as error:
                complain(f"{source.name} {error}")
                failed = failed or source.named
                continue
            if source.named and tally.useful == before:
                complain(f"{source.name} holds no intermediate that could complete a chain")
                failed = True
    print(tally)
    return 1 if failed or not tally.useful else 0


def _add(source: Input, cache: Cache, tally: Tally) -> None:
    """Raises ValueError if there is no certificate."""
    now = _now()
    entries = [
        Entry(certificate, source.origin, now, now)
        for certificate in read_certificates(source.data)
    ]
    tally.read += len(entries)
    useful: list[Entry] = []
    for entry in entries:
        if reason := useless(entry.certificate, now):
            tally.skipped[reason] += 1
            if len(entries) <= MOST_LISTED:
                print(f"skipped  {summary(entry)} ({reason})")
        else:
            useful.append(entry)
    if len(entries) > MOST_LISTED:
        tally.new += cache.add(useful)
        return
    for entry in useful:
        # One by one: that tells which was new.
        new = cache.add([entry])
        tally.new += new
        print(f"{'new' if new else 'there':7}  {summary(entry)}")


def import_(options: argparse.Namespace) -> int:
    url = options.url or (MOZILLA_REPORT if options.mozilla else "")
    files = [*options.ccadb, *options.file]
    if not files and not url:
        options.parser.error("name a FILE, or --mozilla")
    tally = Tally()
    with opened(options) as cache:
        for source in _sources(url, files):
            if isinstance(source, CommandError):
                complain(str(source))
                continue
            with Progress(source.name) as progress:
                entries = _entries(source, tally, progress)
                try:
                    while batch := list(islice(entries, BATCH)):
                        tally.new += cache.add(batch)
                except ValueError as error:
                    progress.clear()
                    complain(f"{source.name} {error}")
    print(tally)
    return 0 if tally.useful else 1


def _sources(url: str, files: list[str]) -> Iterator[Input | CommandError]:
    if url:
        yield _downloaded(url)
    yield from inputs(files)


def _downloaded(url: str) -> Input | CommandError:
    from mitmproxy_aia.cli.report_download import download, without_password

    try:
        shown = without_password(url)
        with Progress(shown) as progress:
            data = download(url, lambda done, total: progress.update(done, total, _megabytes(done)))
    except CommandError as error:
        return error
    return Input(shown, shown, data)


def _entries(source: Input, tally: Tally, progress: Progress) -> Iterator[Entry]:
    """What is worth keeping. Raises ValueError if the data are nothing that can be read."""
    now, lines = _now(), source.data.count(b"\n")
    for row in read_any(source.data):
        progress.update(row.line, lines, f"{tally.read:,} read")
        if isinstance(row, BadRow):
            tally.bad_rows += 1
            progress.clear()
            print(one_line(f"{source.name}:{row.line}: {row.reason}"), file=sys.stderr)
            continue
        tally.read += 1
        if reason := useless(row.certificate, now):
            tally.skipped[reason] += 1
            continue
        yield Entry(row.certificate, row.source or source.origin, now, now)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
