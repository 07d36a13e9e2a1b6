"""Starting, with nothing in the cache and with a great many certificates in it."""

from __future__ import annotations

import contextlib
import operator
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.history import utc_now
from mitmproxy_aia.sources.caches import CACHE_FILE
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.bench.measuring import Spread, in_turns
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.lab import Issued, Proxy, authority, common_name

PART = "start"
CACHED = "cached"
_NAME = b"Intermediate 000000"


def measure(plan: Plan) -> Iterator[Row]:
    turns = in_turns(plan.starts, lambda: [_start(True)[0]], lambda: [_start(False)[0]])
    yield Row(
        PART,
        "start of mitmdump until it listens",
        "stock mitmdump",
        "ms",
        *turns.compare(statistics.median, operator.sub),
        aim=150,
        shown="{:+.0f} ms",
    )


def measure_cached(plan: Plan) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as full, tempfile.TemporaryDirectory() as empty:
        root = authority("Root")
        template = root.issue(_NAME.decode(), ca=True).der
        made = [_numbered(template, number) for number in range(plan.cached)]
        now = utc_now()
        with contextlib.closing(SqliteCache(Path(full, CACHE_FILE))) as cache:
            cache.add(Entry(each, "http://ca.test/", now, now) for each in made)
        starts = in_turns(
            plan.starts,
            lambda: _start(True, Path(full)),
            lambda: _start(True, Path(empty)),
        )
        what = f"with {plan.cached:,} cached intermediates"
        seconds = starts.compare(operator.itemgetter(0))
        yield Row(CACHED, f"start {what}", "with none", "ms", *seconds, aim=1.05)
        memory = starts.compare(operator.itemgetter(1))
        yield Row(CACHED, f"memory after the start {what}", "with none", "MiB", *memory, aim=1.05)
        yield _look_up(Path(full, CACHE_FILE), root, plan)


def _look_up(file: Path, root: Issued, plan: Plan) -> Row:
    source = SqliteSource(file)
    step = max(plan.cached // 1000, 1)
    took = []
    try:
        for number in range(0, plan.cached, step):
            name = f"{_NAME.decode()[:-6]}{number:06}"
            leaf = Certificate.from_der(root.issue(issuer_name=common_name(name)).der)
            _ = leaf.issuer
            started = time.perf_counter()
            found = source.known_issuers(leaf)
            took.append((time.perf_counter() - started) * 1000)
            assert len(found) == 1, name
    finally:
        source.close()
    spread, nothing = Spread.of(took), Spread(0, 0, 0)
    what = f"lookup among {plan.cached:,} cached intermediates"
    return Row(CACHED, what, "(no baseline)", "ms", spread, nothing, spread, 0.2, "{:.3f} ms")


def _numbered(template: bytes, number: int) -> Certificate:
    """The same certificate with another name; its signature is wrong, which no cache asks."""
    return Certificate.from_der(template.replace(_NAME, _NAME[:-6] + b"%06d" % number))


def _start(addon: bool, confdir: Path | None = None) -> list[float]:
    """Milliseconds until it listens, and MiB of memory that it then has."""
    options = {"termlog_verbosity": "info"}
    # What Python has compiled it keeps, as it does for users (pip has compiled mitmproxy already).
    keep = {"PYTHONDONTWRITEBYTECODE": ""}
    started = time.perf_counter()
    with Proxy(addon=addon, confdir=confdir, options=options, environment=keep) as proxy:
        took = (time.perf_counter() - started) * 1000
        return [took, resident(proxy)]


def resident(proxy: Proxy) -> float:
    """MiB of RSS. Needs Linux."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert match
    return int(match[1]) / 1024
