"""`mitmproxy-aia report`: what a report says, for a person and for CI."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mitmproxy_aia.cli.intake import STDIN
from mitmproxy_aia.cli.terminal import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    Column,
    CommandError,
    Line,
    count,
    paint,
    table,
)
from mitmproxy_aia.names import one_line
from mitmproxy_aia.report import VERSION

MAX_REPORT = 256 * 2**20
"""Bytes."""
_STATUS = {"complete": 0, "incomplete": 1, "broken": 2}
_COLOURS = {"complete": GREEN, "incomplete": YELLOW, "broken": RED}
_WORDS = {"complete": "mended", "incomplete": "INCOMPLETE", "broken": "BROKEN"}


@dataclass(frozen=True)
class Server:
    """One server of a report. `detail` is what is missing, or why it is broken."""

    name: str
    verdict: str
    detail: str


def report(options: argparse.Namespace) -> int:
    """The worst verdict as the exit status, if it is at least `--fail-on`; otherwise 0. Raises
    CommandError also where that would be 0 because nothing has happened at all."""
    content = _read(options.file)
    servers = _servers(content)
    if options.fail_on and not servers and content.get("complete_handshakes") == 0:
        raise CommandError(
            f"{_named(options.file)} tells of no chain at all, good or bad, so nothing can be said "
            "of them: did the proxy reach any server, and was the addon loaded?"
        )
    worst = max((server.verdict for server in servers), key=_STATUS.__getitem__, default="complete")
    failed = bool(options.fail_on) and _STATUS[worst] >= _STATUS[options.fail_on]
    status = _STATUS[worst] if failed else 0
    if options.json:
        told = {"verdict": worst, "status": status, "servers": [*map(asdict, servers)]}
        print(json.dumps(told, indent=2))
    else:
        for line in _view(servers, content):
            print(line)
    return status


def _view(servers: Sequence[Server], content: dict[str, Any]) -> Iterator[str]:
    complete = content.get("complete_handshakes", 0)
    if servers:
        columns = [Column("VERDICT"), Column("SERVER", least=16), Column("DETAIL", least=24)]
        lines = (
            Line(
                [_WORDS[server.verdict], one_line(server.name), one_line(server.detail)],
                _COLOURS[server.verdict],
            )
            for server in servers
        )
        yield from table(columns, lines, sys.stdout)
        yield ""
    numbers = {
        word.lower(): sum(server.verdict == verdict for server in servers)
        for verdict, word in reversed(_WORDS.items())
    }
    told = [f"{number:,} {word}" for word, number in numbers.items() if number]
    summary = f"{count(len(servers), 'server')} with a fault"
    yield paint(f"{summary}: {', '.join(told)}" if told else summary, BOLD, sys.stdout)
    if isinstance(complete, int):
        yield f"{count(complete, 'handshake')} with complete chains"
    times = content.get("started"), content.get("written")
    if all(isinstance(time, str) for time in times):
        # Or one would take the report of yesterday for that of a run that did not even begin.
        yield one_line("seen from {} to {}".format(*times))


def _read(file: str) -> dict[str, Any]:
    """Raises CommandError, which names the file and what is wrong with it."""
    name = _named(file)
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_REPORT + 1)
        else:
            with open(file, "rb") as stream:
                data = stream.read(MAX_REPORT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(f"cannot read {name} ({why})") from error
    if len(data) > MAX_REPORT:
        raise CommandError(f"{name} is larger than {MAX_REPORT // 2**20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        hint = ""
        if data.lstrip()[:1] == b"<":
            hint = " It looks like HTML: a report for this command is one with aia_report=FILE.json"
        raise CommandError(f"{name} is no report: it is not JSON.{hint}") from error
    if not isinstance(content, dict) or "version" not in content or "servers" not in content:
        raise CommandError(f"{name} is no report of mitmproxy-aia (see aia_report)")
    if content["version"] != VERSION:
        raise CommandError(
            f"{name} is a report of version {one_line(str(content['version']))[:20]}, "
            f"and this program reads {VERSION}"
        )
    try:
        _servers(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CommandError(
            f"{name} is a damaged report ({type(error).__name__}: {error})"
        ) from error
    return content


def _named(file: str) -> str:
    return "stdin" if file == STDIN else one_line(file)


def _servers(content: dict[str, Any]) -> list[Server]:
    """Those at fault first, the worst of them before the others."""
    servers = [Server(_name(each), _verdict(each), _detail(each)) for each in content["servers"]]
    return sorted(servers, key=lambda server: -_STATUS[server.verdict])


def _name(server: dict[str, Any]) -> str:
    protocol = server.get("protocol", "TLS")
    return f"{server['name']}" if protocol == "TLS" else f"{server['name']} ({protocol})"


def _verdict(server: dict[str, Any]) -> str:
    verdict = server["verdict"]
    if verdict not in _STATUS:
        raise ValueError(f"{verdict!r} is no verdict")
    return str(verdict)


def _detail(server: dict[str, Any]) -> str:
    if server["reason"]:
        return str(server["reason"])
    origins = {each["sha256"]: each["origin"] for each in server["path"]}
    missing = [
        f"{each['subject']} {_home(each['found'], origins.get(each['sha256']))}"
        for each in server["missing"]
    ]
    return f"forgot {', '.join(missing)}" if missing else "sent what leads astray"


def _home(found: str, origin: str | None) -> str:
    """As `sources.Found.home`: that it was remembered is of no help."""
    return f"at {origin}" if origin and found != f"in {origin}" else found
