"""New connections: to complete servers, to known incomplete ones, and to unknown ones."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.bench.client import fetch
from tests.bench.measuring import Measure, Turns, in_turns, joined
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.bench.world import OPTIONS, World, proxies, world
from tests.lab import Proxy

PART = "handshakes"
FASTER = 2
"""Of `plan.requests`, known servers get this many times as many: these rows have narrow aims."""
NO_ADDON = Path(__file__).parents[1] / "no_addon.py"

STOCK = "stock mitmdump"
ROWS = {
    "new connection to a complete server, with a script that does nothing in place of the addon": (
        STOCK,
        None,
    ),
    "new connection to a complete server": (STOCK, 1.02),
    "new connection to a known incomplete server": (
        "the same server, complete, through stock mitmdump",
        1.03,
    ),
    "first connection to an unknown incomplete server": (
        "the same server, complete, through stock mitmdump, plus a GET of the issuer by a ready "
        "httpx client",
        1.10,
    ),
}
"""What is measured, against what, and the aim."""


def measure(plan: Plan) -> Iterator[Row]:
    # As many with the one side first as with the other.
    turns = 2 * -(-plan.turns // (2 * plan.processes))
    measured: dict[str, list[Turns]] = defaultdict(list)
    with world() as internet:
        places = _Places(internet, plan, turns)
        with internet.serving():
            # Two processes of the same program differ by a few percent as long as they live.
            for _ in range(plan.processes):
                for what, compared in zip(ROWS, _compare(places, plan, turns), strict=True):
                    measured[what].append(compared)
    for what, (against, aim) in ROWS.items():
        spreads = joined(measured[what]).compare(statistics.median)
        yield Row(PART, what, against, "ms", *spreads, aim=aim)


class _Places:
    """Where the requests go: each time to one that was never gone to before, if it is `fresh`."""

    def __init__(self, internet: World, plan: Plan, turns: int) -> None:
        self.internet = internet
        self.incomplete, self.complete = internet.new_pair()
        _, self.other_complete = internet.new_pair()
        self.published = internet.publish(internet.intermediate())
        # One turn more than is counted.
        number = (turns + 1) * plan.processes
        fresh = [[internet.new_pair() for _ in range(plan.fresh)] for _ in range(number)]
        self.fresh = iter([[incomplete for incomplete, _ in pairs] for pairs in fresh])
        self.twins = iter([[complete for _, complete in pairs] for pairs in fresh])


def _compare(places: _Places, plan: Plan, turns: int) -> Iterator[Turns]:
    """One for each of `ROWS`, with new processes."""
    many = plan.requests * FASTER
    roots = [places.internet.root]
    with (
        proxies(places.internet) as (ours, stock),
        Proxy(trust=roots, addon=False, scripts=[NO_ADDON], options=OPTIONS) as empty,
    ):

        def through(proxy: Proxy, url: str) -> Measure:
            return lambda: fetch([url] * many, proxy)

        complete = places.other_complete
        yield in_turns(turns, through(empty, complete), through(stock, complete))
        yield in_turns(turns, through(ours, complete), through(stock, complete))
        yield in_turns(turns, through(ours, places.incomplete), through(stock, places.complete))
        with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:

            def download(url: str) -> float:
                started = time.perf_counter()
                client.get(url).raise_for_status()
                return (time.perf_counter() - started) * 1000

            def stock_and_download() -> list[float]:
                requests = fetch(next(places.twins), stock)
                downloads = [download(places.published) for _ in requests]
                return [a + b for a, b in zip(requests, downloads, strict=True)]

            yield in_turns(turns, lambda: fetch(next(places.fresh), ours), stock_and_download)
