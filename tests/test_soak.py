"""The soak: that a short one passes, and that it would fail if a promise were broken."""

import dataclasses
import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tests.soak.builder import Builder
from tests.soak.client import Answer
from tests.soak.expectation import STOCK, Conditions, Outcome, Verdict, expected, judge
from tests.soak.load import Tally
from tests.soak.plan import Plan
from tests.soak.report import KINDS, Result, Side, as_json, table
from tests.soak.run import soak
from tests.soak.sites import Kind, Site
from tests.soak.watch import Holdings, Memory

ROOT = Path(__file__).resolve().parents[1]
SHORT = Plan(minutes=0.03, rate=15, copies=1)
REFUSED = Answer(502, "Certificate verify failed: unable to get local issuer certificate")

GROWN = [Memory(100, 80), Memory(110, 90)]


def site(kind: Kind) -> Site:
    return Site("here.test", kind, "a test")


def side(**changes: object) -> Side:
    """A side on which all is as promised, but for `changes`."""
    tally = Tally(requests=Counter(dict.fromkeys(Kind, 100)), gone=5, seconds=[0.01] * 100)
    memory, objects = [Memory(100, 80)] * 2, (Counter(x=9), Counter(x=9))
    good = Side(tally, memory, 150, objects, {}, [])
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


def result(**changes: object) -> Result:
    good = Result(1.0, 30, [0.1, 1], dict.fromkeys(Kind, 7), side(), side(), {"a fault": 3})
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


def test_a_short_soak() -> None:
    """Some seconds with every sort of server and every fault: all is as promised."""
    came_of_it = soak(SHORT)
    # Memory needs longer than this to say anything.
    promises = [text for text in came_of_it.broken_promises if "memory grew" not in text]
    assert promises == [], table(came_of_it)
    assert all(came_of_it.addon.tally.requests[kind] for kind in Kind)
    assert all(came_of_it.faults.values())


def test_a_soak_of_an_addon_with_a_bug() -> None:
    """It ends with wrong answers and with the error that was logged."""
    came_of_it = soak(dataclasses.replace(SHORT, minutes=0.01, faults=False, broken="completion"))
    promises = "\n".join(came_of_it.broken_promises)
    assert "wrong answers for servers that are incomplete" in promises
    assert "errors were logged, the first: " in promises
    assert "broken on purpose" in promises
    assert "for servers that are broken" not in promises


@pytest.mark.parametrize(
    ("kind", "mode", "published", "outcome"),
    [
        (Kind.COMPLETE, "stock", True, Outcome.ACCEPTED),
        (Kind.COMPLETE, "complete", False, Outcome.ACCEPTED),
        (Kind.INCOMPLETE, "stock", True, Outcome.REFUSED),
        (Kind.INCOMPLETE, "complete", False, Outcome.ACCEPTED),
        (Kind.INCOMPLETE, "frozen", True, Outcome.ACCEPTED),
        (Kind.INCOMPLETE, "audit", True, Outcome.REFUSED),
        (Kind.INCOMPLETE, "off", True, Outcome.REFUSED),
        (Kind.FRESH, "complete", True, Outcome.ACCEPTED),
        (Kind.FRESH, "complete", False, Outcome.REFUSED),
        (Kind.FRESH, "frozen", True, Outcome.REFUSED),
        (Kind.FRESH, "stock", True, Outcome.REFUSED),
    ],
)
def test_what_is_expected(kind: Kind, mode: str, published: bool, outcome: Outcome) -> None:
    """It follows from the server's kind, the mode, and whether downloads are answered."""
    assert expected(site(kind), mode, published) is outcome


@pytest.mark.parametrize("kind", [Kind.BROKEN, Kind.HOSTILE])
def test_a_bad_server_is_refused_whatever_happens(kind: Kind) -> None:
    """No mode and no fault lets one pass."""
    modes = ["stock", "complete", "frozen", "audit", "off"]
    every = Conditions(frozenset(modes), frozenset({True, False}))
    assert judge(site(kind), Answer(200, "here.test"), [every]) is Verdict.WRONG
    assert judge(site(kind), REFUSED, [every]) is Verdict.RIGHT


def test_while_things_change_either_is_right() -> None:
    """A request that has met both conditions may come out as either wants."""
    off = Conditions(frozenset({"off"}))
    for answer in REFUSED, Answer(200, "here.test"):
        assert judge(site(Kind.INCOMPLETE), answer, [Conditions(), off]) is Verdict.RIGHT
    assert judge(site(Kind.INCOMPLETE), REFUSED, [Conditions()]) is Verdict.WRONG
    assert judge(site(Kind.INCOMPLETE), Answer(200, "here.test"), [STOCK]) is Verdict.WRONG


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0, "no answer in 15 s"),
        Answer(502, "Connection refused"),
        Answer(200, "another.test"),
        Answer(500, REFUSED.text),
    ],
)
def test_what_is_no_answer_at_all(answer: Answer) -> None:
    """Neither the server's own answer nor mitmproxy's for its certificate."""
    every = Conditions(frozenset({"complete", "off"}), frozenset({True, False}))
    for kind in Kind:
        assert judge(site(kind), answer, [every]) is Verdict.ERROR


