"""Host names to addresses, in threads of our own.

asyncio looks names up in a small pool of threads that everybody shares, and a lookup cannot be
cancelled: a few names whose name server does not answer would stop mitmproxy itself from
connecting anywhere. The threads are daemons, so that they do not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter

from mitmproxy_aia.egress import site

MAX_LOOKUPS = 256
"""Lookups at the same time, including those that nobody waits for any more."""
MAX_LOOKUPS_OF_A_SITE = 16
"""Of these, in one domain, so that its name servers cannot use up all."""


class TooManyLookups(OSError):
    """It was our own doing, and says nothing of the name."""


class Resolver:
    """Call it with a host name. Must be used from one event loop."""

    def __init__(self, limit: int = MAX_LOOKUPS, of_a_site: int = MAX_LOOKUPS_OF_A_SITE) -> None:
        self._limit = limit
        self._of_a_site = of_a_site
        self._under_way: Counter[str] = Counter()

    async def __call__(self, host: str) -> list[str]:
        """The addresses of `host`, best first. Raises OSError (socket.gaierror if the name
        cannot be resolved, TooManyLookups if it was not tried)."""
        domain = site(host)
        of_domain = self._under_way[domain]
        if self._under_way.total() >= self._limit or of_domain >= self._of_a_site:
            raise TooManyLookups("too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        self._under_way[domain] += 1

        def settle(addresses: list[str] | None, error: OSError | None) -> None:
            self._under_way[domain] -= 1
            if not self._under_way[domain]:
                del self._under_way[domain]
            if answer.done():
                return
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
            # The loop may be closed when a slow name server answers at last.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, addresses, failure)

        try:
            threading.Thread(target=look_up, name=f"aia lookup of {host}", daemon=True).start()
        except BaseException:
            settle(None, None)
            raise
        return await answer
