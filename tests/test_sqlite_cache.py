"""The SQLite cache as the command line sees it: what is kept, listed, moved and removed."""

import contextlib
import datetime
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitmproxy_aia.cache import Cache, CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import sqlite_file, sqlite_rows
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.lab import Issued, authority

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HOUR = datetime.timedelta(hours=1)


def entry(
    issued: Issued, origin: str = "http://ca.example/", used: datetime.datetime = NOW
) -> Entry:
    return Entry(Certificate.from_der(issued.der), origin, used, used)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "aia.sqlite3"


@pytest.fixture
def cache(path: Path) -> SqliteCache:
    return SqliteCache(path)


def test_keeps_what_it_is_given(cache: SqliteCache) -> None:
    """Certificate, origin, and both times, in whole seconds; all is listed by subject."""
    entries = [entry(authority(name), f"http://ca.example/{name}") for name in "CAB"]
    as_cache: Cache = cache
    assert as_cache.add(entries) == 3
    assert list(cache.entries()) == [entries[1], entries[2], entries[0]]
    cache.close()
    assert len(list(SqliteCache(cache.name).entries())) == 3


def test_lists_page_by_page(cache: SqliteCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is kept from writing meanwhile, and nothing is listed twice or left out."""
    monkeypatch.setattr(sqlite_rows, "PAGE_SIZE", 2)
    root = authority("CA")
    entries = [entry(root.issue("CA", ca=True, key=root)) for _ in range(5)]
    cache.add(entries)
    listed = cache.entries()
    seen = [next(listed)]
    with sqlite3.connect(cache.path, timeout=0) as other:
        # Fails with "database is locked" while somebody is reading.
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()
    seen.extend(listed)
    assert sorted(each.certificate.der for each in seen) == sorted(
        each.certificate.der for each in entries
    )


def test_the_last_use_moves_forward_only(cache: SqliteCache) -> None:
    """What is there already is not new, and keeps its origin and its first use."""
    ca = authority()
    assert cache.add([entry(ca)]) == 1
    assert cache.add([entry(ca, "elsewhere", NOW - HOUR)]) == 0
    assert list(cache.entries()) == [entry(ca)]
    assert cache.add([entry(ca, "elsewhere", NOW + HOUR)]) == 0
    (moved,) = cache.entries()
    assert (moved.origin, moved.first_used, moved.last_used) == (
        "http://ca.example/",
        NOW,
        NOW + HOUR,
    )


def test_all_or_nothing(cache: SqliteCache) -> None:
    """Entries that end in an error are not added at all."""

    def broken() -> Iterator[Entry]:
        yield entry(authority())
        raise RuntimeError("out of entries")

    cache.add([])
    with pytest.raises(RuntimeError, match="out of entries"):
        cache.add(broken())
    assert list(cache.entries()) == []


def test_all_or_nothing_in_the_file(cache: SqliteCache) -> None:
    """Nor are those that SQLite refuses midway."""
    cache.add([])
    with sqlite3.connect(cache.path) as other:
        other.execute("CREATE UNIQUE INDEX one_origin ON certificate (origin)")
    other.close()
    with pytest.raises(CacheError, match="cannot be used: UNIQUE constraint failed"):
        cache.add([entry(authority("A")), entry(authority("B"))])
    assert list(cache.entries()) == []


def test_removing(cache: SqliteCache) -> None:
    """By fingerprint, by date, or everything, with the number of those that were there."""
    a, b, old = authority("A"), authority("B"), authority("C", expired=True)
    cache.add([entry(a), entry(b), entry(old)])
    assert cache.remove([entry(a).certificate.fingerprint, b"unknown"]) == 1
    assert list(cache.entries()) == [entry(b), entry(old)]
    assert cache.prune(NOW) == 1
    assert list(cache.entries()) == [entry(b)]
    assert cache.clear() == 1
    assert list(cache.entries()) == []


def test_issuers_of_a_name(cache: SqliteCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """By subject, without the expired, longest valid first and not more than some."""
    monkeypatch.setattr(sqlite_rows, "MOST_PER_SUBJECT", 2)
    days = [NOW + number * 24 * HOUR for number in range(1, 4)]
    twins = [authority("CA", valid=(NOW - HOUR, day)) for day in days]
    cache.add(map(entry, [*twins, authority("CA", expired=True), authority("another")]))
    found = cache.issuers_of(entry(twins[0]).certificate.subject, NOW)
    assert found == [entry(twins[2]), entry(twins[1])]


def test_no_file_is_empty(cache: SqliteCache) -> None:
    """Looking into a cache that is not there, or removing from it, does not make one."""
    assert list(cache.entries()) == []
    assert cache.issuers_of(b"CA", NOW) == []
    assert (cache.remove([b"x"]), cache.clear(), cache.prune(NOW)) == (0, 0, 0)
    assert not cache.path.exists()


def test_an_empty_file_is_taken_over(cache: SqliteCache) -> None:
    """And keeps its mode: this is how a container or a group of users is given one."""
    cache.path.touch(0o660)
    cache.path.chmod(0o660)
    assert list(cache.entries()) == []
    assert cache.add([entry(authority())]) == 1
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o660


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    """The folder is made if need be; nobody else reads the file nor those beside it."""
    cache = SqliteCache(tmp_path / "new" / "folder" / "a b?#%.sqlite3")
    database = sqlite_file.open_to_write(cache.path)
    database.add([entry(authority())])
    names = {each.name: stat.S_IMODE(each.stat().st_mode) for each in cache.path.parent.iterdir()}
    database.close()
    name = cache.path.name
    assert names == {name: 0o600, f"{name}-wal": 0o600, f"{name}-shm": 0o600}


def test_a_link_and_its_file_are_one(cache: SqliteCache, tmp_path: Path) -> None:
    """Whoever names the cache by a link uses the same files beside it."""
    link = tmp_path / "link"
    link.symlink_to(cache.path)
    assert SqliteCache(link).name == cache.name
    assert SqliteCache("~/x").name == str(Path(os.path.realpath(Path.home())) / "x")


def test_rows_that_make_no_sense_are_passed_over(cache: SqliteCache) -> None:
    """A file can have been edited by anybody."""
    good = entry(authority("good"))
    cache.add([entry(authority(f"{number}")) for number in range(5)])
    cache.add([good])
    with sqlite3.connect(cache.path) as other:
        fingerprints = [row[0] for row in other.execute("SELECT fingerprint FROM certificate")]
        fingerprints.remove(good.certificate.fingerprint)
        changes = ["der = x'3000'", "der = 'text'", "last_used = 'never'", "first_used = 1e300"]
        for change, fingerprint in zip(
            [*changes, "last_used = 9000000000000"], fingerprints, strict=True
        ):
            other.execute(
                f"UPDATE certificate SET {change} WHERE fingerprint = ?",  # noqa: S608
                (fingerprint,),
            )
        other.execute("UPDATE certificate SET origin = CAST(x'ff' AS TEXT)")
    other.close()
    (read,) = cache.entries()
    assert (read.certificate, read.origin) == (good.certificate, "\ufffd")


def test_a_reader_cannot_write(cache: SqliteCache) -> None:
    """Whatever is done with it: lookups are made in the event loop."""
    cache.add([entry(authority())])
    database = sqlite_file.open_to_read(cache.path)
    assert database
    with contextlib.closing(database):
        with pytest.raises(CacheError, match="is read-only"):
            database.clear()
        with pytest.raises(CacheError, match="is read-only"):
            database.add([entry(authority("another"))])
    assert len(list(cache.entries())) == 1


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TRIGGER trap AFTER INSERT ON certificate BEGIN SELECT act(); END",
        "ALTER TABLE certificate RENAME TO real;"
        "CREATE VIEW certificate AS SELECT * FROM real WHERE act() OR 1",
    ],
    ids=["trigger", "view"],
)
def test_a_schema_calls_nothing(cache: SqliteCache, schema: str) -> None:
    """Anybody may have made the file. A function that is not known to be harmless is refused,
    and the cache with it."""
    cache.add([entry(authority())])
    with sqlite3.connect(cache.path) as other:
        # The schema is only checked for what it calls when it is used.
        other.create_function("act", 0, lambda: 0)
        other.executescript(schema)
    other.close()
    calls: list[None] = []
    with contextlib.closing(sqlite_file.open_to_write(cache.path)) as database:
        database._connection.create_function("act", 0, lambda: calls.append(None))
        with pytest.raises(CacheError, match=r"unsafe use of act\(\)"):
            _ = database.add([entry(authority("another"))]) + len(list(database.entries()))
    assert not calls


def test_an_origin_that_is_not_unicode(cache: SqliteCache) -> None:
    """File names can be any bytes; it is kept as well as it can be."""
    cache.add([entry(authority(), os.fsdecode(b"/caf\xe9.pem"))])
    assert [each.origin for each in cache.entries()] == ["/caf?.pem"]
