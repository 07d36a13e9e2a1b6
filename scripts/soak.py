"""What `scripts/soak` runs: see tests/soak. The exit status is 0 only if all was as promised."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.soak.plan import Plan
from tests.soak.report import as_json, table
from tests.soak.run import soak


def main(arguments: list[str] | None = None) -> int:
    """Runs it; the result is the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Hundreds of servers, complete, incomplete, broken and hostile; steady load on "
        "them through one mitmdump with the addon and through a stock one; and faults meanwhile.",
    )
    parser.add_argument("minutes", nargs="?", type=float, default=Plan.minutes)
    parser.add_argument(
        "--rate", type=float, default=Plan.rate, help="requests a second through each proxy"
    )
    parser.add_argument(
        "--copies", type=int, default=Plan.copies, help="how many servers there are of each sort"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        result = soak(Plan(chosen.minutes, chosen.rate, chosen.copies), say)
    except KeyboardInterrupt:
        say("Interrupted. All servers and proxies have been ended.")
        return 130
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(result), indent=2) + "\n")
    print(table(result))
    return 1 if result.broken_promises else 0


if __name__ == "__main__":
    sys.exit(main())
