"""The conformance matrix: over a thousand small PKIs, good and bad, through a real mitmdump.

Expected verdicts follow from the graphs (`tests.conformance.graphs`) and not from our code.
A case is run again with the command that pytest prints for it; its id says all about it.
"""

import itertools

import pytest

from tests.conformance.cases import Case, Reason, Way, matrix, thinned
from tests.conformance.graphs import BRIDGE, FIGURE_7, GRAPHS, LINE, TWO_ROOTS, Graph, edges
from tests.conformance.report import table
from tests.conformance.runner import Result, run

CASES = matrix()


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[Case, Result]:
    """Runs the chosen cases side by side; all of them if the table is to be printed."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    if any(item.function is test_table for item in items):
        return {result.case: result for result in run(CASES)}
    ids = {item.callspec.id for item in items if item.function is test_verdict}
    return {result.case: result for result in run([case for case in CASES if case.id in ids])}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(case: Case, results: dict[Case, Result]) -> None:
    """A server is accepted if and only if there is a valid path."""
    result = results[case]
    if result.ours.accepted is not case.valid:
        kind = "FALSE REJECT" if case.valid else "FALSE ACCEPT"
        pytest.fail(f"{kind} {case.drawing()}\n{result.ours}", pytrace=False)
    # Stock mitmproxy misses paths, but accepts no invalid one: so much for our expectations.
    if result.stock.accepted not in (False, case.valid):
        pytest.fail(f"doubtful: {case.drawing()}\nstock: {result.stock}", pytrace=False)


def test_table(results: dict[Case, Result], capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table, ours beside stock, and looks whether stock's part is plausible."""
    with capsys.disabled():
        print(f"\n{table(results.values())}\n")
    assert len(results) == len(CASES) >= 1_000
    sent = [each for each in results.values() if each.case.elsewhere is None]
    right = sum(each.stock.accepted is each.case.valid for each in sent) / len(sent)
    assert 0.5 < right < 0.9, "of what is sent whole, stock gets about two thirds right"
    unsent = [each for each in results.values() if not each.case.sent]
    assert not any(each.stock.accepted for each in unsent), "stock has nothing but the leaf"


@pytest.mark.parametrize(
    ("graph", "trusted", "bad", "valid"),
    [
        (LINE, "root", "", True),
        (LINE, "root", "a>b", False),
        (LINE, "", "", False),
        (TWO_ROOTS, "r1", "r2>i", True),
        (TWO_ROOTS, "r1", "r1>i", False),
        (TWO_ROOTS, "r1 r2", "r1>i", True),
        (FIGURE_7, "r1", "a>b", True),
        (FIGURE_7, "r1", "a>b a>c", False),
        (FIGURE_7, "r2", "r1>a", True),
        (FIGURE_7, "r1", "r1>a r2>c", False),
        (BRIDGE, "r1", "x>r1 r1>x", True),
        (BRIDGE, "r2", "", True),
        (BRIDGE, "r2", "x>r1", False),
        (BRIDGE, "r2", "x>r2 r3>x", True),
    ],
)
def test_expectation(graph: Graph, trusted: str, bad: str, valid: bool) -> None:
    """Verdicts on the graphs as a person finds them."""
    assert graph.is_valid((*trusted.split(),), edges(*bad.split())) is valid


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_thinning(graph: Graph) -> None:
    """However few cases are left, any two of who, which, why and how meet in one of them."""
    cases = [*thinned(graph)]
    axes: list[list[object]] = [
        [trusted for trusted in graph.trusts if trusted],
        [*((edge,) for edge in graph.intermediates), *graph.cuts],
        [*Reason],
        [*Way],
    ]
    for one, other in itertools.combinations(range(4), 2):
        met = {(axes_of[one], axes_of[other]) for axes_of in map(_axes, cases)}
        assert met >= {*itertools.product(axes[one], axes[other])}


def _axes(case: Case) -> tuple[object, object, object, object]:
    return case.trusted, case.bad, case.reason, case.way
