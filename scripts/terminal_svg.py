"""What a terminal has shown, as a picture that scales. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLUMN, _LINE, _MARGIN, _SIZE = 8.4, 19, 16, 14
"""Pixels."""
_BACKGROUND, _FOREGROUND = "#15181d", "#d6dae0"
_COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60"}
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

_PART = re.compile(r"\S+(?: \S+)*")
_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


@dataclass(frozen=True)
class _Piece:
    """Characters that look the same, from `column` on."""

    column: int
    text: str
    codes: frozenset[str]


def picture(shown: str, title: str) -> str:
    """The SVG of `shown`, lines with SGR sequences in them. `title` is for those who cannot see
    it."""
    lines = [list(_pieces(line)) for line in shown.rstrip("\n").split("\n")]
    columns = max((piece.column + len(piece.text) for line in lines for piece in line), default=0)
    width, height = round(columns * _COLUMN + 2 * _MARGIN), len(lines) * _LINE + 2 * _MARGIN
    texts = [_text(row, piece) for row, line in enumerate(lines) for piece in line]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
            f'<g font-family="{_FONT}" font-size="{_SIZE}" fill="{_FOREGROUND}">',
            *texts,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _pieces(line: str) -> Iterator[_Piece]:
    codes: frozenset[str] = frozenset()
    column = at = 0
    for match in [*_SEQUENCE.finditer(line), None]:
        text = line[at : match.start() if match else len(line)]
        # Runs of blanks are not kept by every reader of SVG: what follows has its own place.
        for part in _PART.finditer(text):
            yield _Piece(column + part.start(), part[0], codes)
        column += len(text)
        if match:
            at = match.end()
            if match[2] == "m":
                new = set(match[1].split(";")) - {"", "0"}
                codes = codes | new if new else frozenset()


def _text(row: int, piece: _Piece) -> str:
    """It has its length, whatever font there is."""
    attributes = [
        f'x="{_MARGIN + piece.column * _COLUMN:.1f}" y="{_MARGIN + row * _LINE + _SIZE}"',
        f'textLength="{len(piece.text) * _COLUMN:.1f}"',
    ]
    attributes += [f'fill="{_COLOURS[code]}"' for code in sorted(piece.codes & _COLOURS.keys())]
    if "1" in piece.codes:
        attributes.append('font-weight="bold"')
    if "2" in piece.codes:
        attributes.append('opacity="0.6"')
    return f"<text {' '.join(attributes)}>{escape(piece.text)}</text>"
