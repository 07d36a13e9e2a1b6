"""Host names to addresses, in threads of our own.

asyncio looks names up in a small pool of threads that everybody shares, and a lookup cannot be
cancelled: a few names whose name server does not answer would stop mitmproxy itself from
connecting anywhere. The threads are daemons, so that they do not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Hashable

from mitmproxy_aia.egress import site
from mitmproxy_aia.sources.slots import Place, Slots

MAX_LOOKUPS = 256
"""Lookups at the same time, including those that nobody waits for any more."""
MAX_LOOKUPS_OF_A_SITE = 16
"""Of these, in one domain, so that its name servers cannot use up all."""
MAX_LOOKUPS_OF_A_PAYER = 32
"""Of these, on behalf of one server. They may outlive the downloads that they are for."""
MAX_WAITING = 64
"""Lookups that one server may have waiting."""
FILES_OF_A_LOOKUP = 4
"""Open at the same time: a database, and sockets to name servers."""


class TooManyLookups(OSError):
    """It was our own doing, and says nothing of the name."""

    def __init__(self) -> None:
        super().__init__("too many names are being looked up")


class _Turn:
    """A place that is waited for, by so many who want the same name."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.waiting = 0


class Resolver:
    """Call it with a host name, and with who has brought us to it; None is the user himself, who
    has no limits. Must be used from one event loop."""

    def __init__(
        self,
        limit: int = MAX_LOOKUPS,
        of_a_site: int = MAX_LOOKUPS_OF_A_SITE,
        of_a_payer: int = MAX_LOOKUPS_OF_A_PAYER,
    ) -> None:
        self._slots = Slots(limit, of_a_payer, of_a_site, MAX_WAITING)
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}
        self._in_line: dict[str, _Turn] = {}

    async def __call__(
        self, host: str, payer: Hashable | None = None, patience: float | None = None
    ) -> list[str]:
        """The addresses of `host`, best first. Waits for a turn for `patience` seconds. Raises
        OSError (socket.gaierror if the name cannot be resolved, TooManyLookups if it was not
        tried, one with the number of the error if this process can open no more files)."""
        answer = self._under_way.get(host)
        if answer is None:
            place = None if payer is None else await self._turn(host, payer, patience)
            # Others may have begun it meanwhile.
            answer = self._under_way.get(host)
            if answer is None:
                if place is None and payer is not None:
                    raise TooManyLookups  # who has begun could not
                answer = self._begin(host, place)
            elif place is not None:
                self._slots.give_back(place)
        # Others may wait for it as well.
        return await asyncio.shield(answer)

    async def _turn(self, host: str, payer: Hashable, patience: float | None) -> Place | None:
        """A place to look `host` up; None for those who have waited for the same one when another
        of them has just taken it. Raises TooManyLookups."""
        turn = self._in_line.get(host)
        if turn is None:
            if (place := self._slots.ask(payer, site(host))) is None:
                raise TooManyLookups
            turn = self._in_line[host] = _Turn(place)
        else:
            self._slots.share(turn.place, payer)
        turn.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await turn.place.entered.wait()
            return self._in_line.pop(host).place if self._in_line.get(host) is turn else None
        except TimeoutError:
            raise TooManyLookups from None
        finally:
            turn.waiting -= 1
            if not turn.waiting and self._in_line.get(host) is turn:
                del self._in_line[host]
                self._slots.give_back(turn.place)

    def _begin(self, host: str, place: Place | None) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        # There may be nobody left who would look at an error.
        answer.add_done_callback(asyncio.Future.exception)
        self._under_way[host] = answer

        def settle(addresses: list[str] | None, error: OSError | None) -> None:
            del self._under_way[host]
            if place is not None:
                self._slots.give_back(place)
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(addresses or [])

        def look_up() -> None:
            addresses, failure = None, None
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
            except OSError as error:
                failure = error
            except UnicodeError as error:
                failure = OSError(str(error))
            except BaseException as error:
                # Whatever it is: somebody waits for the answer, and the place is free again.
                failure = OSError(f"{type(error).__name__} while a name was looked up")
            if failure is not None:
                failure = _shortage() or failure
            # The loop may be closed when a slow name server answers at last.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, addresses, failure)

        try:
            threading.Thread(target=look_up, name=f"aia lookup of {host}", daemon=True).start()
        except BaseException:
            settle(None, None)
            raise
        return answer


def _shortage() -> OSError | None:
    """What keeps this process from opening files, if something does. glibc then calls names
    unknown, since it could read neither /etc/hosts nor who the name servers are."""
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(FILES_OF_A_LOOKUP):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error
    return None
