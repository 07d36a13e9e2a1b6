"""The issuer source on disk: what it knows, what it writes, and when it does neither."""

import asyncio
import contextlib
import datetime
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import (
    Attempt,
    Budget,
    Found,
    IssuerSource,
    sqlite,
    sqlite_file,
    sqlite_writer,
)
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.lab import Issued, authority

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HOUR = datetime.timedelta(hours=1)
ORIGIN = "http://ca.example/"


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def found(*issued: Issued) -> list[Found]:
    return [Found(certificate(each), ORIGIN) for each in issued]


def entry(issued: Issued, used: datetime.datetime = NOW) -> Entry:
    return Entry(certificate(issued), ORIGIN, used, used)


def until(condition: Callable[[], object]) -> None:
    """Waits for what another thread or process does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def cache(tmp_path: Path) -> SqliteCache:
    return SqliteCache(tmp_path / "aia.sqlite3")


@pytest.fixture
def source(cache: SqliteCache) -> Iterator[SqliteSource]:
    source = SqliteSource(cache.path)
    yield source
    source.close()


def test_knows_what_was_kept(source: SqliteSource) -> None:
    """By the issuer's name, with where it came from first and where it is now."""
    ca, other = authority("CA"), authority("another")
    leaf = certificate(ca.issue())
    as_source: IssuerSource = source
    assert as_source.known_issuers(leaf) == []
    source.keep(found(ca, other))
    until(lambda: source.known_issuers(leaf))
    assert source.known_issuers(leaf) == [Found(certificate(ca), ORIGIN, cache="aia.sqlite3")]


def test_remembers_across_instances(source: SqliteSource, cache: SqliteCache) -> None:
    """`close` writes what was just kept, and a later instance in the process knows it at once,
    in its first lookup."""
    ca = authority()
    source.keep(found(ca))
    source.close()
    second = SqliteSource(cache.path)
    assert [each.certificate for each in second.known_issuers(certificate(ca.issue()))] == [
        certificate(ca)
    ]
    second.keep(found(authority("another")))
    second.close()
    assert len(list(cache.entries())) == 2


def test_closed_is_closed(source: SqliteSource, cache: SqliteCache) -> None:
    """It can be closed twice and without ever having been used; then it does nothing more."""
    cache.add([entry(ca := authority())])
    SqliteSource(cache.path).close()
    source.close()
    source.close()
    source.keep(found(authority("late")))
    assert source.known_issuers(certificate(ca.issue())) == []
    assert len(list(cache.entries())) == 1


def test_nothing_is_made_before_something_is_kept(source: SqliteSource, cache: SqliteCache) -> None:
    """Neither file nor folder."""
    assert source.known_issuers(certificate(authority())) == []
    assert list(cache.path.parent.iterdir()) == []


def test_the_expired_is_not_offered_and_goes_in_time(
    source: SqliteSource, cache: SqliteCache
) -> None:
    """The writer prunes when it has something to write anyway."""
    old, ca = authority("CA", expired=True), authority("CA")
    cache.add([entry(old), entry(ca)])
    leaf = certificate(ca.issue())
    assert [each.certificate for each in source.known_issuers(leaf)] == [certificate(ca)]
    source.keep(found(authority("new")))
    source.close()
    assert {each.certificate.name for each in cache.entries()} == {"CN=CA", "CN=new"}
    assert len(list(cache.entries())) == 2


def test_pruning_is_done_now_and_then(source: SqliteSource, cache: SqliteCache) -> None:
    """Not with each writing."""
    source.keep(found(authority("first")))
    until(lambda: list(cache.entries()))
    cache.add([entry(authority("old", expired=True))])
    source.keep(found(authority("second")))
    source.close()
    assert len(list(cache.entries())) == 3


def test_a_warm_proxy_writes_nothing(source: SqliteSource, cache: SqliteCache) -> None:
    """What was used within the hour, as the file says, need not be written again: there is
    not even a thread."""
    ca = authority()
    cache.add([entry(ca, NOW - HOUR / 2)])
    known = source.known_issuers(certificate(ca.issue()))
    source.keep(known)
    source.keep(known)
    assert source._writer._thread is None
    source.close()
    assert list(cache.entries()) == [entry(ca, NOW - HOUR / 2)]


