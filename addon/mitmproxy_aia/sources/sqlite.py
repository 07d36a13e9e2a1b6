"""Issuers remembered on disk, in a SQLite file that several proxies may share."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Attempt, Budget, Found, no_attempts
from mitmproxy_aia.sources.sqlite_cache import resolved
from mitmproxy_aia.sources.sqlite_errors import Locked
from mitmproxy_aia.sources.sqlite_file import open_to_read
from mitmproxy_aia.sources.sqlite_rows import Database
from mitmproxy_aia.sources.sqlite_writer import Writer

LOOK_SECONDS = 5.0
"""How often it is asked, at most, whether others have changed the file."""


class SqliteSource:
    """An `IssuerSource`. `path` is opened when it is first asked, and made when something is
    first kept.

    Lookups read the file where they are called, without ever waiting for another process; all
    else happens in a thread. With a file that cannot be used, nothing is known and nothing
    kept, a warning is logged, and later it is tried again.

    What is kept again and again is written once. When others have changed the file it is
    looked up again, and so what is in use comes back if they have removed it, or the file.

    `at` is when what it gives has to be valid, if not now.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, at: datetime.datetime | None = None
    ) -> None:
        self._at = at
        self.path = resolved(path)
        self.name = self.path.name
        self._reading = threading.Lock()
        self._database: Database | None = None
        self._closed = False
        self._look_at = 0.0
        self._seen: tuple[Database, int] | None = None
        self._writer = Writer(self.path)

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        now = self._at or datetime.datetime.now(datetime.UTC)
        with self._reading:
            entries = self._look_up(certificate.issuer, now)
        for entry in entries:
            self._writer.note(entry.certificate.fingerprint, entry.last_used.timestamp())
        return [Found(entry.certificate, entry.origin, cache=self.name) for entry in entries]

    def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        return no_attempts()

    def keep(self, found: Sequence[Found]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        with self._reading:
            self._notice_changes()
            for item in found:
                fingerprint = item.certificate.fingerprint
                if not self._writer.has_noted(fingerprint) and (used := self._used(fingerprint)):
                    self._writer.note(fingerprint, used)
        for item in found:
            self._writer.put(Entry(item.certificate, item.origin, now, now))

    def close(self) -> None:
        """Writes what is still to be written, within seconds. It knows and keeps nothing more."""
        with self._reading:
            self._closed = True
            self._close_file()
        self._writer.close()

    def _look_up(self, subject: bytes, now: datetime.datetime) -> list[Entry]:
        entries: list[Entry] = []
        with self._examined():
            if database := self._current():
                entries = database.issuers(subject, now.timestamp())
        return entries

    def _used(self, fingerprint: bytes) -> float:
        used = 0.0
        with self._examined():
            if self._database:
                used = self._database.last_use(fingerprint)
        return used

    def _notice_changes(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        seen = None
        with self._examined():
            if database := self._current():
                seen = (database, database.version())
        if seen is None or seen != self._seen:
            self._seen = seen
            self._writer.forget()

    def _current(self) -> Database | None:
        """The file that has the name now, if there is one and it may be tried."""
        if self._database and not self._database.current:
            self._close_file()
        if self._database is None and not self._closed and not self._writer.resting:
            self._database = open_to_read(self.path)
        return self._database

    @contextlib.contextmanager
    def _examined(self) -> Iterator[None]:
        """Has the writer look at a fault, which ends the block."""
        try:
            yield
        except CacheError as fault:
            if not isinstance(fault, Locked):
                self._close_file()
            self._writer.examine(fault)

    def _close_file(self) -> None:
        if self._database:
            self._database.close()
            self._database = None
