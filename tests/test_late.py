"""What is imported only when it is needed: the start does not wait for it, nor the event loop."""

import asyncio
import os
import re
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest

from mitmproxy_aia import preparation
from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.egress import NOBODY
from mitmproxy_aia.preparation import Preparation
from mitmproxy_aia.sources import late
from mitmproxy_aia.sources.download_errors import DownloadError, NotTried
from mitmproxy_aia.sources.late import LateDownloader, download_incompatibility
from tests.lab import CaIssuersServer, Issued, Proxy
from tests.test_compatibility import Patch
from tests.test_download import HERE, PATIENT

SCRIPT = Path(__file__).parent / "scripts" / "imported.py"


def test_start() -> None:
    """A proxy that listens has imported none of it, and soon after what downloads need."""
    with Proxy(scripts=[SCRIPT]) as proxy:
        said = proxy.wait_for(r"imported at the start: (.*)")
        assert said[1].strip() == "[]"
        proxy.wait_for("imported for downloads")
        assert "rror" not in proxy.log


def test_end_before_all_is_imported() -> None:
    """A proxy that ends meanwhile ends as any other."""
    for after in ("imported at the start", "imported for downloads"):
        with Proxy(scripts=[SCRIPT]) as proxy:
            proxy.wait_for(after)
            os.kill(proxy.process.pid, signal.SIGTERM)
            assert proxy.wait() == 0
            assert "rror" not in proxy.log
            assert "Traceback" not in proxy.log


def broken() -> None:
    raise AttributeError("module 'httpx' has no attribute 'ReadError'")


def test_changed_httpx(monkeypatch: Patch) -> None:
    """If it cannot be imported, nothing is downloaded, and each attempt says why."""
    monkeypatch.setattr(late, "_import", broken)
    line = download_incompatibility() or ""
    assert f"cannot work with httpx {httpx.__version__}: fails: AttributeError" in line

    async def why_not() -> str:
        download = LateDownloader(lambda: PATIENT)
        with pytest.raises(NotTried) as error:
            await download("http://127.0.0.1/", HERE)
        return str(error.value)

    assert asyncio.run(why_not()) == f"was not tried ({line})"


def test_httpx_that_is_not_there(monkeypatch: Patch) -> None:
    """That is seen at the start already."""
    monkeypatch.delitem(sys.modules, "httpx")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    line = incompatibility() or ""
    assert re.match(
        r"mitmproxy-aia \S+ needs httpx in mitmproxy's environment: pip install httpx ", line
    )


def test_compatible() -> None:
    """Nothing is lacking in what the tests run with, however often it is looked at."""
    assert [download_incompatibility() for _ in range(3)] == [None] * 3


def test_many_at_once(root: Issued, monkeypatch: Patch) -> None:
    """They all wait for one import, which is not in the event loop's thread."""
    threads = []

    def counted() -> str | None:
        threads.append(threading.current_thread())
        return download_incompatibility()

    monkeypatch.setattr(late, "download_incompatibility", counted)

    async def main(url: str) -> None:
        download = LateDownloader(lambda: PATIENT)
        for _ in range(2):
            found = await asyncio.gather(*(download(url, HERE) for _ in range(5)))
            assert {each.der for got in found for each in got} == {root.der}
        with pytest.raises(DownloadError):
            await download(url, NOBODY)

    with CaIssuersServer() as ca:
        asyncio.run(main(ca.serve("/root.cer", root.der)))
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize("flaw", [None, "httpx has changed"])
def test_prepared(flaw: str | None, monkeypatch: Patch, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong is said once, without being asked."""
    monkeypatch.setattr(preparation, "SOON", 0)
    done = threading.Event()

    def looked() -> str | None:
        done.set()
        return flaw

    monkeypatch.setattr(preparation, "download_incompatibility", looked)

    async def main() -> None:
        prepared = Preparation()
        prepared.begin()
        assert await asyncio.to_thread(done.wait, PATIENT)
        await asyncio.sleep(0.05)
        prepared.end()

    asyncio.run(main())
    said = [(each.levelname, each.getMessage()) for each in caplog.records if "httpx" in each.msg]
    assert said == ([("ERROR", f"{flaw}; until then nothing is downloaded")] if flaw else [])


def test_end_of_a_preparation(monkeypatch: Patch) -> None:
    """It may come before anything has been done, before any beginning, and after the loop."""
    monkeypatch.setattr(preparation, "download_incompatibility", broken)

    async def main(*, end: bool) -> Preparation:
        prepared = Preparation()
        prepared.begin()
        await asyncio.sleep(0)
        if end:
            prepared.end()
        return prepared

    for end in (True, False):
        asyncio.run(main(end=end)).end()
    Preparation().end()
