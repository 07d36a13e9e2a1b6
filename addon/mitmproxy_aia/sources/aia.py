"""Issuers downloaded from the caIssuers URLs of a certificate (RFC 5280 section 4.2.2.1)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from mitmproxy_aia.addresses import Space
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Proxy, Refusal, Server, site
from mitmproxy_aia.limits import MAX_URL
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.sources.download_errors import (
    DownloadError,
    Failures,
    UsedUp,
    WhyNot,
)
from mitmproxy_aia.sources.slots import Place, Slots

URLS_PER_CERTIFICATE = 5
PATIENCE = 0.5
"""Seconds of waiting for one URL until the next one is tried beside it."""
TOLD = 0.1
"""Seconds of waiting for a turn that are worth telling."""
MAX_DOWNLOADS = 256
"""Downloads at the same time."""
SHARE = 16
"""Of these, for one server (or its neighbours), and from one caIssuers host (or its domain)."""
MAX_WAITING = 64
"""Downloads that one server may have waiting for its share."""

Download = Callable[[str, Server], Awaitable[tuple[Certificate, ...]]]
"""Gets the certificates at a URL for a server, or raises `DownloadError`. What comes of it may
depend on the server's `permits` and `proxy` only."""

_Key = tuple[str, Space, Proxy | None]
"""A URL, and all of a server that decides what its download gives: what one server may have is
never had by another through it."""


class _Flight:
    """One download, shared by all who want the same at the same time.

    `in_line` is how many seconds it waited for its turn, once it had that. `result` is what came
    of it, certificates or why not, when its `task` is done. `used_up` is whether it failed of the
    share of `payer`, on whose behalf it is.
    """

    def __init__(self, key: _Key, place: Place, payer: Hashable) -> None:
        self.key = key
        self.place = place
        self.payer = payer
        self.used_up = False
        self.askers = 0
        self.started = time.monotonic()
        self.in_line: float | None = None
        self.seconds = 0.0
        self.result: tuple[Certificate, ...] | WhyNot = "was given up"
        self.task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return self.key[0]

    def attempt(self, server: Server) -> Attempt:
        """What there is to say of it to `server`, finished or not."""
        where = printable(self.url)
        if not self.task.done():
            waited = time.monotonic() - self.started
            return Attempt(where, self._no_answer(waited), seconds=waited)
        if isinstance(self.result, Refusal):
            return Attempt(where, self.result.words(server), seconds=self.seconds, refused=True)
        if isinstance(self.result, str):
            return Attempt(where, self.result, seconds=self.seconds)
        names = ", ".join(certificate.name for certificate in self.result[:3])
        more = f" and {len(self.result) - 3} more" if len(self.result) > 3 else ""
        found = tuple(Found(certificate, where) for certificate in self.result)
        return Attempt(where, f"gave {names}{more}", found, self.seconds)

    def _no_answer(self, waited: float) -> str:
        if self.in_line is None:
            return f"waited for other downloads for {waited:.1f} s"
        what = f"gave no answer in {waited - self.in_line:.1f} s"
        if self.in_line >= TOLD:
            what += f" (and waited for other downloads for {self.in_line:.1f} s)"
        return what


