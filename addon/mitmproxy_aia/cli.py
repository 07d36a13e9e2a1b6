"""The `mitmproxy-aia` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parent


def script_path() -> Path:
    """The script for mitmproxy's `-s`. In a wheel it lies in a folder of its own inside the
    package, in a source tree beside the package. Raises FileNotFoundError."""
    candidates = _PACKAGE / "script" / "aia.py", _PACKAGE.parent / "aia.py"
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"the script is not where it was installed: {candidates[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` are those of the process if None."""
    parser = argparse.ArgumentParser(
        prog="mitmproxy-aia",
        description="Completes incomplete certificate chains for mitmproxy.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "path",
        help="print the path of the script",
        description='Prints the path of the script, for: mitmdump -s "$(mitmproxy-aia path)"',
    )
    parser.parse_args(arguments)
    try:
        print(script_path())
    except FileNotFoundError as error:
        sys.exit(f"mitmproxy-aia: {error}")
