"""How much a fleet downloads: the sources and the completion are real, the network and the
verdicts are not."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.egress import Server
from mitmproxy_aia.errors import UNABLE_TO_GET_ISSUER_CERT_LOCALLY
from mitmproxy_aia.history import utc_now
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import Path as CertificatePath
from mitmproxy_aia.sources import ClosableSource, IssuerSource
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.caches import Where, open_source
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from mitmproxy_aia.verification import Verdict
from tests.bench.measuring import Spread
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.lab import Issued, RedisServer, authority

PART = "simulation"
PROXIES = 4
AT_ONCE = 8
"""Completions at the same time, of all proxies together, where these can wait for each other."""
_MISSING = Fault.of(UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0)


class Judge:
    """Says what a `Verifier` would: the intermediates are good, and below one root."""

    signatures = 0

    def __init__(self, root: Certificate, intermediates: frozenset[Certificate]) -> None:
        self._root = root
        self._intermediates = intermediates

    def fault_above(self, certificate: Certificate) -> Fault | None:
        return None if certificate in self._intermediates else _MISSING

    def step(self, certificate: Certificate, issuer: Certificate) -> Fault | None:
        return None

    def judge(self, path: CertificatePath) -> Verdict:
        return Verdict((*path, self._root), None, False)


@dataclass
class Internet:
    """`leaves` are the servers' certificates, `by_url` what is downloaded from where."""

    leaves: Sequence[Certificate]
    by_url: dict[str, Certificate]
    judge: Judge
    downloads: Counter[str]

    async def download(self, url: str, _server: Server) -> tuple[Certificate, ...]:
        self.downloads[url] += 1
        await asyncio.sleep(random.uniform(0.001, 0.02))  # noqa: S311 -- a delay is no secret
        return (self.by_url[url],)


@dataclass
class Node:
    """A proxy: its own memory and downloads, and a cache that others may share."""

    cache: ClosableSource | None
    aia: AiaSource
    memory: MemorySource

    @property
    def sources(self) -> Sequence[IssuerSource]:
        return (self.memory, *([self.cache] if self.cache else []), self.aia)

    def close(self) -> None:
        self.aia.close()
        if self.cache is not None:
            self.cache.close()


def internet(servers: int, intermediates: int) -> Internet:
    root = authority("Root")
    issuers = [root.issue(f"Intermediate {number}", ca=True) for number in range(intermediates)]
    urls = [f"http://ca-{number}.test/issuer.der" for number in range(intermediates)]

    def leaf(number: int) -> Certificate:
        # Every intermediate has some, however few there are.
        which = number % intermediates
        issued: Issued = issuers[which].issue(hosts=[f"{number}.test"], aia=[urls[which]])
        return Certificate(issued.der)

    by_url = {url: Certificate(each.der) for url, each in zip(urls, issuers, strict=True)}
    judge = Judge(Certificate(root.der), frozenset(by_url.values()))
    return Internet([leaf(number) for number in range(servers)], by_url, judge, Counter())


async def visit(here: Internet, node: Node, leaf: Certificate) -> None:
    completion = Completion([leaf], here.judge, node.sources)
    outcome = completion.complete_at_once()
    if not outcome.verified:
        outcome = await completion.complete()
    assert outcome.verified, outcome.reason


async def downloads(here: Internet, where: Sequence[Where | None]) -> int:
    """How many there are if all servers are visited once, in random order, each by one of as
    many proxies as there are caches in `where`."""
    here.downloads.clear()
    nodes = [
        Node(open_source(each) if each else None, AiaSource(here.download), MemorySource())
        for each in where
    ]
    order = random.sample(here.leaves, len(here.leaves))
    # A file has no leases: there, who asks at the same time downloads at the same time.
    places = asyncio.Semaphore(1 if any(isinstance(each, Path) for each in where) else AT_ONCE)

    async def one(leaf: Certificate) -> None:
        async with places:
            before = here.downloads.total()
            await visit(here, random.choice(nodes), leaf)  # noqa: S311 -- a simulation, no secret
            if here.downloads.total() > before and isinstance(where[0], Path):
                await _written(where[0], leaf)

    try:
        await asyncio.gather(*map(one, order))
    finally:
        for node in nodes:
            node.close()
    return here.downloads.total()


async def _written(file: Path, leaf: Certificate) -> None:
    """Until others can read it: it is written in the background, within milliseconds."""
    async with asyncio.timeout(10):
        with contextlib.closing(SqliteCache(file)) as cache:
            while not cache.issuers_of(leaf.issuer, utc_now()):  # noqa: ASYNC110 -- a thread writes it
                await asyncio.sleep(0.005)


def measure(plan: Plan) -> Iterator[Row]:
    here = internet(plan.simulated_servers, plan.simulated_intermediates)
    for what, caches in _fleets():
        with caches() as where:
            number = asyncio.run(downloads(here, where))
        counted = Spread.of([number])
        fewest = Spread.of([plan.simulated_intermediates])
        what = (
            f"downloads for {plan.simulated_servers:,} servers under "
            f"{plan.simulated_intermediates} intermediates, {what}"
        )
        yield Row(
            PART, what, "intermediates", "", counted, fewest, counted, fewest.median, "{:.0f}"
        )


_Caches = Callable[[], contextlib.AbstractContextManager[Sequence[Where | None]]]


def _fleets() -> Iterator[tuple[str, _Caches]]:
    yield "1 proxy", _nothing
    yield f"{PROXIES} proxies that share a file, one connection at a time", _file
    yield f"{PROXIES} proxies that share a Redis, {AT_ONCE} connections at a time", _redis


@contextlib.contextmanager
def _nothing() -> Iterator[Sequence[Where | None]]:
    yield [None]


@contextlib.contextmanager
def _file() -> Iterator[Sequence[Where | None]]:
    with tempfile.TemporaryDirectory() as folder:
        yield [Path(folder, "shared.sqlite3")] * PROXIES


@contextlib.contextmanager
def _redis() -> Iterator[Sequence[Where | None]]:
    with RedisServer() as server:
        yield [server.url] * PROXIES
