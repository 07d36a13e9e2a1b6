"""The SQLite cache seen from outside: for the command line and the console's commands."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.sources.sqlite_file import BUSY_SECONDS, open_to_read, open_to_write
from mitmproxy_aia.sources.sqlite_rows import Database


class SqliteCache:
    """A `Cache`. The file is opened for each call, and only `add` makes one.

    Read, it is also when nobody may write it. Damaged, it is left for a proxy to set aside.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = resolved(path)

    @property
    def name(self) -> str:
        return str(self.path)

    def entries(self) -> Iterator[Entry]:
        with self._to_read() as database:
            if database:
                yield from database.entries()

    def issuers_of(self, subject: bytes, now: datetime.datetime) -> list[Entry]:
        """Those whose `Certificate.subject` is this one and that have not expired at `now`."""
        with self._to_read() as database:
            return database.issuers(subject, now.timestamp()) if database else []

    def add(self, entries: Iterable[Entry]) -> int:
        with contextlib.closing(open_to_write(self.path)) as database:
            return database.add(entries)

    def remove(self, fingerprints: Collection[bytes]) -> int:
        with self._to_write() as database:
            return database.remove(fingerprints) if database else 0

    def clear(self) -> int:
        with self._to_write() as database:
            return database.clear() if database else 0

    def prune(self, now: datetime.datetime) -> int:
        with self._to_write() as database:
            return database.prune(now.timestamp()) if database else 0

    def close(self) -> None:
        """Nothing is left open between calls."""

    @contextlib.contextmanager
    def _to_read(self) -> Iterator[Database | None]:
        database = open_to_read(self.path, patience=BUSY_SECONDS)
        try:
            yield database
        finally:
            if database:
                database.close()

    @contextlib.contextmanager
    def _to_write(self) -> Iterator[Database | None]:
        with self._to_read() as there:
            if there is None:
                yield None
                return
        with contextlib.closing(open_to_write(self.path)) as database:
            yield database


def resolved(path: str | os.PathLike[str]) -> Path:
    """`path` in full: `~` and links are followed, so that all who use it mean one file."""
    return Path(os.path.realpath(Path(path).expanduser()))
