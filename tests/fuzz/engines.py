"""Two ways to find inputs: atheris, guided by coverage, and hypothesis, which is always there.

Atheris ends its process when it is done, so it has one of its own (`python -m
tests.fuzz.guided`), and what it says is read from its output.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / ".fuzz"
SECONDS_PER_INPUT = 20
"""Atheris takes what is slower for a hang."""
MEGABYTES = 1_024
"""Atheris takes what needs more for a leak; an ordinary run stays below 200."""

_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_EDGES = re.compile(r"\bcov: (\d+)")
_MUTATIONS = 12


@dataclass(frozen=True)
class Result:
    """What came of fuzzing one target. `edges` are the branches that atheris has seen taken in
    the addon's code, or None; `found` is what broke a promise, in words, or empty."""

    engine: str
    inputs: int
    seconds: float
    edges: int | None = None
    found: str = ""

    def __str__(self) -> str:
        edges = f", {self.edges} edges" if self.edges is not None else ""
        verdict = "a promise was broken" if self.found else "no promise was broken"
        return f"{self.inputs:,} inputs in {self.seconds:.0f} s ({self.engine}){edges}: {verdict}"


def have_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def with_atheris(name: str, seconds: int, corpus: Path = CORPUS) -> Result:
    """Fuzzes a target for so many seconds, beginning with the seeds and with what `corpus` has
    from earlier runs. What is found lies beside it."""
    kept, crashes = corpus / name, corpus / f"{name}-found"
    for folder in kept, crashes:
        folder.mkdir(parents=True, exist_ok=True)
    target, started = TARGETS[name], time.monotonic()
    with tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(target.seeds()):
            Path(seeds, str(number)).write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(kept), seeds]
        command += [f"-max_total_time={seconds}", f"-timeout={SECONDS_PER_INPUT}"]
        command += [f"-rss_limit_mb={MEGABYTES}", f"-max_len={target.most_bytes}"]
        command += [f"-artifact_prefix={crashes}/", "-print_final_stats=1"]
        # It finds what this process finds.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, errors="replace", check=False
        )
    output = done.stdout + done.stderr
    runs, edges = _RUNS.search(output), _EDGES.findall(output)
    return Result(
        "atheris",
        int(runs[1]) if runs else 0,
        time.monotonic() - started,
        int(edges[-1]) if edges else None,
        output if done.returncode else "",
    )


def with_hypothesis(
    target: Target,
    *,
    examples: int | None = None,
    seconds: float | None = None,
    corpus: Sequence[bytes] = (),
    shrink: bool = True,
) -> Result:
    """Tries all the seeds and `corpus`, and then `examples` inputs, always the same ones; or
    as many as there are in `seconds`, always others. Raises what the target raises for the
    smallest input it was found for, which hypothesis prints."""
    started, inputs = time.monotonic(), 0
    seeds = [*target.seeds(), *corpus]

    def run(data: bytes) -> None:
        nonlocal inputs
        inputs += 1
        target.run(data)

    for seed in seeds:
        try:
            run(seed)
        except Exception as error:
            error.add_note(f"The seed with it is {seed!r}")
            raise
    while True:
        chosen = settings(
            max_examples=examples or 200,
            derandomize=examples is not None,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        chosen(given(mutated(seeds, target.most_bytes))(run))()
        spent = time.monotonic() - started
        if seconds is None or spent >= seconds:
            return Result("hypothesis", inputs, spent)


def mutated(seeds: Sequence[bytes], most: int) -> st.SearchStrategy[bytes]:
    """Any bytes, and seeds with some bytes put in, taken out or replaced."""
    edit = st.tuples(st.integers(0, most), st.integers(0, 8), st.binary(max_size=8))

    def apply(seed: bytes, edits: Sequence[tuple[int, int, bytes]]) -> bytes:
        for where, taken, put in edits:
            at = where % (len(seed) + 1)
            seed = seed[:at] + put + seed[at + taken :]
        return seed[:most]

    edits = st.lists(edit, max_size=_MUTATIONS)
    # Long ones as often as short ones: structure is drawn from bytes.
    anything = st.integers(0, min(most, 256)).flatmap(lambda n: st.binary(min_size=n, max_size=n))
    return st.one_of(st.builds(apply, st.sampled_from(seeds), edits), anything)
