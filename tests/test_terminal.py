"""What a person sees: columns that stay in line, whatever strangers put into their names."""

import io
import os
from collections.abc import Iterator

import pytest

from mitmproxy_aia.cli import terminal
from mitmproxy_aia.cli.terminal import (
    BOLD,
    RED,
    Column,
    Line,
    Progress,
    columns_of,
    fit,
    paint,
    table,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)


def lines(columns: list[Column], *rows: tuple[str, ...]) -> list[str]:
    return list(table(columns, [Line(row) for row in rows], io.StringIO()))


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("R11", 5, "R11  "),
        ("Lab Intermediate", 8, "Lab Int…"),
        ("/etc/ssl/ca.pem", 8, "…/ca.pem"),
        ("認証局", 6, "認証局"),
        ("認証局", 5, "認証…"),
        ("認証局", 4, "認… "),
        ("e\u0301a", 3, "e\u0301a "),
        ("", 2, "  "),
    ],
)
def test_fit(text: str, width: int, fitted: str) -> None:
    """Exactly as wide as was asked for, in columns and not in characters."""
    assert fit(text, width) == fitted
    assert columns_of(fitted) == width


def test_table_that_has_room() -> None:
    """Each column is as wide as its widest cell, and lines have no blanks at their end."""
    assert lines([Column("A"), Column("NAME", least=4)], ("123", "x"), ("1", "long name")) == [
        "A    NAME",
        "123  x",
        "1    long name",
    ]


def test_table_that_has_none() -> None:
    """The last column gives way first, down to its least width, then the one before it."""
    columns = [Column("ID"), Column("NAME", least=5), Column("ORIGIN", least=10)]
    row = ("12345678", "n" * 30, "o" * 30)
    assert lines(columns, row)[1] == f"12345678  {'n' * 17}…  {'o' * 9}…"
    assert columns_of(lines(columns, row)[1]) == 40
    assert lines(columns, (*row[:2], "o" * 4))[1] == f"12345678  {'n' * 21}…  oooo"


def test_table_in_a_terminal_that_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No column vanishes."""
    monkeypatch.setenv("COLUMNS", "5")
    assert lines([Column("ID"), Column("NAME", least=5)], ("123", "n" * 9))[1] == "123  nnnn…"


def test_table_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a CI job has all of it, be it longer than what was measured."""
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(terminal, "MEASURED", 2)
    columns = [Column("ID"), Column("NAME", least=5), Column("ORIGIN", least=10)]
    rows = [(f"{number}", "n" * 30 * number, "o" * 300) for number in (1, 2, 3, 4)]
    head, *rest = lines(columns, *rows)
    assert [tuple(line.split()) for line in rest] == rows
    assert [line.index("o") for line in rest] == [head.index("O")] * 3 + [4 + 30 * 4 + 2]
    assert [*table(columns, [Line(rows[0])], Terminal())][1].endswith("…")


def test_long_tables_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first rows are looked at for the widths; later ones may be wider."""
    monkeypatch.setattr(terminal, "MEASURED", 2)
    taken = 0

    def rows() -> Iterator[Line]:
        nonlocal taken
        while True:
            taken += 1
            yield Line(["x" * taken])

    shown = table([Column("A", least=1)], rows(), io.StringIO())
    assert [next(shown) for _ in range(3)] == ["A", "x", "xx"]
    assert taken == 3
    assert [next(shown) for _ in range(60)][-1] == "x" * 39 + "…"


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only on a terminal that can show them, and whose user has not declined."""
    assert paint("text", BOLD, Terminal()) == "\x1b[1mtext\x1b[0m"
    assert paint("text", "", Terminal()) == "text"
    assert paint("text", RED, io.StringIO()) == "text"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("text", RED, Terminal()) == "text"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("text", RED, Terminal()) == "text"


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar, a share and a note in less than a line; redrawn at times, and gone at the end."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(terminal, "REDRAW_SECONDS", 3600)
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress("/a/long/path/to/report.csv") as progress:
        progress.update(1, 2, "12 read")
        progress.update(2, 2, "too early")
        progress.clear()
        progress.update(3, 2, "13 read")
    bars = stderr.getvalue().split("\r\x1b[K")
    assert bars == [
        "",
        "…report.csv  [###############...............]  50%  12 read",
        "",
        "…report.csv  [##############################] 100%  13 read",
        "",
    ]
    assert all(columns_of(bar) <= 59 for bar in bars)


def test_progress_towards_an_unknown_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no bar."""
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress("report.csv\x1b") as progress:
        progress.update(1, 0, "1.0 MB")
    assert "report.csv\\x1b  1.0 MB" in stderr.getvalue()


def test_progress_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing: logs of CI jobs need no bars."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress("report.csv") as progress:
        progress.update(1, 2, "")
    assert stderr.getvalue() == ""


def test_complaints_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also with a stranger's text in them."""
    terminal.complain(f"bad\nfile\x1b[2J{os.sep}x")
    assert capsys.readouterr().err == "mitmproxy-aia: bad\\nfile\\x1b[2J/x\n"
