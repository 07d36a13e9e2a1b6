"""Completion: from the chain a server presents to a verified path, or to the reason why not.

    presented -> what is known locally -> what has to be waited for -> verdict

Candidates are collected, paths over them are judged one by one, and as long as none is good
the certificate on top of the most promising path is asked for its issuers. That certificate
is the one at the end of the longest path that has no fault but a missing issuer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.paths import MAX_PATH_LENGTH, Candidates, Path, paths
from mitmproxy_aia.sources import Attempt, Budget, Found, IssuerSource
from mitmproxy_aia.verification import Fault, Verdict

PRESENTED = "the server"
"""Origin of the certificates that the server sent."""
ATTEMPTS_TOLD = 12
"""How many attempts are named in a reason: a server must not be able to flood a log."""
GRACE = 1.0
"""Seconds after the deadline in which sources have to come back and say what happened."""


@dataclass(frozen=True)
class Limits:
    """What one completion may cost at most."""

    seconds: float = 10.0
    """All waiting together (`aia_timeout`)."""
    downloads: int = 10
    nesting: int = 6
    """Downloads that each depend on the certificate the one before has brought."""
    candidates: int = 250
    paths: int = 250
    """Paths judged."""
    signatures: int = 1_000
    """Signature checks."""
    slice: float = 0.01
    """Seconds of CPU time spent on judging paths until the event loop gets its turn."""


class Judge(Protocol):
    """What a completion asks of `verification.Verifier`."""

    def judge(self, path: Path) -> Verdict: ...


@dataclass(frozen=True)
class Outcome:
    """What came of a completion.

    `path` goes from the leaf to the trust anchor and is empty unless it was verified; only
    then is `fault` None. `found` are its intermediates that the server did not send, with
    their origins. `attempts` are what was tried beyond this process, and `notes` say which
    limits were met. `seconds` is how long it took, waiting included.
    """

    path: Path = ()
    fault: Fault | None = None
    found: tuple[Found, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def verified(self) -> bool:
        return bool(self.path)

    @property
    def reason(self) -> str:
        """Why not, in OpenSSL's words, and then in brackets what was tried."""
        text = self.fault.text if self.fault else ""
        attempts = [str(attempt) for attempt in self.attempts[:ATTEMPTS_TOLD]]
        if len(self.attempts) > ATTEMPTS_TOLD:
            attempts.append(f"and {len(self.attempts) - ATTEMPTS_TOLD} more")
        aia = [f"AIA: {'; '.join(attempts)}"] if attempts else []
        tried = "; ".join([*aia, *self.notes])
        return f"{text} ({tried})" if tried else text


