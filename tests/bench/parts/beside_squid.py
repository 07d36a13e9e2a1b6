"""The same through Squid: what a missing intermediate adds to a connection, in both."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.client import fetch_bumped
from tests.bench.measuring import Spread
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.bench.squid import squid
from tests.bench.world import World, proxies, world
from tests.lab import CaIssuersServer

PART = "squid"
CROWD = 50


@dataclass
class _Side:
    """One of the two proxies, and what it takes longer, in ms, for incomplete servers."""

    url: str
    cold: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)

    def fetch(self, urls: Sequence[str], *, at_once: bool = False) -> list[float]:
        return fetch_bumped(urls, self.url, at_once=at_once)


def measure(plan: Plan) -> Iterator[Row]:
    with CaIssuersServer() as slow, world() as internet:
        # Each side has servers of its own: what one has learnt is nothing to the other.
        fresh = [[internet.new_pair() for _ in range(plan.squid_turns + 1)] for _ in range(2)]
        crowds = [_crowds(internet, slow, plan.slow, side) for side in range(2)]
        # Or it would know the intermediates of the incomplete servers from the complete ones.
        unlearned = {"aia_learn": "false"}
        with (
            internet.serving(),
            squid(internet.root) as other,
            proxies(internet, **unlearned) as (ours, _),
        ):
            sides = _Side(ours.url), _Side(other)
            for turn in range(plan.squid_turns + 1):
                for number, side in enumerate(sides):
                    _turn(side, fresh[number][turn], plan.requests, counts=turn > 0)
            for what, aim in ("cold", 2.0), ("known", 0.15):
                added: list[list[float]] = [getattr(side, what) for side in sides]
                mine, theirs = map(Spread.of, added)
                beyond = [*map(operator.sub, *added)]
                yield Row(
                    PART,
                    f"time added by a missing intermediate, {what}",
                    "the same through Squid",
                    "ms",
                    mine,
                    theirs,
                    Spread.of(beyond),
                    aim,
                    "{:+.2f} ms",
                )
            for what in crowds[0]:
                rushes = [
                    _rush(side, crowd[what], slow)
                    for side, crowd in zip(sides, crowds, strict=True)
                ]
                text = f"{CROWD} at once to {what}, where a download takes {plan.slow:g} s"
                mine, theirs = (Spread.of([seconds]) for seconds, _ in rushes)
                longer = Spread.of([rushes[0][0] - rushes[1][0]])
                yield Row(
                    PART, f"{text}: time added", "Squid", "s", mine, theirs, longer, 0, "{:+.2f} s"
                )
                mine, theirs = (Spread.of([number]) for _, number in rushes)
                yield Row(PART, f"{text}: downloads", "Squid", "", mine, theirs, mine, 1, "{:.0f}")


def _rush(side: _Side, pairs: _Crowd, slow: CaIssuersServer) -> tuple[float, int]:
    """Seconds that it takes longer until all have their answer, and the downloads."""
    before, took = slow.downloads.total(), []
    for which in (1, 0):  # the complete ones first
        started = time.perf_counter()
        side.fetch([pair[which] for pair in pairs], at_once=True)
        took.append(time.perf_counter() - started)
    return took[1] - took[0], slow.downloads.total() - before


_Crowd = Sequence[tuple[str, str]]


def _crowds(internet: World, slow: CaIssuersServer, delay: float, side: int) -> dict[str, _Crowd]:
    """Pairs of servers, each crowd under an intermediate of its own."""
    pairs: dict[str, _Crowd] = {}
    for what, hosts in ("one host", 1), (f"{CROWD} hosts", CROWD):
        issuer = internet.intermediate()
        url = slow.serve(f"/{side}/{hosts}.der", issuer.der, delay=delay)
        pairs[what] = [internet.pair(issuer, url) for _ in range(hosts)] * (CROWD // hosts)
    return pairs


def _turn(side: _Side, pair: tuple[str, str], requests: int, *, counts: bool) -> None:
    incomplete, complete = pair
    # The first has another host's certificate made for the client, too: so has the other.
    (whole,) = side.fetch([complete])
    (cold,) = side.fetch([incomplete])
    known, usual = (side.fetch([url] * requests) for url in pair)
    if counts:
        side.cold.append(cold - whole)
        side.known.append(statistics.median(known) - statistics.median(usual))
