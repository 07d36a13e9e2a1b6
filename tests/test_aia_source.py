"""The AIA source: which caIssuers URLs are tried, when, and how often. Downloads are scripted."""

import asyncio
import gc
import time
from collections.abc import Coroutine

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import NOBODY, Server
from mitmproxy_aia.sources import Attempt, Budget, aia
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.download_errors import DownloadError
from tests.lab import Issued

A, B = "http://a/", "http://b/"
Answer = tuple[Certificate, ...] | Exception | asyncio.Event


class Web:
    """A `Download` that gives what `answers` says, and writes down what it was asked.

    An Event is an answer that comes when it is set: a certificate.
    """

    def __init__(self, root: Issued) -> None:
        self.ca = Certificate.from_der(root.der)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.servers: list[Server] = []

    async def __call__(self, url: str, server: Server) -> tuple[Certificate, ...]:
        self.asked.append(url)
        self.servers.append(server)
        answer = self.answers.get(url)
        if answer is None:
            raise DownloadError("answered 404")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return (self.ca,)
        return answer


def run(test: Coroutine[object, object, None]) -> None:
    """Runs `test`, which must not leave an exception behind that nobody has looked at."""
    unseen: list[dict[str, object]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fact: unseen.append(fact))
        async with asyncio.timeout(20):
            await test
        gc.collect()

    asyncio.run(watched())
    assert unseen == []


def leaf(root: Issued, *urls: str) -> Certificate:
    return Certificate.from_der(root.issue(aia=urls).der)


def budget(downloads: int = 10, *, seconds: float = 20.0, server: Server = NOBODY) -> Budget:
    return Budget(time.monotonic() + seconds, downloads, server=server)


async def every_attempt(
    source: AiaSource, certificate: Certificate, limits: Budget | None = None
) -> list[Attempt]:
    asked = source.fetch_issuers(certificate, limits or budget())
    return [attempt async for attempt in asked]


def said(attempts: list[Attempt]) -> list[str]:
    return [str(attempt) for attempt in attempts]


async def settle() -> None:
    """Gives every task its turn, several times."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_urls_are_tried_in_their_order(root: Issued) -> None:
    """What they give is found, with the URL as its origin; the next is tried if asked for."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: (web.ca,), B: (web.ca,) * 4}

    async def test() -> None:
        attempts = source.fetch_issuers(leaf(root, A, B), budget())
        first = await anext(attempts)
        assert (str(first), web.asked) == ("http://a/ gave CN=Lab Root", [A])
        assert [(found.certificate, found.origin) for found in first.found] == [(web.ca, A)]
        second = await anext(attempts)
        assert second.outcome == "gave CN=Lab Root, CN=Lab Root, CN=Lab Root and 1 more"
        assert (len(second.found), web.asked) == (4, [A, B])
        assert [attempt async for attempt in attempts] == []

    run(test())


def test_three_certificates_are_all_named(root: Issued) -> None:
    """None of them is "1 more"."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: (web.ca,) * 3}

    async def test() -> None:
        (attempt,) = await every_attempt(source, leaf(root, A))
        assert attempt.outcome == "gave CN=Lab Root, CN=Lab Root, CN=Lab Root"

    run(test())


def test_next_url_at_once_when_one_fails(root: Issued) -> None:
    """A failure is an outcome, and costs no patience."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {B: (web.ca,)}

    async def test() -> None:
        attempts = await every_attempt(source, leaf(root, A, B))
        assert said(attempts) == ["http://a/ answered 404", "http://b/ gave CN=Lab Root"]

    run(test())


def test_next_url_beside_one_that_hangs(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that hangs goes on, and is still good when it answers at last."""
    web = Web(root)
    source = AiaSource(web)
    monkeypatch.setattr(aia, "PATIENCE", 0.001)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate, B: (web.ca,)}
        attempts = source.fetch_issuers(leaf(root, A, B), budget())
        assert (await anext(attempts)).where == B
        gate.set()
        assert (await anext(attempts)).where == A
        assert web.asked == [A, B]

    run(test())


def test_answer_at_the_last_moment(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very round of the event loop in which patience ends, it is not lost."""
    web = Web(root)
    source = AiaSource(web)
    monkeypatch.setattr(aia, "PATIENCE", 0.05)

    async def test() -> None:
        gate, loop = asyncio.Event(), asyncio.get_running_loop()
        web.answers = {A: gate}

        def busy() -> None:
            loop.call_soon(gate.set)
            time.sleep(0.1)  # until patience has ended

        loop.call_later(0.01, busy)
        attempts = await every_attempt(source, leaf(root, A, B), budget())
        assert [attempt.where for attempt in attempts if attempt.found] == [A]
        assert 0.1 <= attempts[0].seconds < 20

    run(test())


def test_no_next_url_while_one_may_yet_answer(
    root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one may yet answer, the second is left alone."""
    monkeypatch.setattr(aia, "PATIENCE", 20.0)
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate, B: (web.ca,)}
        attempts = source.fetch_issuers(leaf(root, A, B), budget())
        first = asyncio.ensure_future(anext(attempts))
        await settle()
        assert web.asked == [A]
        gate.set()
        assert (await first).where == A
        await attempts.aclose()
        assert web.asked == [A]

    run(test())


def test_many_askers_share_one_download(root: Issued) -> None:
    """Fifty connections at once are one request, and only the first one's budget pays."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate}
        limits = [budget(1), *(budget(0) for _ in range(49))]
        askers = [
            asyncio.ensure_future(every_attempt(source, leaf(root, A), each)) for each in limits
        ]
        await settle()
        gate.set()
        results = await asyncio.gather(*askers)
        assert [said(each) for each in results] == [["http://a/ gave CN=Lab Root"]] * 50
        assert web.asked == [A]
        assert {each.downloads for each in limits} == {0}

    run(test())


def test_one_asker_who_leaves_does_not_disturb_the_others(root: Issued) -> None:
    """The download goes on for those who stay."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate}
        leaves, stays = (
            asyncio.ensure_future(every_attempt(source, leaf(root, A))) for _ in range(2)
        )
        await settle()
        leaves.cancel()
        await settle()
        gate.set()
        assert said(await stays) == ["http://a/ gave CN=Lab Root"]
        assert (leaves.cancelled(), web.asked) == (True, [A])

    run(test())


def test_a_download_is_shared_while_somebody_needs_it(root: Issued) -> None:
    """It can be joined after it has ended, until its last completion is over; it is no cache."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: (web.ca,), B: (web.ca,)}

    async def test() -> None:
        certificate = leaf(root, A, B)
        one, other = budget(), budget(0)
        assert len(await every_attempt(source, certificate, one)) == 2
        assert (await every_attempt(source, certificate, other))[0].found
        del one
        assert (await every_attempt(source, certificate, budget(0)))[0].found
        assert web.asked == [A, B]
        del other
        assert await every_attempt(source, leaf(root, A), budget(0)) == []
        assert (await every_attempt(source, leaf(root, A)))[0].found
        assert web.asked == [A, B, A]

    run(test())
