"""The rows of one open SQLite file of certificates."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources.sqlite_errors import HAVE_SQLITE, Identity, explained, identity_of

if HAVE_SQLITE:
    import sqlite3

MOST_PER_SUBJECT = 50
PAGE_SIZE = 200
"""Rows that are read at a time when all are listed."""

_Row = tuple[bytes, bytes, bytes, bytes | None, int, str, int, int]

TABLES = (
    """CREATE TABLE certificate (
        fingerprint BLOB PRIMARY KEY,
        der BLOB NOT NULL,
        subject BLOB NOT NULL,
        subject_key_identifier BLOB,
        not_after INTEGER NOT NULL,
        origin TEXT NOT NULL,
        first_used INTEGER NOT NULL,
        last_used INTEGER NOT NULL
    )""",
    # The lookup skips what has expired, takes what is valid longest first, and stops at
    # MOST_PER_SUBJECT without sorting; the fingerprint makes the order total for paging.
    "CREATE INDEX by_subject ON certificate (subject, not_after, fingerprint)",
    "CREATE INDEX by_not_after ON certificate (not_after)",
)
_ENTRY = "der, origin, first_used, last_used"


class Database:
    """An open cache file. Every method raises `CacheError`.

    `identity` was taken before it was opened. `frozen` says that SQLite will not notice when
    the file changes.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity | None,
        connection: sqlite3.Connection,
        *,
        frozen: bool = False,
    ) -> None:
        self.path = path
        self.identity = identity
        self._connection = connection
        self._frozen = _version_of(path) if frozen else None

    @property
    def current(self) -> bool:
        """False once another file has its name, or none."""
        if self._frozen is not None and self._frozen != _version_of(self.path):
            return False
        return self.identity == identity_of(self.path)

    def issuers(self, subject: bytes, now: float) -> list[Entry]:
        """Those of this subject that are valid at `now` (seconds since 1970), not all if they
        are very many."""
        with explained(self.path, self.identity, ours=True):
            rows = self._connection.execute(
                f"SELECT {_ENTRY} FROM certificate WHERE subject = ? AND not_after >= ?"  # noqa: S608 -- a constant
                " ORDER BY not_after DESC LIMIT ?",
                (subject, int(now), MOST_PER_SUBJECT),
            ).fetchall()
        return list(_readable(rows))

    def last_use(self, fingerprint: bytes) -> float:
        """In seconds since 1970; 0 if it is not there, or that makes no sense."""
        with explained(self.path, self.identity, ours=True):
            row = self._connection.execute(
                "SELECT last_used FROM certificate WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
        return float(row[0]) if row and isinstance(row[0], int) else 0.0

    def version(self) -> int:
        """Changes when others write to it. Says nothing of another `Database`."""
        with explained(self.path, self.identity, ours=True):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def entries(self) -> Iterator[Entry]:
        """All, in the order of their subjects.

        Read a page at a time: one long statement would keep every writer's log from being
        folded into the file until somebody has read to the end of the list.
        """
        last: tuple[bytes, int, bytes] = (b"", -1, b"")
        while True:
            with explained(self.path, self.identity, ours=True):
                rows = self._connection.execute(
                    f"SELECT {_ENTRY}, subject, not_after, fingerprint FROM certificate"  # noqa: S608 -- a constant
                    " WHERE (subject, not_after, fingerprint) > (?, ?, ?)"
                    " ORDER BY subject, not_after, fingerprint LIMIT ?",
                    (*last, PAGE_SIZE),
                ).fetchall()
            if not rows:
                return
            yield from _readable(row[:4] for row in rows)
            last = rows[-1][4:]

    def add(
        self, entries: Iterable[Entry], *, resolution: int = 1, expired_at: float | None = None
    ) -> int:
        """Returns how many were new; all are written, or none. The last use of the others moves
        if it is `resolution` seconds later. What has expired at `expired_at` goes."""
        # Read to the end first: others must not wait for whatever these are made from.
        rows = [_row(entry) for entry in entries]
        new = 0
        with self._transaction():
            for row in rows:
                inserted = self._connection.execute(
                    "INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (fingerprint) DO NOTHING",
                    row,
                ).rowcount
                new += inserted
                if not inserted:
                    self._connection.execute(
                        "UPDATE certificate SET last_used = ?"
                        " WHERE fingerprint = ? AND last_used <= ?",
                        (row[-1], row[0], row[-1] - resolution),
                    )
            if expired_at is not None:
                self._prune(expired_at)
        return new

    def remove(self, fingerprints: Collection[bytes]) -> int:
        """Returns how many there were."""
        with self._transaction():
            return sum(
                self._connection.execute(
                    "DELETE FROM certificate WHERE fingerprint = ?", (fingerprint,)
                ).rowcount
                for fingerprint in fingerprints
            )

    def clear(self) -> int:
        """Returns how many there were."""
        with self._transaction():
            return self._connection.execute("DELETE FROM certificate").rowcount

    def prune(self, now: float) -> int:
        """Removes what has expired at `now` (seconds since 1970), and returns how many."""
        with self._transaction():
            return self._prune(now)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _prune(self, now: float) -> int:
        return self._connection.execute(
            "DELETE FROM certificate WHERE not_after < ?", (int(now),)
        ).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path, self.identity, ours=True), transaction(self._connection):
            yield


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. The lock is taken at the start: one taken midway cannot wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, for example when the disk is full.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _row(entry: Entry) -> _Row:
    certificate = entry.certificate
    return (
        certificate.fingerprint,
        certificate.der,
        certificate.subject,
        certificate.subject_key_identifier,
        int(certificate.not_after.timestamp()),
        # The name of a file may hold what is not UTF-8, and SQLite takes nothing else.
        entry.origin.encode(errors="replace").decode(),
        int(entry.first_used.timestamp()),
        int(entry.last_used.timestamp()),
    )


def _readable(rows: Iterable[tuple[bytes, object, int, int]]) -> Iterator[Entry]:
    """Rows that make no sense are passed over: a file can have been edited by anybody."""
    for der, origin, first_used, last_used in rows:
        try:
            yield Entry(
                Certificate.from_der(der),
                str(origin),
                datetime.datetime.fromtimestamp(first_used, datetime.UTC),
                datetime.datetime.fromtimestamp(last_used, datetime.UTC),
            )
        except (ValueError, TypeError, OverflowError, OSError):
            continue


def _version_of(path: Path) -> tuple[int, int] | None:
    """Changes when the file is written to."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
