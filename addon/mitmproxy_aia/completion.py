"""Completion: from the chain a server presents to a verified path, or to the reason why not.

    presented -> what is known locally -> what has to be waited for -> verdict

As long as no path over the candidates at hand is good, the certificates that good steps have
led to are asked for their issuers, one after the other, and the search goes on with each
answer.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import NOBODY, Server
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.names import printable
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import Path
from mitmproxy_aia.search import Judge, Search
from mitmproxy_aia.slices import Slices, at_once
from mitmproxy_aia.sources import Attempt, Budget, Found, IssuerSource

PRESENTED = "the server"
"""Origin of the certificates that the server sent."""
ATTEMPTS_TOLD = 12
"""How many attempts are named in a reason: a server must not be able to flood a log."""
MAX_TOLD = 2_000
"""Characters of them together. mitmproxy forgets to end the HTTP/2 stream of an error page with
more than 16 KiB, and HTML may take six characters for one."""
GRACE = 1.0
"""Seconds after the deadline in which sources have to come back and say what happened."""
DOWNLOADS_FOR_THE_LEAF = 3
"""Kept back for its caIssuers URLs, whatever else the server presents."""


@dataclass(frozen=True)
class Outcome:
    """What came of a completion.

    `path` goes from the leaf to the trust anchor and is empty unless it was verified; only
    then is `fault` None. `found` are its intermediates that the server did not send, with
    their origins. `attempts` are what was tried beyond this process, and `notes` say which
    limits were met. `seconds` is how long it took, waiting included. `presented` is what the
    server sent, leaf first, as far as it was looked at.
    """

    path: Path = ()
    fault: Fault | None = None
    found: tuple[Found, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    presented: tuple[Certificate, ...] = ()

    @property
    def verified(self) -> bool:
        return bool(self.path)

    @property
    def reason(self) -> str:
        """Why not, in OpenSSL's words, and then in brackets what was tried."""
        text = self.fault.text if self.fault else ""
        counted = Counter(str(attempt) for attempt in self.attempts).items()
        told = [f"{text} ({n} times)" if n > 1 else text for text, n in counted]
        attempts = told[:ATTEMPTS_TOLD]
        if len(told) > ATTEMPTS_TOLD:
            attempts.append(f"and {len(told) - ATTEMPTS_TOLD} more")
        aia = [f"AIA: {'; '.join(attempts)}"] if attempts else []
        tried = printable("; ".join([*aia, *self.notes]), MAX_TOLD)
        return f"{text} ({tried})" if tried else text


