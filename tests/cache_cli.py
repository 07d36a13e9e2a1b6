"""Running `mitmproxy-aia cache` in the process of the tests, on a cache of their own."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitmproxy_aia import cli
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.lab import Issued

NOW = datetime.datetime(2026, 10, 1, 12, 30, tzinfo=datetime.UTC)
URL = "http://ca.example/int.der"


@dataclass(frozen=True)
class Result:
    """What a command has said and how it ended."""

    out: str
    err: str
    status: int

    @property
    def words(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]


@dataclass
class CacheCli:
    """`mitmproxy-aia cache` on a file of its own."""

    path: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Result:
        return self.on(self.path, *arguments)

    def on(self, cache: str | Path, *arguments: str | Path) -> Result:
        """With another cache than ours."""
        status = 0
        try:
            cli.main(["cache", "--cache", *map(str, (cache, *arguments))])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        out, err = self.capsys.readouterr()
        return Result(out, err, status)

    def put(self, *issued: Issued, origin: str = URL) -> None:
        cache = SqliteCache(self.path)
        cache.add([Entry(Certificate.from_der(each.der), origin, NOW, NOW) for each in issued])

    @property
    def entries(self) -> list[Entry]:
        return list(SqliteCache(self.path).entries())

    @property
    def names(self) -> list[str]:
        return [entry.certificate.name for entry in self.entries]


def fingerprint(issued: Issued) -> str:
    """SHA-256 in hexadecimal."""
    return Certificate.from_der(issued.der).fingerprint.hex()
