"""Issuers downloaded from the caIssuers URLs of a certificate (RFC 5280 section 4.2.2.1)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from mitmproxy_aia.certificates import Certificate, printable
from mitmproxy_aia.sources import Attempt, Budget, Found

URLS_PER_CERTIFICATE = 5
PATIENCE = 0.5
"""Seconds of waiting for one URL until the next one is tried beside it."""
FAILURE_REMEMBERED = 60.0
"""Seconds."""
FAILURES_REMEMBERED = 1_000

Download = Callable[[str], Awaitable[tuple[Certificate, ...]]]
"""Gets the certificates at a URL, or raises `DownloadError`."""


class DownloadError(OSError):
    """Why a URL gave no certificate, worded to follow the URL: `answered 404`."""


class NotTried(DownloadError):
    """It was our own doing, and says nothing of the URL."""


@dataclass(frozen=True)
class _Failure:
    outcome: str
    at: float


class _Flight:
    """One download, shared by all who want the same URL at the same time.

    `result` is what came of it once `done` is set: certificates or, in words, why not.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.started = time.monotonic()
        self.seconds = 0.0
        self.done = asyncio.Event()
        self.result: tuple[Certificate, ...] | str = ()

    def attempt(self) -> Attempt:
        """What there is to say of it, finished or not."""
        where = printable(self.url)
        if not self.done.is_set():
            waited = time.monotonic() - self.started
            return Attempt(where, f"gave no answer in {waited:.1f} s", seconds=waited)
        if isinstance(self.result, str):
            return Attempt(where, self.result, seconds=self.seconds)
        names = ", ".join(certificate.name for certificate in self.result[:3])
        more = f" and {len(self.result) - 3} more" if len(self.result) > 3 else ""
        found = tuple(Found(certificate, where) for certificate in self.result)
        return Attempt(where, f"gave {names}{more}", found, self.seconds)


class AiaSource:
    """An `IssuerSource`. Must be used from one event loop.

    `download` does the transport; it is expected to end by itself in bounded time.
    """

    def __init__(self, download: Download) -> None:
        self._download = download
        # A flight is found here as long as it is in the air or some completion still needs
        # what it brought: two levels up, that completion may yet be waiting for another
        # one. It is not a cache: what was not verified is gone with its last completion.
        self._flights: WeakValueDictionary[str, _Flight] = WeakValueDictionary()
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

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
        in_the_air: dict[asyncio.Task[bool], _Flight] = {}
        try:
            while urls or in_the_air:
                left = budget.deadline - time.monotonic()
                if left <= 0:
                    for flight in in_the_air.values():
                        yield flight.attempt()
                    return
                if urls:
                    url = urls.pop(0)
                    if (refusal := self._refusal(url)) is not None:
                        yield refusal
                        continue
                    if budget.frozen:
                        yield Attempt(printable(url), f"was not downloaded ({budget.frozen})")
                        continue
                    if url not in self._flights and budget.downloads <= 0:
                        budget.overdrawn = True
                        urls.clear()
                        continue
                    flight = self._flight(url, budget)
                    budget.in_use.append(flight)
                    in_the_air[asyncio.ensure_future(flight.done.wait())] = flight
                landed, _ = await asyncio.wait(
                    in_the_air,
                    timeout=min(left, PATIENCE) if urls else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in landed:
                    yield in_the_air.pop(task).attempt()
        finally:
            for task in in_the_air:
                task.cancel()

    def close(self) -> None:
        """Gives up the downloads that are under way. Also safe when the event loop is gone."""
        for task in self._tasks:
            if not task.get_loop().is_closed():
                task.cancel()

    def _refusal(self, url: str) -> Attempt | None:
        """Why `url` is not tried now, if it is not."""
        where = printable(url)
        if not url.lower().startswith("http://"):
            return Attempt(where, "was skipped (only http:// is followed)")
        failure = self._failures.get(url)
        if failure is not None:
            ago = time.monotonic() - failure.at
            if ago < FAILURE_REMEMBERED:
                return Attempt(where, f"{failure.outcome} ({ago:.0f} s ago)")
            del self._failures[url]
        return None

    def _flight(self, url: str, budget: Budget) -> _Flight:
        """The flight to `url`, started if it is not in the air already."""
        flight = self._flights.get(url)
        if flight is None:
            budget.downloads -= 1
            flight = self._flights[url] = _Flight(url)
            task = asyncio.create_task(self._fly(flight), name=f"aia download {printable(url)}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, flight: _Flight) -> None:
        flight.result = "was given up"
        try:
            flight.result = await self._download(flight.url)
        except NotTried as error:
            flight.result = str(error)
        except DownloadError as error:
            flight.result = str(error)
            self._remember_failure(flight.url, flight.result)
        except Exception as error:
            flight.result = f"failed ({printable(str(error)) or type(error).__name__})"
        finally:
            flight.seconds = time.monotonic() - flight.started
            flight.done.set()
            if isinstance(flight.result, str):
                self._flights.pop(flight.url, None)

    def _remember_failure(self, url: str, outcome: str) -> None:
        self._failures[url] = _Failure(outcome, time.monotonic())
        while len(self._failures) > FAILURES_REMEMBERED:
            self._failures.popitem(last=False)
