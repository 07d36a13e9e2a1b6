"""The search for a verified path over the candidates at hand, in small steps and bounded.

It climbs from the leaf and judges each path that reaches a trust anchor on the way. Where
that has found nothing good, all other paths to the anchors that were reached are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from mitmproxy_aia import costs, errors
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import (
    MAX_PATH_LENGTH,
    Graph,
    KeyMatch,
    Path,
    Step,
    key_match,
    likelihood,
    paths,
)
from mitmproxy_aia.verification import Verdict

PATHS_A_DOWNLOAD = 25
"""Paths that are judged when a download has brought something, whatever was spent before."""
SIGNATURES_A_DOWNLOAD = 100

_NO_ANCHOR = frozenset(
    {
        errors.DEPTH_ZERO_SELF_SIGNED_CERT,
        errors.SELF_SIGNED_CERT_IN_CHAIN,
        errors.UNSPECIFIED,
    }
)


def _leads_to_an_anchor(above: Fault | None) -> bool:
    """OpenSSL looks for the trust anchor first, and only then at anything else."""
    return above is None or not (errors.not_the_issuer(above.code) or above.code in _NO_ANCHOR)


class Judge(Protocol):
    """What a search asks of `verification.Verifier`."""

    @property
    def signatures(self) -> int: ...

    def fault_above(self, certificate: Certificate) -> Fault | None: ...

    def step(self, certificate: Certificate, issuer: Certificate) -> Fault | None: ...

    def judge(self, path: Path) -> Verdict: ...


class Search:
    """One search. `look_up` are ways to ask what is known of the issuers of a certificate, the
    cheapest first. Each is asked only after all that was there before has been tried."""

    def __init__(
        self,
        leaf: Certificate,
        verifier: Judge,
        limits: Limits,
        look_up: Sequence[Callable[[Certificate], Iterable[Certificate]]],
    ) -> None:
        self._leaf = leaf
        self._verifier = verifier
        self._limits = limits
        self._look_up = look_up
        self._graph = Graph(leaf)
        self._not_climbed = [leaf]
        # For each way to look up: what it was not asked about yet.
        self._not_looked_up: list[list[Certificate]] = [[] for _ in look_up]
        # The ways that were not asked about a leaf that came alone.
        self._not_glanced = [*look_up]
        self._verdicts: dict[Path, Verdict] = {}
        self._growable: set[Certificate] = set()
        self._looked_at: set[Certificate] = set()
        self._paths_left = limits.paths
        self._signatures_until = limits.signatures
        self._candidates_left = limits.candidates
        self._notes: dict[str, None] = {}
        self._spent_on = ""
        # How far it got (to a trust anchor, good steps, a fault only at the end), and the fault.
        self._explanations: list[tuple[tuple[bool, int, bool], Fault]] = []
        self.verified: Path = ()
        """The path from the leaf to a trust anchor, once it is found."""

    @property
    def reached(self) -> Sequence[Certificate]:
        """The leaf and what good steps have led to from there, in that order."""
        return self._graph.reached

    @property
    def notes(self) -> Sequence[str]:
        """Which limits were met."""
        return [*self._notes, *([self._spent_on] if self._spent_on else [])]

    def add(self, candidate: Certificate, *, presented: bool) -> bool:
        """Returns whether it is new. What was not presented is looked at first, whatever the
        server has presented, and whatever of the budget that has used up."""
        news = self._graph.add(candidate, urgent=not presented)
        if news and not presented:
            self._allow_more()
        return news

    def _allow_more(self) -> None:
        self._paths_left = max(self._paths_left, PATHS_A_DOWNLOAD)
        self._candidates_left = max(self._candidates_left, PATHS_A_DOWNLOAD)
        self._signatures_until = max(
            self._signatures_until, self._verifier.signatures + SIGNATURES_A_DOWNLOAD
        )

    def run(self) -> Generator[None, None, None]:
        """Searches until a path is verified, everything was tried or the limits are met.
        Yields between pieces of work that take well below a millisecond each, unless a path was
        judged, which takes what OpenSSL takes: up to five times `costs.MOST` for a bad one."""
        if not self._graph.has_candidates:
            self._glance()
            if self.verified:
                return
        alone = (self._leaf,)
        if alone not in self._verdicts and self._verifier.fault_above(self._leaf) is None:
            self._explain(self._judge(alone), steps=0)
        yield from self._climb()
        if not self.verified:
            yield from self._judge_all()
        if self._graph.too_high:
            self._note(f"no path of more than {MAX_PATH_LENGTH} certificates was followed")

    def look_again(self) -> None:
        """More may be known by now of a leaf that came alone, and had no issuer. What another
        completion in this process has just found is in what is cheapest to ask; the others are
        not asked again."""
        if not self._graph.has_candidates and not self._not_glanced:
            self._not_glanced = [*self._look_up[:1]]

    def _glance(self) -> None:
        """Most often a server sends its leaf alone, the issuer is known, and a trust anchor is
        above that. It takes no search to see whether that is so."""
        while self._not_glanced:
            known = [*self._not_glanced.pop(0)(self._leaf)]
            if not known:
                continue
            likeliest = known[0]
            if known[1:]:
                likeliest = min(known, key=lambda issuer: likelihood(self._leaf, issuer))
            anchored = self._verifier.fault_above(likeliest) is None
            if anchored and likeliest.identity != self._leaf.identity:
                self._judge((self._leaf, likeliest))
            if not self.verified:
                for candidate in known:
                    self.add(candidate, presented=False)
            return

    def has_issuer(self, certificate: Certificate) -> bool:
        """Whether a good step leads on from `certificate`."""
        return bool(self._graph.issuers(certificate))

    def may_grow(self, certificate: Certificate) -> bool:
        """Whether an issuer of `certificate`, which was reached, could still be of use: not
        if it is self-signed, nor if every path to it has a fault of its own."""
        fault = self._verifier.fault_above(certificate)
        if fault is not None:
            return not fault.self_signed
        return certificate in self._growable

    @property
    def fault(self) -> Fault | None:
        """Why no path is good, as the one which got furthest tells it: up to a trust anchor
        if one did, else over the most good steps; and rather by what is wrong with the next
        certificate than by its being missing."""
        explanations = [*self._explanations]
        for certificate in self.reached:
            height = len(self._graph.path_to(certificate)) - 1
            if (fault := self._verifier.fault_above(certificate)) is not None:
                rank = _leads_to_an_anchor(fault), height, False
                explanations.append((rank, fault.raised_by(height)))
        if not explanations:
            return None
        return max(explanations, key=lambda explanation: explanation[0])[1]

    def _climb(self) -> Generator[None, None, None]:
        while not self.verified:
            while self._not_climbed:
                certificate = self._not_climbed.pop(0)
                self._graph.look_for_issuers(certificate)
                is_leaf = certificate == self._leaf
                asked = len(self._look_up) - len(self._not_glanced) if is_leaf else 0
                for not_looked_up in self._not_looked_up[asked:]:
                    not_looked_up.append(certificate)
                yield
            step = None if self._spent else self._graph.next_step()
            if step is not None:
                self._try(step)
            elif not self._look_up_one():
                return
            yield

    def _look_up_one(self) -> bool:
        """What the next way to look up, the cheapest first, knows of the certificate reached
        last. Returns False if all were asked about everything."""
        for look_up, certificates in zip(self._look_up, self._not_looked_up, strict=True):
            if certificates:
                for candidate in look_up(certificates.pop()):
                    self.add(candidate, presented=False)
                return True
        return False

    def _try(self, step: Step) -> None:
        certificate, issuer = step
        if issuer not in self._looked_at:
            self._candidates_left -= 1
            self._looked_at.add(issuer)
        above = self._verifier.fault_above(issuer)
        path = self._graph.path_over(step)
        if path is not None and above is None and self._paths_left > 0:
            # Before the step is looked at: most often the path is good, and so is the step.
            self._judge(path)
            if self.verified:
                return
        fault = self._verifier.step(certificate, issuer)
        steps = len(self._graph.path_to(certificate))
        if fault is None:
            self._not_climbed.extend(self._graph.climb(step))
            if path is not None and path in self._verdicts:
                self._explain(self._verdicts[path], steps)
        elif key_match(*step) is KeyMatch.MATCH or (
            # OpenSSL finds faults of the issuer before it looks at the signature. What would
            # take too long for a verdict is not done for an explanation either.
            not errors.not_the_issuer(fault.code)
            and not costs.too_much(step)
            and certificate.is_signed_by(issuer)
        ):
            rank = _leads_to_an_anchor(above), steps - 1, True
            self._explanations.append((rank, fault.raised_by(steps - 1)))

    def _judge_all(self) -> Generator[None, None, None]:
        anchored = [each for each in self.reached if self._verifier.fault_above(each) is None]
        distance = self._graph.distances(anchored)
        for steps, path in enumerate(paths(self._leaf, self._graph.issuers, distance)):
            if distance[path[-1]] == 0 and path not in self._verdicts:
                if self._spent:
                    return
                self._explain(self._judge(path), steps=len(path) - 1)
                if self.verified:
                    return
            if steps == self._limits.steps:
                self._note(f"given up after {steps} steps")
                return
            yield

    def _judge(self, path: Path) -> Verdict:
        if path not in self._verdicts:
            self._paths_left -= 1
            verdict = self._verdicts[path] = self._verifier.judge(path)
            self.verified = verdict.verified or ()
            if verdict.growable:
                self._growable.add(path[-1])
        return self._verdicts[path]

    @property
    def _spent(self) -> bool:
        if (
            self._candidates_left > 0
            and self._paths_left > 0
            and self._verifier.signatures < self._signatures_until
        ):
            return False
        self._spent_on = (
            f"given up after {len(self._looked_at)} candidates, {len(self._verdicts)} paths "
            f"and {self._verifier.signatures} signature checks"
        )
        return True

    def _explain(self, verdict: Verdict, steps: int) -> None:
        """Keeps why a path to a trust anchor is not good; all its steps are."""
        if verdict.fault is not None:
            self._explanations.append(((True, steps, verdict.growable), verdict.fault))

    def _note(self, note: str) -> None:
        self._notes[note] = None
