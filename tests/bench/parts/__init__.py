"""The parts of the benchmarks: each gives some rows of the table, and can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.bench.parts import (
    beside_squid,
    cpu,
    crowd,
    fleet,
    handshakes,
    memory,
    simulation,
    starts,
)
from tests.bench.plan import Plan
from tests.bench.report import Finding

Part = Callable[[Plan], Iterator[Finding]]

PARTS: Mapping[str, Part] = {
    handshakes.PART: handshakes.measure,
    cpu.PART: cpu.measure,
    crowd.PART: crowd.measure,
    crowd.HANGING: crowd.measure_hanging,
    starts.PART: starts.measure,
    starts.CACHED: starts.measure_cached,
    memory.PART: memory.measure,
    simulation.PART: simulation.measure,
    fleet.PART: fleet.measure,
    beside_squid.PART: beside_squid.measure,
}