def test_the_last_use_is_written_once_an_hour(source: SqliteSource, cache: SqliteCache) -> None:
    """Also of what this instance has not looked up; the first use stays."""
    ca, recent = authority("CA"), authority("recent")
    cache.add([entry(ca, NOW - 2 * HOUR), entry(recent, NOW - HOUR / 2)])
    source.keep(found(ca, recent))
    source.close()
    moved, kept = cache.entries()
    assert moved.last_used >= NOW
    assert moved.first_used == NOW - 2 * HOUR
    assert kept == entry(recent, NOW - HOUR / 2)


def test_what_waits_is_bounded(source: SqliteSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is not written, and is not taken for written."""
    monkeypatch.setattr(sqlite_writer, "MOST_PENDING", 1)
    a, b = authority("A"), authority("B")
    with source._writer._news:  # the thread cannot take anything meanwhile
        source.keep(found(a, b))
        assert len(source._writer._pending) == 1
    until(lambda: source.known_issuers(certificate(a.issue())))
    source.keep(found(b))
    until(lambda: source.known_issuers(certificate(b.issue())))


def test_what_is_noted_is_bounded(source: SqliteSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, at the price of one more writing."""
    monkeypatch.setattr(sqlite_writer, "MOST_NOTED", 2)
    source.keep(found(authority("A"), authority("B"), authority("C")))
    assert len(source._writer._noted) == 2


def test_a_file_that_was_removed_is_made_again(source: SqliteSource, cache: SqliteCache) -> None:
    """A running proxy notices, and does not go on with the file that has no name."""
    ca, other = authority("CA"), authority("another")
    source.keep(found(ca))
    until(lambda: source.known_issuers(certificate(ca.issue())))
    for file in cache.path.parent.iterdir():
        file.unlink()
    assert source.known_issuers(certificate(ca.issue())) == []
    source.keep(found(other))
    until(lambda: source.known_issuers(certificate(other.issue())))
    assert [each.certificate for each in cache.entries()] == [certificate(other)]


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of the file are looked for with each `keep`, and not every few seconds."""
    monkeypatch.setattr(sqlite, "LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("way", ["rm", "rm and all beside it", "replaced", "clear", "remove"])
def test_what_others_have_removed_comes_back(
    source: SqliteSource, cache: SqliteCache, way: str
) -> None:
    """If it is still used: with the next `keep`, though it had been noted as written."""
    ca, other = authority("CA"), authority("another")
    known = found(ca)
    source.keep(known)
    until(lambda: source.known_issuers(certificate(ca.issue())))
    if way == "clear":
        assert cache.clear() == 1
    elif way == "remove":
        assert cache.remove([certificate(ca).fingerprint]) == 1
    elif way == "replaced":
        new = SqliteCache(cache.path.with_name("new"))
        new.add([entry(other)])
        for file in cache.path.parent.glob("aia*"):
            file.unlink()  # SQLite would take the log beside it for that of the new one
        new.path.rename(cache.path)
    else:
        cache.path.unlink()
        for file in cache.path.parent.iterdir() if "all" in way else ():
            file.unlink()
    source.keep(known)
    until(lambda: [each for each in cache.entries() if each.certificate == certificate(ca)])
    assert len(list(cache.entries())) == (2 if way == "replaced" else 1)
    assert source.known_issuers(certificate(ca.issue()))


def test_changes_are_looked_for_now_and_then(source: SqliteSource, cache: SqliteCache) -> None:
    """Not with each `keep`."""
    ca = authority()
    source.keep(found(ca))
    until(lambda: source.known_issuers(certificate(ca.issue())))
    source._look_at = time.monotonic() + 60
    cache.clear()
    source.keep(found(ca))
    source.close()
    assert list(cache.entries()) == []


@pytest.mark.usefixtures("watchful")
def test_looking_for_changes_writes_nothing(source: SqliteSource, cache: SqliteCache) -> None:
    """What is there still is found by looking, however often others write, and what has a last
    use that makes no sense is left to the writer."""
    ca, odd = authority("CA"), authority("odd")
    cache.add([entry(ca, NOW - HOUR / 2), entry(odd)])
    for number in range(3):
        cache.add([entry(authority(f"{number}"))])
        source.keep(found(ca))
    assert source._writer._thread is None
    with sqlite3.connect(cache.path) as other:
        other.execute(
            "UPDATE certificate SET last_used = 'never' WHERE fingerprint = ?",
            (certificate(odd).fingerprint,),
        )
    other.close()
    source.keep(found(odd))
    source.close()
    assert source._writer._noted[certificate(odd).fingerprint] >= NOW.timestamp()


def test_there_is_nothing_to_fetch(source: SqliteSource) -> None:
    """What it knows it says at once."""

    async def fetch() -> list[Attempt]:
        leaf = certificate(authority())
        return [attempt async for attempt in source.fetch_issuers(leaf, Budget(0.0, 10))]

    assert asyncio.run(fetch()) == []


@pytest.mark.parametrize("way", ["source", "cache"])
def test_many_processes_share_one_file(cache: SqliteCache, way: str) -> None:
    """Four begin it at once, and write at once: every row is there, and none complains."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.scripts.sqlite_writer", str(cache.path), "25", way],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": "addon:."},
            cwd=Path(__file__).parent.parent,
        )
        for _ in range(4)
    ]
    outputs = [writer.communicate(timeout=60) for writer in writers]
    assert [errors for _, errors in outputs] == [""] * 4
    fingerprints = {line for output, _ in outputs for line in output.split()}
    assert len(fingerprints) == 100
    assert {each.certificate.fingerprint.hex() for each in cache.entries()} == fingerprints


