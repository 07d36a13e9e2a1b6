"""The `mitmproxy-aia` command."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mitmproxy_aia import __version__
from mitmproxy_aia.cache import CacheError
from mitmproxy_aia.cli.arguments import add_cache_command
from mitmproxy_aia.cli.inspection_arguments import add_inspection_commands
from mitmproxy_aia.cli.report_arguments import add_report_command
from mitmproxy_aia.cli.terminal import PROGRAM, CommandError, complain

INTERRUPTED = 130
PIPE_CLOSED = 141
"""The exit statuses of what a shell says has ended by SIGINT and SIGPIPE."""

_PACKAGE = Path(__file__).parent.parent
_EXAMPLES = """\
examples:
  mitmdump -s "$(mitmproxy-aia path)"
  mitmproxy-aia check www.example.com
  mitmproxy-aia cache list
  mitmproxy-aia cache import --mozilla"""


def script_path() -> Path:
    """The script for mitmproxy's `-s`. In a wheel it lies in a folder of its own inside the
    package, in a source tree beside the package. Raises FileNotFoundError."""
    candidates = _PACKAGE / "script" / "aia.py", _PACKAGE.parent / "aia.py"
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"the script is not where it was installed: {candidates[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` are those of the process if None. Raises SystemExit if the
    exit status is not 0."""
    _make_output_safe()
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        # Not by argparse itself: the command's own usage is of more use, and so is its status.
        getattr(options, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        with warnings.catch_warnings():
            # Of odd names in strangers' certificates, which nobody here can mend.
            warnings.simplefilter("ignore", UserWarning)
            status = _run(options)
        print(end="", flush=True)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _let_go_of_output()
        status = PIPE_CLOSED
    except OSError as error:  # commands have words for all others
        complain(f"cannot write the output ({error.strerror})")
        _let_go_of_output()
        status = _failed(options)
    except Exception:
        # A fault of ours. Python's own status for it is that of an incomplete chain.
        traceback.print_exc()
        status = _failed(options)
    if status:
        sys.exit(status)


class _Parser(argparse.ArgumentParser):
    """Ends a bad command line with the command's own exit status for that, if it has one."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        failed = self.get_default("failed")
        super().exit(failed if status and failed is not None else status, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Completes incomplete certificate chains for mitmproxy.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    made_of: type[argparse.ArgumentParser] = _Parser
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=made_of
    )
    path = commands.add_parser(
        "path",
        help="print the path of the script",
        description='Prints the path of the script, for: mitmdump -s "$(mitmproxy-aia path)"',
    )
    path.set_defaults(run=_path)
    add_cache_command(commands)
    add_inspection_commands(commands)
    add_report_command(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    try:
        status: int = options.run(options)
    except (CommandError, CacheError) as error:
        complain(str(error))
        return _failed(options)
    return status


def _failed(options: argparse.Namespace) -> int:
    """The exit status of a command that cannot do what it was told."""
    return int(getattr(options, "failed", 1))


def _path(options: argparse.Namespace) -> int:
    try:
        print(script_path())
    except FileNotFoundError as error:
        raise CommandError(str(error)) from error
    return 0


def _make_output_safe() -> None:
    """A name that the terminal's encoding lacks, or a stream that was closed by who started
    us, is no reason to fail."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 -- stays open: it is the stream from now on
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Python would try once more to write what is left, and complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
