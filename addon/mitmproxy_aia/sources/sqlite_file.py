"""Making, opening and setting aside a SQLite file of certificates."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mitmproxy_aia.cache import CacheError
from mitmproxy_aia.sources.sqlite_errors import (
    APPLICATION_ID,
    HAVE_SQLITE,
    Identity,
    Locked,
    error_code,
    explained,
    identity_of,
)
from mitmproxy_aia.sources.sqlite_rows import TABLES, Database, transaction

if HAVE_SQLITE:
    import sqlite3
if sys.platform != "win32":
    import fcntl

SCHEMA = 1
"""The user_version. To be raised when the tables change, or `names.name_key`."""
BUSY_SECONDS = 5.0
MOST_SET_ASIDE = 20
OPENINGS = 3
"""How often a file that is being replaced is opened, at most."""

_SIDECARS = ("-wal", "-shm", "-journal")


def open_to_read(path: Path, *, patience: float = 0.0) -> Database | None:
    """None if there is no file yet, or nothing in it. `patience` is in seconds.

    Raises `Damaged`, `Locked`, and `CacheError` for a file that is not for us.
    """
    return _settled(path, lambda: _open_to_read(path, patience))


def open_to_write(path: Path, *, patience: float = BUSY_SECONDS) -> Database:
    """Makes the file if there is none, or an empty one. `patience` is in seconds.

    Raises `Damaged`, `Locked`, and `CacheError` if it cannot be written or is not for us.
    """
    return _settled(path, lambda: _open_to_write(path, patience))


_Opened = TypeVar("_Opened", bound=Database | None)


def _settled(path: Path, open_once: Callable[[], _Opened]) -> _Opened:
    """What `open_once` gives if the file has kept its name meanwhile. Otherwise neither that
    nor its fault counts, and it is called again."""
    fault: CacheError = Locked(f"{path} is being replaced by another process")
    for _ in range(OPENINGS):
        identity = identity_of(path)
        try:
            database = open_once()
        except CacheError as error:
            if identity_of(path) == identity:
                raise
            fault = error
        else:
            if database is None or _is_whole(database):
                return database
    raise fault


def _is_whole(database: Database) -> bool:
    """False, and it is closed, if another file got its name while it was opened: SQLite finds
    the log beside a file by name, and so may have taken that of the other one for its own."""
    whole = False
    try:
        whole = database.current
    finally:
        if not whole:
            database.close()
    return whole


def _open_to_read(path: Path, patience: float) -> Database | None:
    identity = identity_of(path)
    with explained(path, identity):
        if identity is None or not _is_ours_at_a_glance(path):
            return None
        frozen = False
        connection = _connect(path, "mode=rw", patience)
        try:
            try:
                ready = _is_ours(connection, path)
            except sqlite3.OperationalError as error:
                # In a folder that cannot be written the files beside it cannot be made. If
                # there are none, nobody is writing, and it can be read as it is.
                unwritable = error_code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
                if not unwritable or _beside(path, "-wal").exists():
                    raise
                connection.close()
                frozen, connection = True, _connect(path, "immutable=1", patience)
                ready = _is_ours(connection, path)
            # A last line of defence: lookups are made in the event loop and must not write.
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        if not ready:  # another process is about to make it
            connection.close()
            return None
        return Database(path, identity, connection, frozen=frozen)


def _open_to_write(path: Path, patience: float) -> Database:
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if identity_of(path) is None:
            with _alone(path, patience), contextlib.suppress(FileExistsError):
                # What it holds tells which sites were visited. SQLite gives the files beside
                # it the same mode. One that is there already is never opened here: closing
                # it again would drop the locks that SQLite has on it in this process.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    identity = identity_of(path)
    with explained(path, identity):
        _is_ours_at_a_glance(path)
        connection = _connect(path, "mode=rw", patience)
        try:
            _prepare(connection, path, patience)
        except BaseException:
            connection.close()
            raise
        return Database(path, identity, connection)


def set_aside(path: Path, identity: Identity | None) -> Path | None:
    """Renames a damaged file, together with the files beside it, and returns its new name.

    None if `path` is no longer that file: another process was faster.
    """
    with explained(path), _alone(path, BUSY_SECONDS):
        if identity is None or identity_of(path) != identity:
            return None
        for number in range(1, MOST_SET_ASIDE + 1):
            name = path.with_name(f"{path.name}.corrupt" + (f"-{number}" if number > 1 else ""))
            if not os.path.lexists(name):
                break
        else:
            raise CacheError(f"{path} is damaged, and so were {MOST_SET_ASIDE} before it")
        path.rename(name)
        for suffix in _SIDECARS:
            with contextlib.suppress(FileNotFoundError):
                _beside(path, suffix).rename(_beside(name, suffix))
        return name


def _connect(path: Path, parameters: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{parameters}",
        uri=True,
        timeout=patience,
        isolation_level=None,  # transactions begin where we say so
        check_same_thread=False,  # whoever uses it has a lock
    )
    # A file that somebody has edited may hold text that is none.
    connection.text_factory = lambda text: text.decode(errors="replace")
    # Anybody may have made the file: nothing in its schema may call functions that act.
    connection.execute("PRAGMA trusted_schema = OFF")
    # Damage is found where it is, and not taken for data.
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, patience: float) -> None:
    if not _is_ours(connection, path):
        with _alone(path, patience), transaction(connection):
            # Looked at again, now that nobody else can be making it. All in one transaction
            # and before WAL, so that both numbers are in the file itself from the start.
            if not _is_ours(connection, path):
                for statement in TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        with _alone(path, patience):
            # Readers, which are event loops, never wait for a writer nor a writer for them.
            connection.execute("PRAGMA journal_mode = WAL")
    # With WAL a killed process loses nothing that was committed, and a power cut at worst the
    # last commits and never the file. FULL would add an fsync to each, for what can be
    # downloaded again.
    connection.execute("PRAGMA synchronous = NORMAL")
    # A big import is one transaction; without this its log would keep its size for good.
    connection.execute("PRAGMA journal_size_limit = 1048576")
    # Whether it can be written is asked now, and not with something in hand.
    with transaction(connection):
        pass


def _is_ours_at_a_glance(path: Path) -> bool:
    """As `_is_ours`, from the bare file, and False where that is not enough to tell.

    To open a database changes it if a process that used it was killed. That must not happen
    to a file of another program, so nothing but the file is looked at, and no lock is taken.
    """
    try:
        with contextlib.closing(_connect(path, "immutable=1", 0.0)) as connection:
            return _is_ours(connection, path)
    except sqlite3.DatabaseError:
        # Perhaps caught while it was written. The real thing has the last word.
        return path.stat().st_size > 0


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """False if there is nothing in the database yet. Raises CacheError if it is foreign."""
    with _one_moment(connection):
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if application == APPLICATION_ID:
        if version > SCHEMA:
            raise CacheError(f"{path} was written by a newer version of mitmproxy-aia")
        return True
    if application or version or tables:
        raise CacheError(f"{path} belongs to another program")
    return False


@contextlib.contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read in here is as it was when the first of it was read: another process may be
    making the database."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()


@contextlib.contextmanager
def _alone(path: Path, patience: float) -> Iterator[None]:
    """One process at a time makes the file, or sets it aside.

    Otherwise one could take away what another has just begun. It is the folder that is
    locked: a file for the purpose would lie about, and the database itself must not be
    opened by anyone but SQLite.
    """
    if sys.platform == "win32":
        yield  # Folders cannot be locked there: the comparison of files must do.
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while not _try_lock(folder):
            if time.monotonic() >= deadline:
                raise Locked(f"{path} is locked by another process")
            time.sleep(0.01)  # in the writer's thread or the command line: flock cannot time out
        yield
    finally:
        os.close(folder)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks: the comparison of files must do
        pass
    return True


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
