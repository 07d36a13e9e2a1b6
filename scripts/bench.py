"""What `scripts/bench` runs: see tests/bench. The exit status is 0 if all could be measured,
whatever the figures are."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.bench.parts import PARTS
from tests.bench.plan import QUICK, Plan
from tests.bench.report import Missing, as_json, table
from tests.bench.run import bench, machine


def main(arguments: list[str] | None = None) -> int:
    """Runs it; the result is the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="What the addon costs: each figure is a ratio to a baseline that was measured "
        "in turns with it. Prints one table.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"all, or some of: {', '.join(PARTS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--quick", action="store_true", help="only see that it works: the figures say nothing"
    )
    chosen = parser.parse_args(arguments)
    for part in chosen.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        findings = bench(chosen.parts or [*PARTS], QUICK if chosen.quick else Plan(), say)
    except KeyboardInterrupt:
        say("Interrupted. All servers and proxies have been ended.")
        return 130
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(findings, machine()), indent=2) + "\n")
    print(machine())
    print()
    print(table(findings))
    return 1 if any(isinstance(finding, Missing) for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
