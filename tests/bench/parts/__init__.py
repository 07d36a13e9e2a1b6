"""The parts of the benchmarks: each gives some rows of the table, and can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.bench.parts import handshakes
from tests.bench.plan import Plan
from tests.bench.report import Finding

Part = Callable[[Plan], Iterator[Finding]]

PARTS: Mapping[str, Part] = {
    "handshakes": handshakes.measure,
}
