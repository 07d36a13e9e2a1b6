"""What the command line shows a person: error lines, tables, colours, a progress bar."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Self, TextIO

from mitmproxy_aia.names import one_line

PROGRAM = "mitmproxy-aia"
BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
"""Colours, as ANSI's SGR numbers."""
MEASURED = 1_000
"""Rows of a table that are read to see how wide its columns have to be."""
REDRAW_SECONDS = 0.1

_GAP = "  "
_BAR = 30


class CommandError(Exception):
    """Why a command cannot do what it was told: one sentence."""


def complain(text: str) -> None:
    """Says on stderr, in one line, what went wrong."""
    print(f"{PROGRAM}: {one_line(text)}", file=sys.stderr)


def count(number: int, noun: str) -> str:
    """`1 certificate`, `1,260 certificates`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` goes to a terminal that can do more than print lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """`text` in `colour`, if `stream` is a terminal and its user wants colours
    (https://no-color.org)."""
    if not colour or os.environ.get("NO_COLOR") or not is_terminal(stream):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


@dataclass(frozen=True)
class Column:
    """Of a table. Where there is no room its cells are cut to `least` columns, if that is not
    0, those of the last column first."""

    title: str
    least: int = 0


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    cells: Sequence[str]
    colour: str = ""


def table(columns: Sequence[Column], lines: Iterable[Line], stream: TextIO) -> Iterator[str]:
    """The lines of a table, the titles first, that is as wide as the terminal at most; in a file
    or a pipe, as wide as it has to be. Reads `lines` as it goes."""
    rest = iter(lines)
    head = list(islice(rest, MEASURED + 1))
    wanted = [
        max(columns_of(cell) for cell in cells)
        for cells in zip(
            [column.title for column in columns], *(line.cells for line in head), strict=True
        )
    ]
    bounded = stream.isatty() or "COLUMNS" in os.environ
    room = sum(wanted)
    if bounded:
        room = shutil.get_terminal_size().columns - len(_GAP) * (len(columns) - 1)
    if bounded and len(head) > MEASURED:  # what comes later may be wider
        wanted = [
            max(width, room) if column.least else width
            for column, width in zip(columns, wanted, strict=True)
        ]
    widths = _widths(columns, wanted, room)
    titles = Line([column.title for column in columns], BOLD)
    for line in chain([titles], head, rest):
        cells = [
            fit(cell, width if bounded else max(width, columns_of(cell)))
            for cell, width in zip(line.cells, widths, strict=True)
        ]
        yield paint(_GAP.join(cells).rstrip(), line.colour, stream)


def _widths(columns: Sequence[Column], wanted: Sequence[int], room: int) -> list[int]:
    """The wanted widths, or less where there is no room for them."""
    widths = list(wanted)
    for at in reversed(range(len(columns))):
        if columns[at].least:
            needless = max(0, widths[at] - columns[at].least)
            widths[at] -= min(needless, max(0, sum(widths) - room))
    return widths


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def fit(text: str, width: int) -> str:
    """`text` in exactly `width` columns. What is too long loses its end, but the path of a
    file its beginning: that says less."""
    if columns_of(text) > width:
        text = (
            f"…{_head(text[::-1], width - 1)[::-1]}"
            if text[0] == "/"
            else _head(text, width - 1) + "…"
        )
    return text + " " * (width - columns_of(text))


def _head(text: str, width: int) -> str:
    """As much of the beginning of `text` as takes `width` columns. All of it takes more."""
    used = at = 0
    while (used := used + _columns(text[at])) <= width:
        at += 1
    return text[:at]


class Progress:
    """A progress bar on stderr, if that is a terminal. It is gone at the end of the `with`."""

    def __init__(self, title: str) -> None:
        self._title = one_line(title)
        self._shown = is_terminal(sys.stderr)
        self._drawn = False
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def update(self, done: int, total: int, note: str) -> None:
        """`total` is 0 if it is not known. `note` stands beside the bar."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + REDRAW_SECONDS
        self._drawn = True
        share = min(1.0, done / total) if total else 0.0
        bar = f"[{'#' * int(share * _BAR):.<{_BAR}}] {share:4.0%}  " if total else ""
        # The last column stays free: some terminals begin a new line when it is filled.
        room = shutil.get_terminal_size().columns - 1 - len(bar) - len(note)
        title = fit(self._title, max(1, min(len(self._title), room - len(_GAP))))
        text = f"{title}{_GAP}{bar}{note}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Makes room for a line of text, until the next `update`."""
        if self._drawn:
            self._drawn = False
            self._next = 0.0
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
