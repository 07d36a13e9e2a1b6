"""One soak, from the first server to the result."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.lab import Proxy, RedisServer
from tests.soak import watch
from tests.soak.builder import Builder
from tests.soak.client import Client
from tests.soak.expectation import STOCK, Conditions
from tests.soak.faults import Faults
from tests.soak.load import Load, steadily
from tests.soak.plan import SHORTEST_WITH_FAULTS, Plan
from tests.soak.processes import CaIssuers, free_port, tls_servers
from tests.soak.report import Result, Side
from tests.soak.sites import Internet, Kind

T = TypeVar("T")

PROBE = Path(__file__).resolve().parents[1] / "scripts" / "soak_probe.py"
BROKEN = PROBE.with_name("broken_completion.py")
TIMEOUT = 3
"""`aia_timeout` in the run, in seconds."""
PATIENCE = 15.0
"""Seconds in which every request has to be answered."""
SHORT_BEAT = 0.2
"""Seconds."""

Say = Callable[[str], None]
Objects = dict[str, Counter[str]]
"""By proxy and by type."""


def soak(plan: Plan, say: Say = lambda _text: None) -> Result:
    """Starts everything, runs, and ends everything."""
    ca_port, dead_port = free_port(), free_port()
    say("making certificates ...")
    builder = Builder(ca_port, dead_port)
    internet = builder.internet(plan.copies)
    with contextlib.ExitStack() as stack:
        say("starting servers and proxies ...")
        ca = CaIssuers(internet, ca_port)
        stack.callback(ca.kill)
        with ThreadPoolExecutor() as pool:
            # Entered there, so that a Ctrl-C meanwhile leaves none behind.
            addon = pool.submit(lambda: stack.enter_context(_addon_proxy(builder, plan)))
            stock = pool.submit(lambda: stack.enter_context(_proxy(builder, addon=False)))
            port = stack.enter_context(tls_servers(internet))
        proxies = {"addon": addon.result(), "stock": stock.result()}
        redis = None
        if plan.faults and shutil.which("redis-server"):
            redis = stack.enter_context(RedisServer())
        elif plan.faults:
            say("there is no redis-server: nothing is done to Redis")
        return asyncio.run(_Run(plan, internet, port, proxies, ca, redis, say).result())


def _addon_proxy(builder: Builder, plan: Plan) -> Proxy:
    if not plan.broken:
        return _proxy(builder, addon=True)
    return _proxy(builder, addon=True, scripts=[BROKEN], environment={"BROKEN": plan.broken})


def _proxy(
    builder: Builder,
    *,
    addon: bool,
    scripts: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> Proxy:
    options: dict[str, str | int | float] = {"flow_detail": 0, "termlog_verbosity": "info"}
    if addon:
        options["aia_timeout"] = TIMEOUT
    return Proxy(
        trust=[builder.root],
        addon=addon,
        options=options,
        scripts=[*scripts, PROBE],
        environment=environment,
    )


class _Run:
    def __init__(
        self,
        plan: Plan,
        internet: Internet,
        port: int,
        proxies: Mapping[str, Proxy],
        ca: CaIssuers,
        redis: RedisServer | None,
        say: Say,
    ) -> None:
        self._plan = plan
        self._internet = internet
        self._proxies = proxies
        self._ca = ca
        self._say = say
        self._clients = {
            name: Client(proxy.port, ssl.create_default_context(cafile=proxy.ca_file), PATIENCE)
            for name, proxy in self._proxies.items()
        }
        self._loads = {
            name: Load(self._clients[name], internet, port, [conditions])
            for name, conditions in (("addon", Conditions()), ("stock", STOCK))
        }
        self._faults = Faults(
            self._loads["addon"],
            self._clients["addon"],
            internet,
            ca,
            proxies["addon"].confdir / "aia.sqlite3",
            redis,
            plan.beat,
        )

    async def result(self) -> Result:
        await self._ca.start()
        self._say(f"visiting each of {len(self._internet.sites)} servers ...")
        for client in self._clients.values():
            await client.probe("set/termlog_verbosity=error")
        await self._each(lambda name: self._loads[name].visit(self._internet.sites))
        if self._plan.faults:
            await self._warm_up()
        before = await self._each(lambda name: watch.at_rest(self._clients[name]))
        memory, objects, peaks = await self._under_load(before)
        self._say("waiting until nothing moves any more ...")
        after = await self._each(lambda name: watch.at_rest(self._clients[name], before[name]))

        def side(name: str) -> Side:
            return Side(
                self._loads[name].tally,
                [each[name] for each in memory],
                peaks.rss[name],
                (objects[0][name], objects[-1][name]),
                after[name].beyond(before[name]),
                [*after[name].errors, *_tracebacks(self._proxies[name])],
            )

        servers = Counter(site.kind for site in self._internet.sites)
        faults = {name: self._faults.done[name] for name in self._faults.all()}
        faults = faults if self._plan.faults else {}
        plan = self._plan
        return Result(
            plan.minutes, plan.rate, plan.shares, servers, side("addon"), side("stock"), faults
        )

    async def _warm_up(self) -> None:
        """What is loaded, opened or filled only by load and faults is not to look like growth."""
        self._say("warming up with each of the faults ...")
        load = asyncio.create_task(self._steadily(until=math.inf))
        try:
            await self._faults.once(min(SHORT_BEAT, self._plan.beat))
        finally:
            load.cancel()
            await asyncio.wait([load])
        await self._each(lambda name: self._loads[name].finish())
        # The cache is opened when it is first needed after the last of the faults.
        await self._each(lambda name: self._loads[name].visit(self._internet.of(Kind.FRESH)))

    async def _steadily(self, until: float, seed: int = 0) -> None:
        await steadily([*self._loads.values()], self._internet, self._plan.rate, until, seed)

    async def _under_load(
        self, before: Mapping[str, watch.Holdings]
    ) -> tuple[list[dict[str, watch.Memory]], list[Objects], watch.Peaks]:
        """Memory and Python objects of each proxy at each of the shares of the run, at rest."""
        seconds, done = self._plan.seconds, 0.0
        self._say(f"{seconds:.0f} s of {self._plan.rate:g} requests a second ...")
        memory, objects = [], []
        peaks = watch.Peaks({name: proxy.process.pid for name, proxy in self._proxies.items()})
        for seed, share in enumerate(self._plan.shares, start=1):
            await self._stretch((share - done) * seconds, seed, peaks)
            done = share
            await self._each(lambda name: watch.at_rest(self._clients[name], before[name]))
            memory.append(await self._each(self._memory))
            objects.append(await self._each(self._objects))
            tally, used = self._loads["addon"].tally, memory[-1]
            self._say(
                f"{share:.0%}: {tally.requests.total():,} requests, {tally.wrong.total()} wrong "
                f"answers, {tally.errors.total()} errors, {used['addon'].rss:.1f} MiB in use "
                f"(stock: {used['stock'].rss:.1f})"
            )
        return memory, objects, peaks

    async def _stretch(self, seconds: float, seed: int, peaks: watch.Peaks) -> None:
        """Load and faults for a while, until the last answer."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(peaks.run())
            work = [group.create_task(self._steadily(end, seed))]
            if self._plan.faults and self._plan.seconds >= SHORTEST_WITH_FAULTS:
                work.append(group.create_task(self._faults.run(end - self._plan.beat)))
            await asyncio.wait(work)
            watching.cancel()
        await self._each(lambda name: self._loads[name].finish())

    async def _memory(self, name: str) -> watch.Memory:
        return await watch.memory_in_use(self._clients[name], self._proxies[name].process.pid)

    async def _objects(self, name: str) -> Counter[str]:
        return await watch.objects(self._clients[name])

    async def _each(self, what: Callable[[str], Coroutine[Any, Any, T]]) -> dict[str, T]:
        """What comes of it for each proxy, all at the same time."""
        answers = await asyncio.gather(*(what(name) for name in self._proxies))
        return dict(zip(self._proxies, answers, strict=True))


def _tracebacks(proxy: Proxy) -> list[str]:
    """What a proxy has said that did not go through its log."""
    log = proxy.log
    return [log[log.index("Traceback") :][:2000]] if "Traceback" in log else []
