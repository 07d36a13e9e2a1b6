"""Requests to answers: what there is at http://mitm.aia/. Pure but for its own templates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from mitmproxy_aia import __version__
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.history import Record
from mitmproxy_aia.page.rendering import ServerView, chain_path, render, static, verdict_of
from mitmproxy_aia.page.settings import Setting
from mitmproxy_aia.remedies import file_name, full_chain

SHOWN = 50
"""Servers on one page."""

_HTML = "text/html; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"
_STATIC = {
    "/style.css": "text/css; charset=utf-8",
    "/live.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Listing:
    """What is remembered: the first of it, `more` if there is more than that, and otherwise
    `problem` says why the cache does not tell. `cache` is its name."""

    cache: str
    entries: Sequence[Entry] = ()
    more: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Facts:
    """What there is to show. `revision` changes when the records do. `complete` counts
    handshakes with complete chains. `metrics` makes Prometheus' text and its type, or raises
    ImportError with one sentence."""

    records: Sequence[Record] = ()
    revision: str = ""
    complete: int = 0
    settings: Sequence[Setting] = ()
    notices: Sequence[str] = ()
    listing: Listing = field(default_factory=lambda: Listing("memory"))
    metrics: Callable[[], tuple[bytes, str]] = lambda: (b"", _PLAIN)


@dataclass(frozen=True)
class Answer:
    """An HTTP response, without the headers that all have."""

    body: bytes
    content_type: str = _HTML
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def respond(target: str, facts: Facts) -> Answer:
    """The answer to a GET of `target`: a path, perhaps with a query."""
    path, _, query = target.partition("?")
    if path in _STATIC:
        # Each request is one more flow in mitmproxy's list.
        keep = {"Cache-Control": "private, max-age=600"}
        return Answer(static(path[1:]), _STATIC[path], headers=keep)
    if path in _PAGES:
        return _PAGES[path](facts, parse_qs(query))
    if path.startswith("/chain/"):
        for record in facts.records:
            if chain_path(record) == path:
                return _chain(record)
        text = "This server is not, or no longer, among those remembered."
        return _message(facts, 404, "No such chain", text)
    return _message(facts, 404, "Not found", "There is nothing at this address.")


def _servers(facts: Facts, query: Mapping[str, Sequence[str]]) -> Answer:
    last = max(len(facts.records) - 1, 0)
    begin = min(_number(query.get("from", ["0"])[0]), last) // SHOWN * SHOWN
    shown = facts.records[begin : begin + SHOWN]
    counted = Counter(verdict_of(record) for record in facts.records)
    summary = [f"{counted[each]} {each}" for each in ("incomplete", "broken", "mended")]
    several = "s" if facts.complete != 1 else ""
    return _page(
        "servers.html",
        facts,
        here="/",
        revision=facts.revision,
        servers=[ServerView.of(record) for record in shown],
        total=len(facts.records),
        summary=", ".join(text for text in summary if not text.startswith("0 ")),
        empty=f"{facts.complete} handshake{several} with complete chains."
        if facts.complete
        else "No server was contacted over TLS yet.",
        older=begin + SHOWN if begin + SHOWN < len(facts.records) else 0,
        newer=begin - SHOWN if begin else None,
    )


def _cache(facts: Facts, _query: object) -> Answer:
    listing = facts.listing
    number = len(listing.entries)
    count = f"{number} intermediate{'' if number == 1 else 's'}, in memory and in {listing.cache}."
    if listing.more:
        count = f"The first {number}. All: mitmproxy-aia cache list"
    return _page(
        "cache.html",
        facts,
        here="/cache",
        entries=listing.entries,
        cache=listing.cache,
        problem=listing.problem,
        count=count,
    )


def _settings(facts: Facts, _query: object) -> Answer:
    return _page("settings.html", facts, here="/settings", settings=facts.settings)


def _metrics(facts: Facts, _query: object) -> Answer:
    try:
        return Answer(*facts.metrics())
    except ImportError as error:
        return Answer(f"{error}\n".encode(), _PLAIN, 503)


def _chain(record: Record) -> Answer:
    body = full_chain(ServerView.of(record).drawing.chain).encode()
    headers = {"Content-Disposition": f'attachment; filename="{file_name(record.server)}"'}
    return Answer(body, "application/x-pem-file", headers=headers)


def _message(facts: Facts, status: int, heading: str, text: str) -> Answer:
    body = _page("message.html", facts, here="", heading=heading, text=text).body
    return Answer(body, status=status)


def _page(template: str, facts: Facts, **values: object) -> Answer:
    text = render(template, notices=facts.notices, version=__version__, **values)
    return Answer(text.encode(errors="replace"))


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else 0


_PAGES: Mapping[str, Callable[[Facts, Mapping[str, Sequence[str]]], Answer]] = {
    "/": _servers,
    "/cache": _cache,
    "/settings": _settings,
    "/metrics": _metrics,
}
