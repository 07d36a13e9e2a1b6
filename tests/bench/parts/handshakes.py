"""New connections: to complete servers, to known incomplete ones, and to unknown ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import httpx

from tests.bench.client import fetch
from tests.bench.measuring import in_turns
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.bench.world import proxies, world

PART = "handshakes"
FASTER = 2
"""Of `plan.requests`, known servers get this many times as many: these rows have narrow aims."""


def measure(plan: Plan) -> Iterator[Row]:
    with world() as internet:
        incomplete, complete = internet.new_pair()
        _, other_complete = internet.new_pair()
        published = internet.publish(internet.intermediate())
        # One turn more than is counted.
        fresh = [[internet.new_pair() for _ in range(plan.fresh)] for _ in range(plan.turns + 1)]
        with internet.serving(), proxies(internet) as (ours, stock):
            many = plan.requests * FASTER
            turns = in_turns(
                plan.turns,
                lambda: fetch([other_complete] * many, ours),
                lambda: fetch([other_complete] * many, stock),
            )
            yield Row(
                PART,
                "new connection to a complete server",
                "stock mitmdump",
                "ms",
                *turns.compare(statistics.median),
                aim=1.02,
            )
            turns = in_turns(
                plan.turns,
                lambda: fetch([incomplete] * many, ours),
                lambda: fetch([complete] * many, stock),
            )
            yield Row(
                PART,
                "new connection to a known incomplete server",
                "the same server, complete, through stock mitmdump",
                "ms",
                *turns.compare(statistics.median),
                aim=1.03,
            )
            new, twins = iter(fresh), iter(fresh)
            with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:

                def download(url: str) -> float:
                    started = time.perf_counter()
                    client.get(url).raise_for_status()
                    return (time.perf_counter() - started) * 1000

                def stock_and_download() -> list[float]:
                    requests = fetch([complete for _, complete in next(twins)], stock)
                    downloads = [download(published) for _ in requests]
                    return [a + b for a, b in zip(requests, downloads, strict=True)]

                turns = in_turns(
                    plan.turns,
                    lambda: fetch([incomplete for incomplete, _ in next(new)], ours),
                    stock_and_download,
                )
            yield Row(
                PART,
                "first connection to an unknown incomplete server",
                "the same server, complete, through stock mitmdump, plus a GET of the issuer "
                "by a ready httpx client",
                "ms",
                *turns.compare(statistics.median),
                aim=1.10,
            )