@pytest.mark.parametrize("parameters", ["mode=rw", "immutable=1"])
def test_file_that_is_just_being_made(cache: SqliteCache, parameters: str) -> None:
    """Whoever looks at it then sees it as it was before or after, and not another program's."""
    cache.path.touch()
    maker = sqlite3.connect(cache.path, timeout=0, isolation_level=None)
    looking = sqlite3.connect(f"{cache.path.as_uri()}?{parameters}", uri=True, isolation_level=None)

    class Interrupted:
        """As `looking`, but right after its first question the file is made, if it can be."""

        def execute(self, statement: str) -> SimpleNamespace:
            row = looking.execute(statement).fetchone()
            if "application_id" in statement:
                with contextlib.suppress(CacheError, sqlite3.OperationalError):
                    sqlite_file._prepare(maker, cache.path, 0.0)
            return SimpleNamespace(fetchone=lambda: row)

        def __getattr__(self, name: str) -> object:
            return getattr(looking, name)

    with contextlib.closing(maker), contextlib.closing(looking):
        asked = cast(sqlite3.Connection, Interrupted())
        assert sqlite_file._is_ours(asked, cache.path) is False
        assert not looking.in_transaction
        sqlite_file._prepare(maker, cache.path, 0.0)
        assert sqlite_file._is_ours(maker, cache.path) is True


@pytest.mark.parametrize("way", ["source", "cache"])
def test_killed_at_any_moment(cache: SqliteCache, way: str) -> None:
    """It opens again with every row that was committed, though nobody closed it."""
    committed: set[str] = set()
    for number in range(6):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.scripts.sqlite_writer", str(cache.path), "9999", way],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": "addon:."},
            cwd=Path(__file__).parent.parent,
        ) as writer:
            assert writer.stdout
            committed.add(writer.stdout.readline().strip())
            time.sleep(0.03 * number)
            writer.kill()
            committed.update(line.strip() for line in writer.stdout if line.endswith("\n"))
        kept = {each.certificate.fingerprint.hex() for each in cache.entries()}
        assert committed <= kept
    assert len(committed) > 6
    with sqlite3.connect(cache.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
