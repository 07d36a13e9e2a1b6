"""The page's addon within this process: what is hard to bring about in a running mitmdump."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from mitmproxy.test import taddons, tflow, tutils

from mitmproxy_aia import Aia
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.page import answers, cache_view
from mitmproxy_aia.page.cache_view import CacheView
from mitmproxy_aia.page.site import Answer
from mitmproxy_aia.sources.caches import MEMORY_ONLY
from mitmproxy_aia.tiers import Tiers


def ask(target: str) -> tuple[int, str]:
    """Status and body of the addon's answer to a request for the page."""

    async def main() -> tuple[int, str]:
        aia = Aia()
        with taddons.context(aia) as context:
            context.configure(aia, aia_cache="memory")
            page = aia._page
            request = tutils.treq(host="mitm.aia", path=target.encode())
            flow = tflow.tflow(req=request)
            await page.answer(flow)
            assert flow.response
            return flow.response.status_code, flow.response.text or ""

    return asyncio.run(main())


def test_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for news is told after a while that there are none."""
    monkeypatch.setattr(answers, "NEWS_AFTER", 0.01)
    status, revision = ask("/changes")
    assert status == 200
    began, _, number = revision.partition("-")
    assert began.isdigit()
    assert number == "0"
    monkeypatch.setattr(answers.Answers, "_revision", property(lambda page: revision))
    assert ask(f"/changes?after={revision}") == (200, revision)


def test_error_is_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours is a 500 with no detail, and is in the log; nobody else is asked."""

    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(answers, "respond", broken)
    status, text = ask("/")
    assert (status, "secret" in text) == (500, False)
    assert "the page cannot be shown" in caplog.text


def test_one_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks often does not take all the threads, in which mitmproxy looks names up."""
    drawing = threading.Semaphore(1)

    def respond(*_: object) -> Answer:
        assert drawing.acquire(blocking=False)
        time.sleep(0.01)  # others would begin now
        drawing.release()
        return Answer(b"drawn")

    async def main() -> list[int]:
        aia = Aia()
        with taddons.context(aia) as context:
            context.configure(aia, aia_cache="memory")
            page = aia._page
            flows = [tflow.tflow(req=tutils.treq(host="mitm.aia")) for _ in range(8)]
            await asyncio.gather(*map(page.answer, flows))
            return [flow.response.status_code for flow in flows if flow.response]

    monkeypatch.setattr(answers, "respond", respond)
    assert asyncio.run(main()) == [200] * 8


class StuckTiers(Tiers):
    """Whose cache answers only when `released`."""

    def __init__(self) -> None:
        super().__init__(lambda: 1.0)
        self.released = threading.Event()
        self.asked = 0

    def cached(self) -> Iterator[Entry]:
        self.asked += 1
        self.released.wait(15)
        yield from ()


def test_cache_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and a cache that does not answer is not asked once more."""
    monkeypatch.setattr(cache_view, "PATIENCE", 0.01)
    tiers = StuckTiers()

    async def main() -> None:
        view = CacheView(tiers)
        for _ in range(3):
            listing = await view.look(MEMORY_ONLY)
            assert "takes too long" in listing.problem
        assert tiers.asked == 1
        tiers.released.set()
        monkeypatch.setattr(cache_view, "PATIENCE", 15.0)
        assert (await view.look(MEMORY_ONLY)).problem == ""

    asyncio.run(main())
