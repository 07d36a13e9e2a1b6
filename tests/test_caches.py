"""What the option `aia_cache` and `--cache` may say."""

from pathlib import Path

import pytest

from mitmproxy_aia.sources.caches import open_cache, open_source, where
from mitmproxy_aia.sources.redis import RedisSource
from mitmproxy_aia.sources.redis_cache import RedisCache
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache

REDIS = "redis://:secret@redis.example:6379/0"


def test_default(tmp_path: Path) -> None:
    """A file in mitmproxy's confdir."""
    assert where("", tmp_path) == tmp_path / "aia.sqlite3"
    assert where("", Path("~/.mitmproxy")) == Path.home() / ".mitmproxy" / "aia.sqlite3"


def test_path(tmp_path: Path) -> None:
    """As the shell would understand it, and relative to the folder that one is in."""
    assert where("~/cache.db", tmp_path) == Path.home() / "cache.db"
    assert where("cache.db", tmp_path) == Path("cache.db")


@pytest.mark.parametrize("text", ["memory", REDIS, "rediss://redis.example/1"])
def test_words_and_urls(tmp_path: Path, text: str) -> None:
    """They stay what they are."""
    assert where(text, tmp_path) == text


@pytest.mark.parametrize("text", ["http://:secret@cache.example/", "sqlite:///secret"])
def test_other_urls(tmp_path: Path, text: str) -> None:
    """The message says what is possible, and quotes nothing but the scheme."""
    with pytest.raises(ValueError, match=r"^takes the path of a file, redis://") as error:
        where(text, tmp_path)
    assert "secret" not in str(error.value)


def test_home_of_nobody(tmp_path: Path) -> None:
    """It is named, on one line."""
    with pytest.raises(ValueError, match=r"^~no\\none/x begins with a user without a home$"):
        where("~no\none/x", tmp_path)


def test_bad_redis_url(tmp_path: Path) -> None:
    """It is found before anything connects, and without the password in the message."""
    with pytest.raises(ValueError, match="a Redis URL") as error:
        where("redis://:secret@redis.example:port/0", tmp_path)
    assert "secret" not in str(error.value)


def test_opening(tmp_path: Path) -> None:
    """Of each kind the right one; nothing is connected or made."""
    path = tmp_path / "aia.sqlite3"
    assert isinstance(open_cache(path), SqliteCache)
    assert isinstance(open_cache(REDIS), RedisCache)
    with pytest.raises(ValueError, match="cannot be seen from outside"):
        open_cache("memory")
    source = open_source(path)
    assert isinstance(source, SqliteSource)
    source.close()
    source = open_source(REDIS)
    assert isinstance(source, RedisSource)
    source.close()
    assert open_source("memory") is None
    assert not path.exists()
