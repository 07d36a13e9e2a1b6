"""What can be wrong with a SQLite file of certificates, in words."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mitmproxy_aia.cache import CacheError

HAVE_SQLITE = True
try:
    import sqlite3
except ImportError:  # some Pythons are built without it
    HAVE_SQLITE = False

APPLICATION_ID = 0x41494143  # "AIAC": tells our file from that of another program

_MAGIC = b"SQLite format 3\0"
# What the header of every SQLite file has in bytes 21 to 23 (https://sqlite.org/fileformat.html).
_FRACTIONS = bytes([64, 32, 32])
_HEADER_SIZE = 100


class Locked(CacheError):
    """Another process has the file to itself. It will be over soon."""


class Damaged(CacheError):
    """The file is ours and can no longer be read. `identity` tells which file that is."""

    def __init__(self, message: str, identity: Identity | None) -> None:
        super().__init__(message)
        self.identity = identity


class Identity(NamedTuple):
    """Which file it is, whatever its name."""

    device: int
    inode: int


def identity_of(path: Path) -> Identity | None:
    """None if there is no such file. Raises `CacheError` if it is something else."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"{path} cannot be used: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise CacheError(f"{path} is not a file")
    return Identity(facts.st_dev, facts.st_ino)


@contextlib.contextmanager
def explained(
    path: Path, identity: Identity | None = None, *, ours: bool = False
) -> Iterator[None]:
    """Turns what SQLite and the operating system raise into a `CacheError` about `path`.

    `identity` is that of the file in use, and from before it was opened: by the time a fault
    is seen, another process may have put a good file in its place. With `ours`, it need not
    be looked at to know whose it is.
    """
    if not HAVE_SQLITE:
        raise CacheError(f"{path} cannot be used: this Python has no sqlite3 module")
    try:
        yield
    except CacheError:
        raise
    except sqlite3.Error as error:
        code = error_code(error)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            if not ours:
                _refuse_strangers(path)
            raise Damaged(f"{path} is damaged: {error}", identity) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Locked(f"{path} is locked by another process") from error
        raise CacheError(f"{path} {_reason(error)}") from error
    except OSError as error:
        raise CacheError(f"{path} cannot be used: {error.strerror}") from error


def error_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if it was not SQLite that complained."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _refuse_strangers(path: Path) -> None:
    """Raises CacheError if an unreadable file does not look as if it had been ours.

    A header that is itself damaged gets the benefit of the doubt: it is only renamed.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
    except OSError:  # set aside by another process just now
        return
    if not header.startswith(_MAGIC):
        raise CacheError(f"{path} is not a SQLite file")
    application = int.from_bytes(header[68:72], "big")
    if header[21:24] == _FRACTIONS and application != APPLICATION_ID:
        raise CacheError(f"{path} belongs to another program, and is damaged")


def _reason(error: sqlite3.Error) -> str:
    code = error_code(error)
    if code == sqlite3.SQLITE_FULL:
        return "cannot be written: the disk is full"
    if code == sqlite3.SQLITE_READONLY:
        return "is read-only"
    if code == sqlite3.SQLITE_CANTOPEN:
        return "cannot be opened: SQLite must be able to read and write it and its folder"
    return f"cannot be used: {error}"
