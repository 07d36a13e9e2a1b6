"""What `mitmproxy-aia check` and `mitmproxy-aia verify` take on the command line, and their
help."""

from __future__ import annotations

import argparse
import datetime
import math

from mitmproxy_aia.inspection.starttls import PROTOCOLS

JOBS = 20
NOT_CHECKED = 3
"""The exit status of a bad command line, too: `inspection.results.Verdict` has the others."""

_STATUS = """\
exit status:
  0  complete: OpenSSL verifies the chain as it is
  1  incomplete: the chain can be completed, and then verifies
  2  broken: no valid path was found, or a wrong name, expired, ...
  3  not checked: could not connect, or read; or a bad command line
Of several the worst counts."""
_CHECK_HELP = f"""\
{_STATUS}

HOST is a name, an address, [2001:db8::1]:8443 or a URL. Trusted are the roots
of certifi, as mitmproxy does by default, unless --trust names others. Nothing
is remembered on disk unless --cache names a cache. Downloads obey the proxy's
rule: to the server's own address space or a more public one.

examples:
  mitmproxy-aia check www.example.com
  mitmproxy-aia check www.example.com --fullchain fullchain.pem
  mitmproxy-aia check mail.example.com --starttls smtp
  mitmproxy-aia check www.example.com --connect 192.0.2.7
  mitmproxy-aia check --from hosts.txt --json"""
_VERIFY_HELP = f"""\
{_STATUS}

A file holds a leaf and none, some or all of its intermediates, in PEM, DER or
PKCS#7 and in any order. Downloads go to public addresses only, unless --allow
names others: there is no server whose network could be told.

examples:
  mitmproxy-aia verify chain.pem --host www.example.com
  mitmproxy-aia verify chain.pem --trust roots.pem --at 2024-06-01 --offline
  openssl pkcs12 -in site.p12 -nokeys | mitmproxy-aia verify -"""


def add_inspection_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Adds `check` and `verify`. Each sets `run`, which returns the exit status, `parser`, and
    `failed`, the exit status where it cannot do what it was told."""
    check = _add(
        commands, "check", "show what a server forgets to send, and where it is", _CHECK_HELP
    )
    check.set_defaults(run=_check, parser=check, noun="server")
    check.add_argument("host", nargs="*", metavar="HOST[:PORT]", help="a server; port 443 if none")
    check.add_argument(
        "--from",
        dest="hosts_from",
        action="append",
        default=[],
        metavar="FILE",
        help="a file with one HOST[:PORT] in a line and comments after #; - for stdin",
    )
    check.add_argument("--connect", metavar="ADDRESS", help="connect to this address or host")
    check.add_argument("--sni", metavar="NAME", help="ask for this name instead of HOST")
    check.add_argument("--tls12", action="store_true", help="nothing newer than TLS 1.2")
    check.add_argument(
        "--starttls", choices=sorted(PROTOCOLS), help="what is spoken before TLS begins"
    )
    check.add_argument(
        "--jobs",
        type=_jobs,
        default=JOBS,
        metavar="N",
        help=f"hosts at the same time (default: {JOBS})",
    )
    _add_common(check)

    verify = _add(commands, "verify", "say whether the chain in a file is complete", _VERIFY_HELP)
    verify.set_defaults(run=_verify, parser=verify, noun="file")
    verify.add_argument("file", nargs="+", metavar="CHAIN", help="a file with a chain; - for stdin")
    verify.add_argument("--host", metavar="NAME", help="it has to be for this name or address")
    verify.add_argument(
        "--at",
        type=_time,
        metavar="TIME",
        help="a verdict at this time (UTC): 2024-06-01 or 2024-06-01T12:30:00Z",
    )
    _add_common(verify)


def _check(options: argparse.Namespace) -> int:
    # What it needs takes a while to import, and other commands do not.
    from mitmproxy_aia.cli.checking import check

    return check(options)


def _verify(options: argparse.Namespace) -> int:
    from mitmproxy_aia.cli.verifying import verify

    return verify(options)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, more: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(failed=NOT_CHECKED)
    return made


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--fullchain",
        type=_file,
        metavar="FILE",
        help="write leaf and intermediates there, as PEM",
    )
    add("--trust", default="", metavar="FILE", help="trust the roots in this file, and no others")
    add(
        "--intermediates",
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder with intermediates to complete with; can be repeated",
    )
    add(
        "--cache",
        default="memory",
        metavar="WHERE",
        help="a cache as in aia_cache: a file or redis://...; it is filled, too (default: none)",
    )
    add("--offline", action="store_true", help="download nothing")
    add(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="for connecting, and once more for completing (default: 10)",
    )
    for name, what in ("allow", "may go beyond the rule"), ("deny", "may not go"):
        add(
            f"--{name}",
            action="append",
            default=[],
            metavar="WHERE",
            help=f"where downloads {what}, as in aia_{name}; can be repeated",
        )
    add("--json", action="store_true", help="for other programs")
    add("-v", "--verbose", action="store_true", help="the whole picture also of several")


def _file(text: str) -> str:
    # Elsewhere - is stdin, and what a script has not set is empty.
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file; for a pipe: --json | jq -r '.results[].full_chain'"
        )
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds greater than 0")
    return seconds


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def _time(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
        if time.tzinfo is None:
            return time.replace(tzinfo=datetime.UTC)
        return time.astimezone(datetime.UTC)
    except (ValueError, OverflowError):  # in UTC it may be before the year 1
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time such as 2024-06-01 or 2024-06-01T12:30:00Z"
        ) from None
