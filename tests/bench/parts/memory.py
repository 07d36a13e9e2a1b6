"""What is left in memory after many requests to incomplete servers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from tests.bench.client import fetch
from tests.bench.measuring import Spread
from tests.bench.parts.starts import resident
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.bench.world import OPTIONS, World, proxies, world
from tests.lab import Proxy
from tests.lab.process import clean_environment

PART = "memory"
_WARM = 20
"""Requests before memory is looked at first: a hundredth of it all, but at least these."""


def measure(plan: Plan) -> Iterator[Row]:
    """With ab, through a reverse proxy that is asked in the clear: each request is a handshake."""
    ab = shutil.which("ab")
    if ab is None:
        raise FileNotFoundError("needs ab: apt-get install apache2-utils")
    with world() as internet:
        incomplete, complete = internet.new_pair()
        new = [internet.new_pair() for _ in range(plan.servers)]
        with internet.serving():
            with (
                _reverse(internet, incomplete, True) as ours,
                _reverse(internet, complete, False) as stock,
            ):
                growth = _growth(ab, [ours, stock], plan.remembered)
            yield _row(f"growth of memory in {plan.remembered:,} requests", growth, aim=2)
            with proxies(internet) as (ours, stock):
                growth = []
                for proxy, which in (ours, 0), (stock, 1):
                    urls = [pair[which] for pair in new]
                    warm = urls[: len(urls) // 10 + 1]
                    fetch(warm * 3, proxy)
                    before = resident(proxy)
                    fetch(urls, proxy)
                    growth.append((resident(proxy) - before) * 1024 / len(urls))
            yield _row("memory for each incomplete server that is new", growth, aim=4, unit="KiB")


def _row(what: str, growth: list[float], aim: float, unit: str = "MiB") -> Row:
    ours, baseline = (Spread.of([value]) for value in growth)
    beyond = Spread.of([growth[0] - growth[1]])
    against = "complete ones through stock mitmdump"
    return Row(PART, what, against, unit, ours, baseline, beyond, aim, f"{{:+.1f}} {unit}")


def _reverse(internet: World, url: str, addon: bool) -> Proxy:
    mode = f"reverse:{url}"
    return Proxy(trust=[internet.root], addon=addon, mode=mode, options=OPTIONS)


def _growth(ab: str, loaded: list[Proxy], requests: int) -> list[float]:
    """MiB that each has grown by, all under load at the same time."""
    _load(ab, loaded, max(requests // 10, _WARM))
    before = [resident(proxy) for proxy in loaded]
    _load(ab, loaded, requests)
    return [resident(proxy) - then for proxy, then in zip(loaded, before, strict=True)]


def _load(ab: str, loaded: list[Proxy], requests: int) -> None:
    clients = [
        subprocess.Popen(
            [ab, "-q", "-n", str(requests), "-c", "4", f"{proxy.url}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            text=True,
        )
        for proxy in loaded
    ]
    for client in clients:
        output, _ = client.communicate()
        if client.returncode or "Non-2xx" in output or "Failed requests:        0" not in output:
            raise RuntimeError(f"ab did not get what it asked for:\n{output}")
