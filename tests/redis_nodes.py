"""What the tests of the shared cache have in common: nodes, and completions in small."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import redis

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Attempt, Budget
from mitmproxy_aia.sources.redis import RedisSource
from mitmproxy_aia.sources.redis_records import issuers_key, lease_key
from tests.lab import Issued, authority

URL = "http://ca.example/issuer.der"
ROOT = authority("Redis Root")


@asynccontextmanager
async def nodes(
    url: str, count: int, patience: float = 5.0, lease: float = 4.0, pause: float = 5.0
) -> AsyncIterator[list[RedisSource]]:
    """Sources as in as many processes. Their patience is long: the machine may be slow."""
    sources = [RedisSource(url, timeout=patience, pause=pause, lease=lease) for _ in range(count)]
    try:
        yield sources
    finally:
        for source in sources:
            source.close()
        await asyncio.sleep(0.05)


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def budget(downloads: int = 10, seconds: float = 20.0) -> Budget:
    return Budget(time.monotonic() + seconds, downloads)


async def fetch(source: RedisSource, leaf: Issued, spend: Budget) -> list[Attempt]:
    return [attempt async for attempt in source.fetch_issuers(certificate(leaf), spend)]


def done(spend: Budget) -> None:
    """What a completion does when it has ended."""
    for callback in spend.when_done:
        callback()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Lets the event loop run until it is so."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def key_of(issued: Issued) -> str:
    return issuers_key(certificate(issued).subject)


def lease_of(issuer: Issued, *urls: str) -> str:
    """Of who would download it from there."""
    return lease_key(certificate(issuer).subject, urls or (URL,))


def held(client: "redis.Redis", issuer: Issued) -> bool:
    return bool(client.exists(lease_of(issuer)))


def evaluations(client: "redis.Redis") -> int:
    """How many scripts the server has run."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])