class AiaSource:
    """An `IssuerSource`. Must be used from one event loop.

    `download` does the transport; it is expected to end by itself in bounded time.
    """

    def __init__(self, download: Download) -> None:
        self._download = download
        # A flight is found here as long as it is in the air or some completion still needs
        # what it brought: two levels up, that completion may yet be waiting for another
        # one. It is not a cache: what was not verified is gone with its last completion.
        self._flights: WeakValueDictionary[_Key, _Flight] = WeakValueDictionary()
        self._failures = Failures[_Key]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = Slots(MAX_DOWNLOADS, SHARE, SHARE, MAX_WAITING)

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        return ()

    def keep(self, found: Sequence[Found]) -> None:
        """Not its business."""

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        """Tries the caIssuers URLs in their order. The next one starts when the one before
        has failed, has given what did not help, or has not answered for `PATIENCE`."""
        if not certificate.extensions_readable:
            yield Attempt(certificate.name, "has an extension that cannot be read")
        elif not certificate.ca_issuers:
            yield Attempt(certificate.name, "names no caIssuers URL")
        urls = list(certificate.ca_issuers[:URLS_PER_CERTIFICATE])
        server = budget.server
        in_the_air: dict[asyncio.Task[None], _Flight] = {}
        again = set[str]()
        try:
            while urls or in_the_air:
                left = budget.deadline - time.monotonic()
                if left <= 0:
                    for flight in in_the_air.values():
                        yield flight.attempt(server)
                    for url in urls:
                        yield Attempt(printable(url), "was not tried (there was no time left)")
                    return
                if urls:
                    url = urls.pop(0)
                    key = url, server.permits, server.proxy
                    if (refusal := self._refusal(key, server)) is not None:
                        yield refusal
                        continue
                    if budget.frozen:
                        yield Attempt(printable(url), f"was not downloaded ({budget.frozen})")
                        continue
                    if key not in self._flights and budget.downloads <= 0:
                        budget.overdrawn = True
                        urls.clear()
                        continue
                    joined = self._flight(key, budget)
                    if joined is None:
                        outcome = f"was not tried ({MAX_WAITING} downloads wait for their turn)"
                        yield Attempt(printable(url), outcome)
                        continue
                    budget.in_use.append(joined)
                    in_the_air[joined.task] = joined
                    joined.askers += 1
                # It leaves the tasks alone when the time is up, or when it is cancelled.
                landed, _ = await asyncio.wait(
                    in_the_air,
                    timeout=min(left, PATIENCE) if urls else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in landed:
                    flight = in_the_air.pop(task)
                    others = flight.used_up and flight.payer != server.group
                    if others and flight.url not in again:
                        # Perhaps there is some left of ours.
                        again.add(flight.url)
                        urls.insert(0, flight.url)
                        self._end(flight)
                    else:
                        yield flight.attempt(server)
        finally:
            for flight in in_the_air.values():
                self._leave(flight)

    def close(self) -> None:
        """Gives up the downloads that are under way. Also safe when the event loop is gone."""
        for task in self._tasks:
            if not task.get_loop().is_closed():
                task.cancel()

    def _refusal(self, key: _Key, server: Server) -> Attempt | None:
        """Why a URL is not tried now, if it is not."""
        url = key[0]
        where = printable(url)
        if not url.lower().startswith("http://"):
            return Attempt(where, "was skipped (only http:// is followed)")
        if len(url) > MAX_URL:
            # To remember it as one that has failed would take more than it is worth.
            return Attempt(where, f"was skipped (longer than {MAX_URL} characters)")
        if (failure := self._failures.get(key)) is None:
            return None
        ago, outcome = failure
        refused = isinstance(outcome, Refusal)
        words = outcome.words(server) if isinstance(outcome, Refusal) else outcome
        return Attempt(where, f"{words} ({ago:.0f} s ago)", refused=refused)

    def _flight(self, key: _Key, budget: Budget) -> _Flight | None:
        """The flight for `key`, begun if there is none; None if too many wait already."""
        payer = budget.server.group
        flight = self._flights.get(key)
        if flight is not None:
            self._slots.share(flight.place, payer)
            return flight
        place = self._slots.ask(payer, _target(key[0]))
        if place is None:
            return None
        budget.downloads -= 1
        flight = self._flights[key] = _Flight(key, place, payer)
        name = f"aia download {printable(flight.url)}"
        flight.task = asyncio.create_task(self._fly(flight, budget.server), name=name)
        self._tasks.add(flight.task)
        # Also called when the task is cancelled before it has begun.
        flight.task.add_done_callback(functools.partial(self._landed, flight))
        return flight

    def _leave(self, flight: _Flight) -> None:
        """One who has waited for it does not any more. What is in the air goes on, for whoever
        comes next; what still waits for its turn would only be in others' way."""
        flight.askers -= 1
        if not flight.askers and not flight.place.entered.is_set():
            flight.task.cancel()
            self._flights.pop(flight.key, None)

    async def _fly(self, flight: _Flight, server: Server) -> None:
        try:
            await flight.place.entered.wait()
            flight.in_line = time.monotonic() - flight.started
            flight.result = await self._download(flight.url, server)
        except DownloadError as error:
            flight.result = error.outcome
            flight.used_up = isinstance(error, UsedUp)
            self._failures.remember(flight.key, error)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # A panic in `cryptography` is no Exception.
            flight.result = f"failed ({printable(str(error)) or type(error).__name__})"
        finally:
            # Who waits for the task may look before `_landed` is called.
            flight.seconds = time.monotonic() - flight.started

    def _landed(self, flight: _Flight, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.give_back(flight.place)
        if not isinstance(flight.result, tuple):
            self._end(flight)

    def _end(self, flight: _Flight) -> None:
        """Nobody is to join it any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


def _target(url: str) -> str:
    """Who is kept busy by a download of `url`."""
    try:
        parts = urlsplit(url)
        return f"{site(parts.hostname or '')}:{parts.port or 80}"
    except ValueError:
        return ""