def test_all_as_promised() -> None:
    """The table ends with it, and has a line for each kind of server."""
    assert result().broken_promises == []
    text = table(result())
    assert text.endswith("as promised")
    assert "NOT AS PROMISED" not in text
    assert all(f"\n{name}" in text for name in KINDS.values())
    assert json.loads(json.dumps(as_json(result())))["broken_promises"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"addon": side(tally=Tally())}, "no request was made to a server that is complete"),
        ({"addon": side(memory=GROWN)}, "memory grew by 10.0 MiB, and by 0.0 without"),
        ({"addon": side(left={"tasks": ["x"]})}, "1 tasks were left: x"),
        ({"addon": side(left={"files": ["a", "b"]})}, "2 files were left: a, b"),
        ({"addon": side(left={"threads": ["x"]})}, "1 threads were left: x"),
        ({"addon": side(errors=["Traceback"])}, "errors were logged, the first: Traceback"),
        ({"faults": {"a fault": 0}}, "the run was too short for a fault: a fault"),
    ],
)
def test_a_broken_promise(changes: dict[str, object], told: str) -> None:
    """Each is told in words, in the table, too."""
    came_of_it = result(**changes)
    assert any(promise.startswith(told) for promise in came_of_it.broken_promises)
    assert told in table(came_of_it).partition("NOT AS PROMISED")[2]


@pytest.mark.parametrize("what", ["wrong", "errors"])
@pytest.mark.parametrize("who", ["addon", "stock"])
@pytest.mark.parametrize("kind", Kind)
def test_a_single_wrong_answer(what: str, who: str, kind: Kind) -> None:
    """One among hundreds is enough, also of the stock proxy: it is then no comparison."""
    bad = side()
    getattr(bad.tally, what)[kind] += 1
    assert len(result(**{who: bad}).broken_promises) == 1


def test_growth_that_is_mitmproxys_own() -> None:
    """What stock mitmproxy grows by under the same load is allowed."""
    grown = side(memory=GROWN)
    assert result(addon=grown, stock=grown).broken_promises == []


def test_a_machine_that_is_too_busy() -> None:
    """Whatever came of it then, in both directions, is not as promised, and the reason is told."""
    busy = side()
    busy.tally.seconds[:2] = [4.0, 4.0]
    assert result(addon=busy).broken_promises == []
    (promise,) = result(stock=busy).broken_promises
    assert promise.startswith("stock mitmproxy took 4.0 s for a complete server: the machine is")


def test_what_is_left() -> None:
    """Of each sort, what there is more of; not the pool of the event loop."""
    before = Holdings(["a task"], ["MainThread"], ["socket:[1]", "/file"])
    after = Holdings(
        ["a task", "a task"],
        ["MainThread", "asyncio_3", "aia lookup of x"],
        ["socket:[1]", "socket:[8] established, 5 to 443", "/file"],
    )
    assert after.beyond(before) == {
        "tasks": ["a task"],
        "threads": ["aia lookup of x"],
        "files": ["socket:[8] established, 5 to 443"],
    }
    assert not any(before.beyond(after).values())


def test_there_are_hundreds_of_servers() -> None:
    """In an ordinary run: of every kind, each with a name of its own."""
    sites = Builder(1, 2).internet(Plan.copies).sites
    assert len(sites) == len({site.host for site in sites}) >= 300
    for kind in Kind:
        assert len([site for site in sites if site.kind is kind]) >= 2 * Plan.copies, kind


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/soak.py, without the signals of a program."""
    spec = importlib.util.spec_from_file_location("soak_script", ROOT / "scripts" / "soak.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    return module


@pytest.mark.parametrize(("left", "status"), [((), 0), (("a task",), 1)])
def test_exit_status(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    left: tuple[str, ...],
    status: int,
) -> None:
    """1 if anything was not as promised; the JSON is written either way."""
    plans: list[Plan] = []

    def fake(plan: Plan, *_: object) -> Result:
        plans.append(plan)
        return result(addon=side(left={"tasks": left}))

    monkeypatch.setattr(script, "soak", fake)
    file = tmp_path / "result.json"
    assert script.main(["20", "--rate", "9", "--json", str(file)]) == status
    assert plans == [Plan(minutes=20, rate=9)]
    written = json.loads(file.read_text())
    assert len(written["broken_promises"]) == status
