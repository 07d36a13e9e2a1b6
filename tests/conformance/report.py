"""The table of right and wrong verdicts."""

from collections import Counter
from collections.abc import Iterable

from tests.conformance.runner import Result, Verdict

_ROW = "{:<12}{:<20}{:>6}{:>7} |{:>7}{:>9}{:>9} |{:>7}{:>9}{:>9}"
_HEADS = (
    _ROW.format("", "", "", "", "stock", "false", "false", "ours", "false", "false"),
    _ROW.format("graph", "presented", "cases", "valid", *["right", "accepts", "rejects"] * 2),
)


def table(results: Iterable[Result]) -> str:
    """One line for each graph and way of presenting, and one for all."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    total: Counter[str] = Counter()
    for result in results:
        row = rows.setdefault((result.case.graph.name, result.case.way), Counter())
        for counts in (row, total):
            counts["cases"] += 1
            counts["valid"] += result.case.valid
            counts["stock " + _judged(result.stock, result.case.valid)] += 1
            counts["ours " + _judged(result.ours, result.case.valid)] += 1
    lines = [_line(*key, row) for key, row in rows.items()]
    return "\n".join([*_HEADS, *lines, _line("all", "", total)])


def _judged(verdict: Verdict, valid: bool) -> str:
    if verdict.accepted is valid:
        return "right"
    # No verdict at all counts as the worse of the two.
    return "false reject" if verdict.accepted is False else "false accept"


def _line(graph: str, way: str, counts: Counter[str]) -> str:
    kinds = ("right", "false accept", "false reject")
    return _ROW.format(
        graph,
        way,
        counts["cases"],
        counts["valid"],
        *(counts[f"{who} {kind}"] for who in ("stock", "ours") for kind in kinds),
    )
