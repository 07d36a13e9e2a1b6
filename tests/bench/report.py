"""What the benchmarks have found: a table to read, and JSON. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.measuring import Spread

HEAD = ("what", "against", "here", "there", "result", "aim", "")


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `baseline` are in `unit`; `result` is what is compared with
    `aim`, if there is one: a ratio, a difference or a number, whose words are `shown`."""

    part: str
    what: str
    against: str
    unit: str
    ours: Spread
    baseline: Spread
    result: Spread
    aim: float | None
    shown: str = "{:.2f}"
    """How the result is written."""

    @property
    def met(self) -> bool:
        return self.aim is None or self.result.median <= self.aim


@dataclass(frozen=True)
class Missing:
    """A part that could not be measured here, and why."""

    part: str
    why: str


Finding = Row | Missing


def table(findings: Sequence[Finding]) -> str:
    """In Markdown, so that it can be copied into the README."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for finding in findings:
        if isinstance(finding, Missing):
            lines.append(_line([finding.part, "", "", "", f"not measured: {finding.why}", "", ""]))
            continue
        shown, result = finding.shown, finding.result
        spread = f"({shown.format(result.low)} - {shown.format(result.high)})"
        lines.append(
            _line(
                [
                    finding.what,
                    finding.against,
                    _amount(finding.ours, finding.unit),
                    _amount(finding.baseline, finding.unit),
                    f"{shown.format(result.median)} {spread}",
                    "" if finding.aim is None else shown.format(finding.aim),
                    "" if finding.aim is None else "met" if finding.met else "MISSED",
                ]
            )
        )
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], machine: str) -> dict[str, Any]:
    """The same with all figures, to be kept."""
    rows = [
        dataclasses.asdict(finding) | {"met": finding.met}
        for finding in findings
        if isinstance(finding, Row)
    ]
    missing = [dataclasses.asdict(finding) for finding in findings if isinstance(finding, Missing)]
    return {"machine": machine, "rows": rows, "missing": missing}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _amount(spread: Spread, unit: str) -> str:
    value = spread.median
    text = f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".strip()
