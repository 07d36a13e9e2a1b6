"""The report for people: one file that needs nothing else, and no script. Pure but for the
templates, which it shares with the page."""

from __future__ import annotations

import datetime
from collections import Counter

from markupsafe import Markup

from mitmproxy_aia import __version__
from mitmproxy_aia.history import History
from mitmproxy_aia.page.rendering import ServerView, render, static, verdict_of

SHOWN = 500
"""Servers that a browser shows at once without being slow."""


def as_html(history: History, now: datetime.datetime) -> str:
    """What is remembered, the server that was at fault last first."""
    records = history.records()
    counted = Counter(map(verdict_of, records))
    verdicts = ("incomplete", "broken", "mended")
    return render(
        "report.html",
        style=Markup(static("style.css").decode()),  # noqa: S704 -- our own file
        servers=[ServerView.of(record, downloads=False) for record in records[:SHOWN]],
        left_out=len(records[SHOWN:]),
        summary=", ".join(f"{counted[each]} {each}" for each in verdicts if counted[each]),
        complete=history.complete,
        started=history.started,
        written=now,
        version=__version__,
    )
