"""The benchmarks: that they run and print what they found. No figure is asserted."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench as script
from tests.bench.measuring import Spread, Turns, in_turns, joined, p99
from tests.bench.plan import QUICK
from tests.bench.report import Missing, Row, as_json, table
from tests.bench.run import bench
from tests.lab.process import NO_COVERAGE

ROOT = Path(__file__).resolve().parents[1]


def row(result: float, aim: float) -> Row:
    spread = Spread(result, result - 0.5, result + 0.5)
    return Row("a part", "this", "that", "ms", Spread(3, 2, 4), Spread(2.5, 2, 4), spread, aim)


PARTS = ["handshakes", "cpu", "cached", "simulation", "fleet"]
"""Those that need no load: proxies, servers and caches are real all the same."""


def test_a_quick_run(tmp_path: Path) -> None:
    """It prints a table and writes the same as JSON; what is simulated comes out as it has to."""
    file = tmp_path / "result.json"
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench.py", "--quick", "--json", file, *PARTS],
        # Measuring coverage would take half as long again, and other tests do it.
        env=os.environ | NO_COVERAGE | {"PYTHONPATH": f"{ROOT / 'addon'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    written = json.loads(file.read_text())
    rows = written["rows"]
    assert [*dict.fromkeys(each["part"] for each in rows)] == PARTS
    assert written["missing"] == []
    lines = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == 8 for line in lines)
    simulated = [each["result"]["median"] for each in rows if each["part"] == "simulation"]
    assert simulated == [QUICK.simulated_intermediates] * 3


def test_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with the parts that there are."""
    with pytest.raises(SystemExit) as error:
        script.main(["speed"])
    assert error.value.code == 2
    assert "there is no part 'speed'; there are handshakes" in capsys.readouterr().err


def test_turns_alternate() -> None:
    """Each side is first as often as the other; the turn before them does not count."""
    order: list[str] = []

    def side(name: str) -> list[float]:
        order.append(name)
        return [float(len(order))]

    turns = in_turns(2, lambda: side("a"), lambda: side("b"))
    assert "".join(order) == "ab" + "ab" + "ba"
    assert turns == Turns(ours=[[3.0], [6.0]], baseline=[[4.0], [5.0]])


def test_ratios_are_those_within_a_turn() -> None:
    """A machine that is twice as slow in one of the turns does not matter."""
    turns = Turns(ours=[[1, 2, 3], [2, 4, 6], [3, 6, 9]], baseline=[[1], [2], [3]])
    ours, baseline, ratio = turns.compare(lambda values: values[len(values) // 2])
    assert (ours.median, baseline.median) == (4, 2)
    assert ratio == Spread(2, 2, 2)


def test_turns_are_joined() -> None:
    """Those of several processes count as one."""
    one, other = Turns([[1], [2]], [[1], [1]]), Turns([[3]], [[1]])
    assert joined([one, other]).compare(max)[2] == Spread(2, 1.5, 2.5)


def test_quartiles() -> None:
    assert Spread.of([5.0]) == Spread(5, 5, 5)
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)


def test_p99() -> None:
    assert p99([*range(200)]) == 198
    assert p99([7.0]) == 7


def test_table() -> None:
    """An aim that is missed is told, and a part that could not be measured."""
    lines = table([row(1.0, 1.1), row(1.25, 1.1), Missing("squid", "no squid")]).splitlines()
    assert lines[2] == "| this | that | 3 ms | 2.5 ms | 1.00 (0.50 - 1.50) | 1.10 | met |"
    assert lines[3].endswith("| 1.25 (0.75 - 1.75) | 1.10 | MISSED |")
    assert "not measured: no squid" in lines[4]


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves out the part that needs it, and says which."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    (missing,) = bench(["memory"], QUICK, lambda _: None)
    assert missing == Missing("memory", "needs ab: apt-get install apache2-utils")


def test_a_row_without_an_aim() -> None:
    line = table([dataclasses.replace(row(1.25, 1), aim=None)]).splitlines()[2]
    assert line.endswith("| 1.25 (0.75 - 1.75) |  |  |")


def test_json() -> None:
    """All figures are in it."""
    kept = json.loads(json.dumps(as_json([row(1.25, 1.1), Missing("x", "why")], "a machine")))
    assert kept["machine"] == "a machine"
    assert kept["rows"][0]["met"] is False
    assert kept["rows"][0]["result"] == {"median": 1.25, "low": 0.75, "high": 1.75}
    assert kept["missing"] == [{"part": "x", "why": "why"}]
