"""A download that is given up at whatever moment leaves no connection open, and no task."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable

import pytest
from cryptography import x509

from mitmproxy_aia.egress import Proxy, Server
from mitmproxy_aia.sources.download import Downloader
from tests.lab import CaIssuersServer, Issued
from tests.socks_server import SocksServer
from tests.test_download import HERE, PATIENT

MOMENTS = 60
"""Turns of the event loop, and more than a download takes."""


def sockets() -> int:
    """How many this process has open."""
    number = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            number += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the one that listed them
            continue
    return number


async def given_up_everywhere(download: Callable[[], Awaitable[object]]) -> int:
    """How many downloads were cancelled, each one turn of the event loop later than the one
    before."""
    cancelled = 0
    for moment in range(MOMENTS):
        task = asyncio.ensure_future(download())
        for _ in range(moment):
            # What the other side has said meanwhile is there at the next turn.
            await asyncio.sleep(0.0005 if moment % 2 else 0)
        cancelled += task.cancel()
        await asyncio.wait([task])
    return cancelled


async def at_rest(number: int) -> int:
    """The number of open sockets, as soon as it is no more than `number`."""
    gc.collect()
    for _ in range(200):
        if sockets() <= number:
            break
        await asyncio.sleep(0.01)
    return sockets()


@pytest.mark.parametrize("way", ["direct", "http", "socks5"])
def test_given_up_at_any_moment(root: Issued, way: str) -> None:
    """Before it is connected, while it asks, and while it reads: nothing is left of it."""

    async def main(url: str, server: Server) -> None:
        downloader = Downloader(lambda: PATIENT)
        assert await downloader(url, server)
        before = sockets()
        assert await given_up_everywhere(lambda: downloader(url, server)) > 3
        assert await at_rest(before) <= before
        assert len(asyncio.all_tasks()) == 1

    with CaIssuersServer() as ca, SocksServer(ca.port) as socks:
        url = ca.serve("/given-up", _large(root))
        port = {"direct": 0, "http": ca.port, "socks5": socks.port}[way]
        proxy = Proxy(way, "127.0.0.1", port) if port else None
        asyncio.run(main(url, Server("a", HERE.address, 443, proxy)))


def _large(root: Issued) -> bytes:
    """A certificate that takes several reads."""
    name = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.1"), bytes(30_000))
    return root.issue("CA", ca=True, extra=[x509.Extension(name.oid, False, name)]).der
