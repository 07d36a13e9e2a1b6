"""How long a soak is, how many requests and servers there are, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

BEATS = 34
"""How many times a fault's length the run lasts at least, so that all have their turn."""
LONGEST_BEAT = 4.0
"""Seconds."""
SHORTEST_WITH_FAULTS = 30.0
"""Seconds. What is shorter has had each of them once, before it starts."""


@dataclass(frozen=True)
class Plan:
    """`rate` is in requests a second through each of the two proxies, and `copies` is how often
    each sort of server is there. With `faults` False nothing fails but the servers. `broken`
    names a bug to put into the addon, as in tests/scripts/broken_completion.py: to see the run
    fail."""

    minutes: float = 1.0
    rate: float = 30.0
    copies: int = 6
    faults: bool = True
    broken: str = ""

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the run, at which memory is looked at."""
        return (0.1, 0.25, 0.5, 0.75, 1) if self.seconds >= SHORTEST_WITH_FAULTS else (0.5, 1)

    @property
    def beat(self) -> float:
        return min(LONGEST_BEAT, self.seconds / BEATS)
