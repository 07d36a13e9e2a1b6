"""Many connections at once: to cold servers under one intermediate, and beside completions that
wait for a download which hangs."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from tests.bench.client import fetch, start
from tests.bench.measuring import Spread, in_turns, p99
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.bench.world import World, proxies, world
from tests.lab import CaIssuersServer, Proxy

PART = "crowd"
HANGING = "hanging"


def measure(plan: Plan) -> Iterator[Row]:
    """All at once, to servers that nobody has been to, all under one intermediate."""
    with CaIssuersServer() as ca, world() as internet:
        groups = [_group(internet, ca, plan.crowd_servers) for _ in range(plan.crowd_turns + 1)]
        with internet.serving(), proxies(internet) as (ours, stock):
            new, twins = iter(groups), iter(groups)

            def all_at_once(urls: list[str], proxy: Proxy) -> list[float]:
                many = [*itertools.islice(itertools.cycle(urls), plan.crowd)]
                started = time.perf_counter()
                fetch(many, proxy, at_once=True)
                return [(time.perf_counter() - started) * 1000]

            turns = in_turns(
                plan.crowd_turns,
                lambda: all_at_once([incomplete for incomplete, _ in next(new)], ours),
                lambda: all_at_once([complete for _, complete in next(twins)], stock),
            )
        yield Row(
            PART,
            f"{plan.crowd} connections at once to {plan.crowd_servers} incomplete servers under "
            "one unknown intermediate, until the last is answered",
            "the same to complete servers through stock mitmdump",
            "ms",
            *turns.compare(statistics.median),
            aim=1.15,
        )
        counts = Spread.of(list(ca.downloads.values()))
        one = Spread(1, 1, 1)
        yield Row(PART, "downloads meanwhile", "one", "", counts, one, counts, 1, "{:.0f}")


def _group(internet: World, ca: CaIssuersServer, number: int) -> list[tuple[str, str]]:
    issuer = internet.intermediate()
    url = ca.serve(f"/{issuer.name.replace(' ', '-')}.der", issuer.der)
    return [internet.pair(issuer, url) for _ in range(number)]


def measure_hanging(plan: Plan) -> Iterator[Row]:
    """Requests to a complete server, while others wait for a download."""
    with CaIssuersServer() as ca, world() as internet:
        _, complete = internet.new_pair()
        url = ca.hang("/hanging.der")
        waiting = [internet.pair(internet.intermediate(), url)[0] for _ in range(plan.hanging)]
        patience = {"aia_timeout": "3600"}
        with (
            internet.serving(),
            proxies(internet, **patience) as (beside, _),
            proxies(internet) as (alone, _),
        ):
            client = start(waiting, beside, at_once=True)
            try:
                # All join one download.
                _until(lambda: beside.log.count("server connect") >= plan.hanging)
                _until(lambda: ca.downloads["/hanging.der"] == 1)
                turns = in_turns(
                    plan.turns,
                    lambda: fetch([complete] * plan.requests * 4, beside),
                    lambda: fetch([complete] * plan.requests * 4, alone),
                )
            finally:
                with client:
                    client.kill()
    yield Row(
        HANGING,
        f"p99 of other requests while {plan.hanging} completions wait for a hanging download",
        "the same with nothing hanging",
        "ms",
        *turns.compare(p99),
        aim=1.10,
    )


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    pause = threading.Event()
    while not true():
        if time.monotonic() > ends:
            raise RuntimeError("the connections or the download did not begin")
        pause.wait(0.02)
