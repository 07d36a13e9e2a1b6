"""Two sides measured in turns, and what their figures say together. Pure but for the calls."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Measure = Callable[[], Sequence[float]]
"""One turn: some measurements of the same thing."""


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Turns:
    """What two sides have measured: for each turn, the figures of either."""

    ours: Sequence[Sequence[float]]
    baseline: Sequence[Sequence[float]]

    def compare(
        self,
        figure: Callable[[Sequence[float]], float],
        result: Callable[[float, float], float] = operator.truediv,
    ) -> tuple[Spread, Spread, Spread]:
        """`figure` (a median, say) of each turn: ours, the baseline's, and the ratio (or another
        `result`) of the two within a turn."""
        ours = [figure(turn) for turn in self.ours]
        baseline = [figure(turn) for turn in self.baseline]
        ratios = [*map(result, ours, baseline)]
        return Spread.of(ours), Spread.of(baseline), Spread.of(ratios)


def joined(all_turns: Sequence[Turns]) -> Turns:
    """As if these had been one."""
    return Turns(
        [turn for turns in all_turns for turn in turns.ours],
        [turn for turns in all_turns for turn in turns.baseline],
    )


def in_turns(number: int, ours: Measure, baseline: Measure) -> Turns:
    """Calls both `number` times; each is first as often as the other. One turn before those
    does not count: what is only ever done once is done in it."""
    ours(), baseline()
    of_ours: list[Sequence[float]] = []
    of_baseline: list[Sequence[float]] = []
    for turn in range(number):
        if turn % 2:
            of_baseline.append(baseline())
            of_ours.append(ours())
        else:
            of_ours.append(ours())
            of_baseline.append(baseline())
    return Turns(of_ours, of_baseline)


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
