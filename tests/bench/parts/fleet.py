"""What a fleet of proxies costs a Redis that they share: operations and bytes, cold and warm."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
from collections.abc import Iterator

from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.caches import open_source
from mitmproxy_aia.sources.memory import MemorySource
from tests.bench.measuring import Spread
from tests.bench.parts.simulation import AT_ONCE, Internet, Node, internet, visit
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.lab import RedisServer
from tests.lab.process import find_program

PART = "fleet"
_COUNTED = {
    "operations": "total_commands_processed",
    "bytes to Redis": "total_net_input_bytes",
    "bytes from Redis": "total_net_output_bytes",
}


def measure(plan: Plan) -> Iterator[Row]:
    """Every proxy goes to `plan.visits` servers twice: cold, when nothing is known anywhere, and
    warm. In between a proxy is restarted, which knows nothing and finds it all in Redis."""
    here = internet(plan.simulated_servers, plan.simulated_intermediates)
    with RedisServer() as server:
        for phase, figures, count in asyncio.run(_phases(here, server, plan)):
            yield from _rows(plan, phase, figures, count)


async def _phases(
    here: Internet, server: RedisServer, plan: Plan
) -> list[tuple[str, dict[str, int], int]]:
    nodes = [_node(here, server) for _ in range(plan.fleet)]
    trips = [random.sample(here.leaves, plan.visits) for _ in nodes]
    places = asyncio.Semaphore(AT_ONCE * 4)
    phases = []

    async def trip(number: int) -> None:
        for leaf in trips[number]:
            async with places:
                await visit(here, nodes[number], leaf)

    async def phase(name: str) -> None:
        start, before, then = _counters(server), _counters(server), here.downloads.total()
        await asyncio.gather(*map(trip, range(len(nodes))))
        after = _counters(server)
        # To ask for the counters counts, too.
        figures = {what: after[what] - 2 * before[what] + start[what] for what in after}
        phases.append((name, figures, here.downloads.total() - then))

    try:
        await phase("cold")
        await phase("warm")
        for number, node in enumerate(nodes):
            node.close()
            nodes[number] = _node(here, server)
        await phase("restarted")
    finally:
        for node in nodes:
            node.close()
    return phases


def _node(here: Internet, server: RedisServer) -> Node:
    return Node(open_source(server.url), AiaSource(here.download), MemorySource())


def _rows(plan: Plan, phase: str, figures: dict[str, int], count: int) -> Iterator[Row]:
    """A number of downloads, and what Redis has to do for each connection to a server."""
    made = plan.fleet * plan.visits
    fleet = f"{plan.fleet:,} proxies with a Redis, {phase}"
    downloads = Spread.of([count])
    most = plan.simulated_intermediates if phase == "cold" else 0
    yield Row(
        PART,
        f"downloads of {fleet}, {plan.visits} incomplete servers each",
        "intermediates" if phase == "cold" else "none",
        "",
        downloads,
        Spread.of([most]),
        downloads,
        most,
        "{:.0f}",
    )
    for what, number in figures.items():
        each = Spread.of([number / made])
        text = f"{what} for each connection, {fleet}"
        yield Row(PART, text, "", "", each, Spread.of([0]), each, None, "{:.1f}")


def _counters(server: RedisServer) -> dict[str, int]:
    command = [find_program("redis-cli"), "-p", str(server.port), "INFO"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^(\w+):(\d+)\r?$", text, re.MULTILINE))
    return {what: int(found[name]) for what, name in _COUNTED.items()}
