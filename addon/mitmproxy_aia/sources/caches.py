"""Which cache a text means, in the option `aia_cache` and on the command line, and opening it."""

from __future__ import annotations

import datetime
from pathlib import Path

from mitmproxy_aia.cache import Cache
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources import ClosableSource

CACHE_FILE = "aia.sqlite3"
"""In mitmproxy's confdir, unless another one is named."""
MEMORY_ONLY = "memory"

Where = Path | str
"""The path of an SQLite file, a Redis URL or `MEMORY_ONLY`."""


def where(text: str, confdir: Path) -> Where:
    """What `text` names; if it is empty, the file in mitmproxy's `confdir`.

    Raises ValueError with a sentence free of passwords.
    """
    text = text.strip()
    if text.lower() == MEMORY_ONLY:
        return MEMORY_ONLY
    scheme, separator, _ = text.partition("://")
    if not separator and text.startswith(("redis:", "rediss:")):
        raise ValueError("takes redis://host:port/db, with two slashes")
    if scheme in ("redis", "rediss") and separator:
        from mitmproxy_aia.sources.redis_url import check_url

        check_url(text)
        return text
    if separator:
        raise ValueError(
            f"takes the path of a file, redis://host:port/db, rediss://host:port/db or "
            f"{MEMORY_ONLY}, and not {printable(scheme)}://..."
        )
    return from_home(Path(text) if text else confdir / CACHE_FILE)


def from_home(path: Path) -> Path:
    """`path` with the home of ~ or ~user. Raises ValueError if there is none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{printable(str(path))} begins with a user without a home") from error


def open_cache(where: Where) -> Cache:
    """The cache for a person to look into. Raises CacheError, and ValueError for `MEMORY_ONLY`:
    what a proxy has in memory cannot be seen from outside."""
    if isinstance(where, Path):
        from mitmproxy_aia.sources.sqlite_cache import SqliteCache

        return SqliteCache(where)
    if where == MEMORY_ONLY:
        raise ValueError("what a proxy has in memory cannot be seen from outside")
    from mitmproxy_aia.sources.redis_cache import RedisCache

    return RedisCache(where)


def open_source(where: Where, *, at: datetime.datetime | None = None) -> ClosableSource | None:
    """The cache for a completion to ask; None for `MEMORY_ONLY`. Raises CacheError if what it
    takes is not installed. Nothing is connected or read yet. `at` is when what it gives is to be
    valid, if not now; Redis holds nothing that has expired."""
    if isinstance(where, Path):
        from mitmproxy_aia.sources.sqlite import SqliteSource

        return SqliteSource(where, at=at)
    if where == MEMORY_ONLY:
        return None
    from mitmproxy_aia.sources.redis import RedisSource

    return RedisSource(where)
