"""The sources in force: which are asked, in what order, and what becomes of the old ones."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from mitmproxy_aia.cache_commands import CacheCommands
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.files import FilesSource
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.tiers import Tiers
from tests.lab import Issued, authority


@pytest.fixture(scope="module")
def ca() -> Issued:
    return authority("CA")


def found(issued: Issued) -> Found:
    return Found(Certificate(issued.der), "http://ca.example/")


def known(tiers: Tiers, issued: Issued) -> list[str]:
    """Which sources know the issuer of a certificate that `issued` issues."""
    leaf = Certificate(issued.issue().der)
    return [item.cache for source in tiers.sources for item in source.known_issuers(leaf)]


def test_order_of_cost(ca: Issued, tmp_path: Path) -> None:
    """Memory, files and the cache if there are any, and then the network."""
    (tmp_path / "ca.pem").write_bytes(ca.pem)

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        assert [type(source) for source in tiers.sources] == [MemorySource, AiaSource]
        tiers.set(tmp_path / "cache", (tmp_path / "ca.pem",))
        assert [type(source) for source in tiers.sources] == [
            MemorySource,
            FilesSource,
            SqliteSource,
            AiaSource,
        ]
        tiers.close()
        assert [type(source) for source in tiers.sources] == [MemorySource, AiaSource]
        tiers.close()

    asyncio.run(main())


def test_every_tier_keeps(ca: Issued, tmp_path: Path) -> None:
    """What is kept is in memory and, when its writer is done, in the file."""

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        tiers.set(tmp_path / "cache", ())
        tiers.keep([found(ca)])
        assert known(tiers, ca)[0] == "memory"
        tiers.close()
        assert known(tiers, ca) == []
        tiers.set(tmp_path / "cache", ())
        assert known(tiers, ca) == ["cache"]
        assert [entry.certificate for entry in tiers.cached()] == [found(ca).certificate]
        tiers.close()

    asyncio.run(main())


def test_a_bad_setting_changes_nothing(ca: Issued, tmp_path: Path) -> None:
    """A missing file with intermediates: the old ones and the old cache stay."""
    (tmp_path / "ca.pem").write_bytes(ca.pem)

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        tiers.set("memory", [tmp_path / "ca.pem"])
        before = tiers.sources
        with pytest.raises(OSError, match="missing"):
            tiers.set(tmp_path / "cache", [tmp_path / "missing.pem"])
        assert tiers.sources == before
        assert known(tiers, ca) == [""]
        tiers.close()

    asyncio.run(main())


def test_the_old_cache_is_closed(ca: Issued, tmp_path: Path) -> None:
    """It knows nothing any more, and what it had to write is written."""

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        tiers.set(tmp_path / "one", ())
        tiers.keep([found(ca)])
        [old] = (source for source in tiers.sources if isinstance(source, SqliteSource))
        tiers.set(tmp_path / "two", ())
        assert old.known_issuers(Certificate(ca.issue().der)) == []
        with contextlib.closing(sqlite3.connect(tmp_path / "one")) as database:
            tables = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
            assert tables.fetchone()[0] > 0
        tiers.close()

    asyncio.run(main())


@pytest.mark.parametrize("changed", [True, False])
def test_clear(ca: Issued, tmp_path: Path, changed: bool) -> None:
    """Memory and cache are empty, and what is kept from then on is there again; another cache
    that was named meanwhile is not touched."""

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        tiers.set(tmp_path / "one", ())
        tiers.keep([found(ca)])
        clearing = asyncio.create_task(tiers.clear())
        await asyncio.sleep(0)
        if changed:
            tiers.set(tmp_path / "two", ())
        assert await clearing == 1
        assert known(tiers, ca) == []
        tiers.keep([found(ca)])
        tiers.close()
        assert (tmp_path / "two").exists() == changed
        tiers.set(tmp_path / "one", ())
        assert known(tiers, ca) == ([] if changed else ["one"])
        tiers.close()
        assert await Tiers(lambda: 1.0).clear() == 0

    asyncio.run(main())


def test_forgotten_though_the_cache_is_of_no_use(ca: Issued, tmp_path: Path) -> None:
    """What is in memory is gone; so the servers that have taught it may teach it again."""
    forgotten: list[bool] = []

    async def main() -> None:
        tiers = Tiers(lambda: 1.0)
        tiers.set(tmp_path, ())  # a folder
        tiers.keep([found(ca)])
        commands = CacheCommands(tiers, lambda: forgotten.append(True))
        commands.cache_clear()
        await asyncio.gather(*commands._background._tasks)
        assert [*tiers.entries()] == []
        tiers.close()

    asyncio.run(main())
    assert forgotten == [True]