class Completion:
    """One completion. Call `complete_at_once()`; if that is not verified, await
    `complete()`, which goes on from there.

    `presented` is what the server sent, leaf first; there must be a leaf. What comes after it
    is taken only when it is needed, so it may be an iterator that has yet to parse it.
    `sources` are asked in their order. `server` gives the one that decides where a download
    may go, and is called when one may be needed.
    """

    def __init__(
        self,
        presented: Iterable[Certificate],
        verifier: Judge,
        sources: Sequence[IssuerSource],
        limits: Limits | None = None,
        server: Callable[[], Server] = lambda: NOBODY,
    ) -> None:
        self._started = time.monotonic()
        self._sources = sources
        self._limits = limits or Limits()
        self._server = server
        self._presented: Iterator[Certificate] = iter(presented)
        self._leaf = next(self._presented)
        self._taken = [self._leaf]
        look_up = [functools.partial(self._look_up, source) for source in sources]
        self._search = Search(self._leaf, verifier, self._limits, look_up)
        self._found: dict[Certificate, Found] = {}
        self._nesting: dict[Certificate, int] = {}
        # What has come and was not added to the search yet, and with what nesting.
        self._arrived: deque[tuple[Found, int]] = deque()
        self._attempts: list[Attempt] = []
        self._notes: dict[str, None] = {}
        self._asking: dict[Certificate, AsyncGenerator[Attempt, None]] = {}
        self._asked: set[Certificate] = set()
        self._computed = 0.0

    def complete_at_once(self) -> Outcome:
        """Tries what is known locally, without waiting for anything. What takes longer, or comes
        with many others, is left to `complete`."""
        with at_once(self._limits.slice) as slice_ends:
            for _ in self._work():
                if time.thread_time() >= slice_ends:
                    break
        return self._outcome()

    async def complete(self) -> Outcome:
        """Tries everything. Lets the event loop run while it waits and while it searches."""
        budget = Budget(
            time.monotonic() + self._limits.seconds,
            0 if self._limits.frozen else self._limits.downloads,
            frozen=self._limits.frozen,
            server=self._server(),
        )
        try:
            try:
                async with asyncio.timeout(self._limits.seconds + GRACE):
                    await self._ask_for_issuers(budget)
            except TimeoutError:
                self._note(f"given up after {self._limits.seconds:g} s")
            if budget.overdrawn:
                self._note(
                    f"no more than {self._limits.downloads} downloads are made for one chain"
                )
            return self._outcome()
        finally:
            for attempts in self._asking.values():
                await attempts.aclose()
            for callback in budget.when_done:
                callback()

    async def _ask_for_issuers(self, budget: Budget) -> None:
        # In a crowd there is time between `complete_at_once` and this, in which another completion
        # may have got what is missing, and be over.
        self._search.look_again()
        slices = Slices(budget.server.group)
        await self._work_gently(slices)
        while not self._done and (certificate := self._next_to_ask(budget)) is not None:
            attempt = await self._ask(certificate, budget)
            if attempt is not None:
                self._attempts.append(attempt)
            if attempt is None or not attempt.found:
                # There may be many with nothing to say, and that takes no waiting.
                await asyncio.sleep(0)
            else:
                nesting = self._nesting.get(certificate, 0) + 1
                self._arrived.extend((found, nesting) for found in attempt.found)
                await self._work_gently(slices)

    def _work(self) -> Generator[None, None, None]:
        for certificate in self._presented:
            self._taken.append(certificate)
            self._add(Found(certificate, PRESENTED), nesting=0)
            yield
        while self._arrived:
            self._add(*self._arrived.popleft())
            yield
        yield from self._search.run()

    async def _work_gently(self, slices: Slices) -> None:
        try:
            # Many may have waited for the same download.
            await slices.next()
            began = time.thread_time()
            for _ in self._work():
                if (spent := time.thread_time() - began) >= self._limits.slice:
                    self._computed += spent
                    if self._computed >= self._limits.computing:
                        self._note(f"given up after {self._limits.computing:g} s of computing")
                        return
                    await slices.next()
                    began = time.thread_time()
            self._computed += time.thread_time() - began
        finally:
            slices.over()

    @property
    def _done(self) -> bool:
        return bool(self._search.verified) or self._computed >= self._limits.computing

    def _add(self, found: Found, nesting: int) -> None:
        certificate = found.certificate
        self._search.add(certificate, presented=found.origin == PRESENTED)
        self._found.setdefault(certificate, found)
        # It may have been brought by a detour first.
        self._nesting[certificate] = min(nesting, self._nesting.get(certificate, nesting))

    def _look_up(self, source: IssuerSource, certificate: Certificate) -> Iterator[Certificate]:
        """What `source` knows of the issuers of `certificate`."""
        for found in source.known_issuers(certificate):
            self._found.setdefault(found.certificate, found)
            self._nesting.setdefault(found.certificate, 0)
            yield found.certificate

    def _next_to_ask(self, budget: Budget) -> Certificate | None:
        """Of those that were reached and may have more to tell: the last one that a download
        has brought; then the last one reached, which most likely lacks just its issuer; then
        the leaf, so that no stranger stands in its way; then the others."""
        waiting = [
            certificate
            for certificate in self._search.reached
            if certificate not in self._asked
            and self._search.may_grow(certificate)
            # That another issuer is not downloaded would hide what is missing above the known one.
            and not (budget.frozen and self._search.has_issuer(certificate))
        ]
        too_deep = [each for each in waiting if self._nesting.get(each, 0) >= self._limits.nesting]
        if too_deep:
            self._note(f"nothing was asked beyond {self._limits.nesting} downloads in a row")
            waiting = [each for each in waiting if each not in too_deep]
        if not waiting:
            return None
        leaf = waiting[:1] if waiting[0] == self._leaf else []
        if leaf and budget.downloads <= DOWNLOADS_FOR_THE_LEAF:
            return self._leaf
        fetched = [certificate for certificate in waiting if self._nesting.get(certificate)]
        under_way = [certificate for certificate in waiting if certificate in self._asking]
        next_presented = leaf if self._asked else waiting
        return (fetched or under_way or next_presented or waiting)[-1]

    async def _ask(self, certificate: Certificate, budget: Budget) -> Attempt | None:
        """The next answer of the sources to what the issuers of `certificate` are."""
        if certificate not in self._asking:
            self._asking[certificate] = self._ask_all(certificate, budget)
        attempt = await anext(self._asking[certificate], None)
        if attempt is None:
            del self._asking[certificate]
            self._asked.add(certificate)
        return attempt

    async def _ask_all(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        for source in self._sources:
            attempts = source.fetch_issuers(certificate, budget)
            try:
                async for attempt in attempts:
                    yield attempt
            finally:
                await attempts.aclose()

    def _note(self, note: str) -> None:
        self._notes[note] = None

    def _outcome(self) -> Outcome:
        path = self._search.verified
        found = tuple(
            self._found[certificate]
            for certificate in path[1:-1]
            if certificate in self._found and self._found[certificate].origin != PRESENTED
        )
        to_keep = [item for item in found if not item.at_hand]
        for source in self._sources if to_keep else ():
            source.keep(to_keep)
        return Outcome(
            path=path,
            fault=None if path else self._search.fault,
            found=found,
            attempts=tuple(self._attempts),
            notes=(*self._search.notes, *self._notes),
            seconds=time.monotonic() - self._started,
            presented=tuple(self._taken),
        )