@dataclass
class Completion:
    """One completion. Call `complete_at_once()`; if that is not verified, await
    `complete()`, which goes on from there.

    `presented` is what the server sent, leaf first; it must not be empty. `sources` are
    asked in their order.
    """

    presented: Sequence[Certificate]
    verifier: Judge
    sources: Sequence[IssuerSource]
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._leaf = self.presented[0]
        self._started = time.monotonic()
        self._candidates = Candidates()
        self._origins: dict[Certificate, str] = {}
        self._nesting: dict[Certificate, int] = {}
        self._looked_up: set[Certificate] = set()
        self._verdicts: dict[Path, Verdict] = {}
        self._verified: Path = ()
        self._attempts: list[Attempt] = []
        self._notes: dict[str, None] = {}
        self._signatures = 0
        self._asked: dict[Certificate, AsyncGenerator[Attempt, None]] = {}
        self._exhausted: set[Certificate] = set()
        for certificate in self.presented:
            self._add(Found(certificate, PRESENTED), nesting=0)

    def complete_at_once(self) -> Outcome:
        """Tries what is known locally, without waiting for anything."""
        slice_ends = time.thread_time() + self.limits.slice
        for _ in self._search():
            if time.thread_time() >= slice_ends:
                break
        return self._outcome()

    async def complete(self) -> Outcome:
        """Tries everything. Lets the event loop run while it waits and while it judges."""
        budget = Budget(time.monotonic() + self.limits.seconds, self.limits.downloads)
        try:
            async with asyncio.timeout(self.limits.seconds + GRACE):
                await self._ask_for_issuers(budget)
        except TimeoutError:
            self._note(f"given up after {self.limits.seconds:g} s")
        finally:
            for attempts in self._asked.values():
                await attempts.aclose()
        if budget.overdrawn:
            self._note(f"no more than {self.limits.downloads} downloads are made for one chain")
        return self._outcome()

    async def _ask_for_issuers(self, budget: Budget) -> None:
        await self._search_gently()
        while not self._finished and (certificate := self._next_to_ask()) is not None:
            attempt = await anext(self._attempts_for(certificate, budget), None)
            if attempt is None:
                self._exhausted.add(certificate)
                continue
            self._attempts.append(attempt)
            for found in attempt.found:
                self._add(found, nesting=self._nesting[certificate] + 1)
            if attempt.found:
                await self._search_gently()

    @property
    def _finished(self) -> bool:
        """There is a verdict, or no judging left in the budget."""
        return (
            bool(self._verified)
            or len(self._verdicts) >= self.limits.paths
            or self._signatures >= self.limits.signatures
        )

    def _add(self, found: Found, nesting: int) -> None:
        if len(self._candidates) == self.limits.candidates:
            self._note(f"only {self.limits.candidates} certificates were looked at")
        elif self._candidates.add(found.certificate):
            self._origins[found.certificate] = found.origin
            self._nesting[found.certificate] = nesting

    def _search(self) -> Generator[None, None, None]:
        """Judges paths over the candidates until one is good, all are refused or the budget
        is spent. Yields after each one judged; goes on where the last search ended."""
        walk = paths(self._leaf, self._candidates)
        path = next(walk)
        while True:
            verdict = self._verdicts.get(path)
            if verdict is None:
                if self._finished:
                    self._note(f"given up after {len(self._verdicts)} paths")
                    return
                verdict = self._verdicts[path] = self.verifier.judge(path)
                self._signatures += verdict.signatures
                if verdict.verified:
                    self._verified = verdict.verified
                    return
                yield
            if verdict.growable:
                self._look_up(path[-1])
                if len(path) == MAX_PATH_LENGTH:
                    self._note(f"no path of more than {MAX_PATH_LENGTH} certificates was followed")
            try:
                path = walk.send(verdict.growable)
            except StopIteration:
                return

    async def _search_gently(self) -> None:
        slice_ends = time.thread_time() + self.limits.slice
        for _ in self._search():
            if time.thread_time() >= slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.thread_time() + self.limits.slice

    def _look_up(self, certificate: Certificate) -> None:
        """Adds what the sources know of the issuers of `certificate`, once."""
        if certificate in self._looked_up:
            return
        self._looked_up.add(certificate)
        for source in self.sources:
            for found in source.known_issuers(certificate):
                self._add(found, nesting=0)

    def _next_to_ask(self) -> Certificate | None:
        """The certificate on top of the longest path that lacks nothing but an issuer, among
        those that have more to tell and are not nested too deep."""
        waiting = [
            path
            for path, verdict in self._verdicts.items()
            if verdict.growable
            and path[-1] not in self._exhausted
            and self._nesting[path[-1]] < self.limits.nesting
        ]
        return max(waiting, key=len)[-1] if waiting else None

    def _attempts_for(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        if certificate not in self._asked:
            self._asked[certificate] = self._ask_all(certificate, budget)
        return self._asked[certificate]

    async def _ask_all(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        for source in self.sources:
            attempts = source.fetch_issuers(certificate, budget)
            try:
                async for attempt in attempts:
                    yield attempt
            finally:
                await attempts.aclose()

    def _note(self, note: str) -> None:
        self._notes[note] = None

    def _outcome(self) -> Outcome:
        found = tuple(
            Found(certificate, self._origins[certificate])
            for certificate in self._verified[1:-1]
            if self._origins.get(certificate, PRESENTED) != PRESENTED
        )
        for source in self.sources if found else ():
            source.keep(found)
        return Outcome(
            path=self._verified,
            fault=None if self._verified else self._most_telling_fault(),
            found=found,
            attempts=tuple(self._attempts),
            notes=tuple(self._notes),
            seconds=time.monotonic() - self._started,
        )

    def _most_telling_fault(self) -> Fault | None:
        """That of the path which got furthest: the longest one, and among equals one without
        a fault of its own."""
        path = max(self._verdicts, key=lambda path: (len(path), self._verdicts[path].growable))
        return self._verdicts[path].fault
