"""What `mitmproxy-aia report` takes on the command line, and its help."""

from __future__ import annotations

import argparse

CANNOT_READ = 3

_HELP = """\
A proxy writes a report when it ends: mitmdump --set aia_report=report.json

exit status:
  0  fine, or nothing that --fail-on names; always, without --fail-on
  1  with --fail-on incomplete: a server is incomplete
  2  with --fail-on incomplete or broken: a server is broken
  3  the report cannot be read, or with --fail-on: it tells of no chain at all;
     or a bad command line
The last handshake with a server counts: one that was mended is fine.

examples:
  mitmproxy-aia report report.json
  mitmproxy-aia report report.json --fail-on incomplete
  jq -r '.servers[] | .full_chain' report.json"""


def add_report_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report`. It sets `run`, which returns the exit status, `parser`, and `failed`, the
    exit status where it cannot do what it was told."""
    text = "show what a proxy has reported, and have CI fail"
    parser = commands.add_parser(
        "report",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_report, parser=parser, failed=CANNOT_READ)
    parser.add_argument("file", metavar="FILE", help="a report (.json); - for stdin")
    parser.add_argument(
        "--fail-on",
        choices=("incomplete", "broken"),
        default="",
        help="the exit status says whether there is such a server, or worse",
    )
    parser.add_argument("--json", action="store_true", help="the gist for other programs")


def _report(options: argparse.Namespace) -> int:
    from mitmproxy_aia.cli.reporting import report

    return report(options)
