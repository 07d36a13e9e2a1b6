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
from mitmproxy_aia.paths import Candidates, Path, paths
from mitmproxy_aia.sources import Attempt, Budget, Found, IssuerSource
from mitmproxy_aia.verification import Fault, Verdict

PRESENTED = "the server"
"""Origin of the certificates that the server sent."""
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
    paths_at_once: int = 16
    """Paths judged before the handshake is paused and the event loop gets its turn."""
    slice: float = 0.005
    """Seconds of judging between two turns of the event loop."""


class Judge(Protocol):
    """What a completion asks of `verification.Verifier`."""

    def judge(self, path: Path) -> Verdict: ...


@dataclass(frozen=True)
class Outcome:
    """What came of a completion.

    `path` goes from the leaf to the trust anchor and is empty unless it was verified; only
    then is `fault` None. `found` are its intermediates that the server did not send, with
    their origins. `seconds` is how long it took, waiting included.
    """

    path: Path = ()
    fault: Fault | None = None
    found: tuple[Found, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    seconds: float = 0.0

    @property
    def verified(self) -> bool:
        return bool(self.path)

    @property
    def reason(self) -> str:
        """Why not, in OpenSSL's words, and then in brackets what was tried."""
        text = self.fault.text if self.fault else ""
        tried = "; ".join(map(str, self.attempts))
        return f"{text} (AIA: {tried})" if tried else text


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
        self._asked: dict[Certificate, AsyncGenerator[Attempt, None]] = {}
        self._exhausted: set[Certificate] = set()
        for certificate in self.presented:
            self._add(Found(certificate, PRESENTED), nesting=0)

    def complete_at_once(self) -> Outcome:
        """Tries what is known locally, without waiting for anything."""
        for _ in self._search(self.limits.paths_at_once):
            pass
        return self._outcome()

    async def complete(self) -> Outcome:
        """Tries everything. Lets the event loop run while it waits and while it judges."""
        budget = Budget(time.monotonic() + self.limits.seconds, self.limits.downloads)
        try:
            async with asyncio.timeout(self.limits.seconds + GRACE):
                await self._ask_for_issuers(budget)
        except TimeoutError:
            self._give_up(f"was given up after {self.limits.seconds:g} s")
        finally:
            for attempts in self._asked.values():
                await attempts.aclose()
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
        return bool(self._verified) or len(self._verdicts) == self.limits.paths

    def _add(self, found: Found, nesting: int) -> None:
        if len(self._candidates) == self.limits.candidates:
            self._give_up(f"looked at no more than {self.limits.candidates} certificates")
        elif self._candidates.add(found.certificate):
            self._origins[found.certificate] = found.origin
            self._nesting[found.certificate] = nesting

    def _search(self, budget: int) -> Generator[None, None, None]:
        """Judges paths over the candidates until one is good, all are refused, or `budget`
        of them have been judged. Yields after each one judged."""
        walk = paths(self._leaf, self._candidates)
        path = next(walk)
        while True:
            verdict = self._verdicts.get(path)
            if verdict is None:
                if budget == 0:
                    return
                if self._finished:
                    self._give_up(f"was given up after {self.limits.paths} paths")
                    return
                budget -= 1
                verdict = self._verdicts[path] = self.verifier.judge(path)
                if verdict.verified:
                    self._verified = verdict.verified
                    return
                yield
            if verdict.growable:
                self._look_up(path[-1])
            try:
                path = walk.send(verdict.growable)
            except StopIteration:
                return

    async def _search_gently(self) -> None:
        turn_ends = time.monotonic() + self.limits.slice
        for _ in self._search(self.limits.paths):
            if time.monotonic() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + self.limits.slice

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

    def _give_up(self, reason: str) -> None:
        attempt = Attempt("the search", reason)
        if attempt not in self._attempts:
            self._attempts.append(attempt)

    def _outcome(self) -> Outcome:
        seconds = time.monotonic() - self._started
        attempts = tuple(self._attempts)
        if not self._verified:
            return Outcome(fault=self._most_telling_fault(), attempts=attempts, seconds=seconds)
        found = tuple(
            Found(certificate, self._origins[certificate])
            for certificate in self._verified[1:-1]
            if self._origins.get(certificate, PRESENTED) != PRESENTED
        )
        for source in self.sources:
            source.keep(found)
        return Outcome(self._verified, found=found, attempts=attempts, seconds=seconds)

    def _most_telling_fault(self) -> Fault | None:
        """That of the path which got furthest: the longest one, and among equals one without
        a fault of its own."""
        path = max(self._verdicts, key=lambda path: (len(path), self._verdicts[path].growable))
        return self._verdicts[path].fault
