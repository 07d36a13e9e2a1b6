"""How long the benchmarks take, and how exact they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """`turns` is how often both sides of a comparison take their turn, `requests` how many
    requests (or calls) each then makes. The others are sizes of single parts, as in the table."""

    turns: int = 20
    requests: int = 50
    processes: int = 3
    """Proxies of each kind, one after the other, that share the turns of `handshakes`."""
    fresh: int = 8
    """Servers in a turn that nobody has been to before."""
    crowd: int = 500
    crowd_servers: int = 50
    crowd_turns: int = 5
    hanging: int = 100
    starts: int = 15
    cached: int = 100_000
    remembered: int = 50_000
    simulated_servers: int = 10_000
    simulated_intermediates: int = 300
    servers: int = 500
    """Incomplete servers that each take some memory."""
    fleet: int = 1_000
    visits: int = 10
    """Servers that each proxy of the fleet goes to."""
    slow: float = 0.5
    """Seconds that a slow caIssuers server takes, for Squid."""
    squid_turns: int = 8


QUICK = dataclasses.replace(
    Plan(),
    turns=2,
    requests=3,
    processes=2,
    fresh=2,
    crowd=20,
    crowd_servers=5,
    crowd_turns=1,
    hanging=5,
    starts=1,
    cached=500,
    remembered=30,
    simulated_servers=100,
    simulated_intermediates=10,
    servers=5,
    fleet=10,
    visits=3,
    slow=0.1,
    squid_turns=1,
)
"""To see that it works. The figures say nothing."""
