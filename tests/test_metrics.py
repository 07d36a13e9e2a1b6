"""Counters, and what Prometheus reads of them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mitmproxy_aia import metrics
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.counters import BOUNDS, Counters, Histogram, source_of
from mitmproxy_aia.egress import NOBODY, Refusal, Server
from mitmproxy_aia.history import History
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.download_errors import DownloadError, NotTried, Refused
from tests.test_history import ISSUER, LEAF, ROOT, broken, certificates, incomplete

ISSUERS = certificates(ISSUER, ROOT)
FROM_AIA = Found(ISSUERS[0], "http://ca.example/")
FROM_MEMORY = Found(ISSUERS[0], "http://ca.example/", cache="memory")
FROM_SQLITE = Found(ISSUERS[0], "http://ca.example/", cache="aia.sqlite3")
FROM_REDIS = Found(ISSUERS[0], "http://ca.example/", cache="Redis")
FROM_FILE = Found(ISSUERS[0], "some.pem", at_hand=True)


def outcome(*found: Found, seconds: float = 0.2) -> Outcome:
    return Outcome(path=certificates(LEAF, ISSUER, ROOT), found=found, seconds=seconds)


def test_source_of_a_certificate() -> None:
    """The caches are called by what they are, whatever their files are called."""
    found = [FROM_MEMORY, FROM_FILE, FROM_SQLITE, FROM_REDIS, FROM_AIA]
    assert [source_of(each) for each in found] == ["memory", "files", "sqlite", "redis", "aia"]


def test_completions() -> None:
    """Counted by the dearest source that was needed."""
    counters = Counters()
    counters.note(outcome(FROM_MEMORY, FROM_AIA))
    counters.note(outcome(FROM_SQLITE, FROM_MEMORY))
    counters.note(outcome())
    counters.note(outcome(FROM_MEMORY), audit=True)
    counters.note(broken())
    counters.note(broken(), audit=True)
    assert counters.completions == {
        ("aia", "completed"): 1,
        ("sqlite", "completed"): 1,
        ("presented", "completed"): 1,
        ("memory", "audited"): 1,
        ("none", "broken"): 2,
    }
    assert counters.hits == {"memory": 3, "sqlite": 1}
    assert counters.pauses.count == 6


def test_histogram() -> None:
    """A bound belongs to what is below it (Prometheus: le)."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.add(value)
    assert histogram.numbers == [2, 2, 2]
    assert (histogram.count, histogram.total) == (6, 107.5)


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        (None, "ok"),
        (DownloadError("answered 404"), "failed"),
        (Refused(Refusal("is private")), "refused"),
        (NotTried("was not tried"), "not tried"),
        (asyncio.CancelledError(), "given up"),
        (RuntimeError("odd"), "failed"),
    ],
)
def test_downloads(raised: BaseException | None, name: str) -> None:
    """Each is counted once, and its result or error is passed on."""
    counters = Counters()

    async def download(url: str, server: Server) -> tuple[Certificate, ...]:
        assert (url, server) == ("http://ca.example/", NOBODY)
        if raised is not None:
            raise raised
        return ISSUERS

    async def main() -> None:
        counted = counters.counted(download)
        if raised is None:
            assert await counted("http://ca.example/", NOBODY) == ISSUERS
            return
        with pytest.raises(type(raised)) as caught:
            await counted("http://ca.example/", NOBODY)
        assert caught.value is raised

    asyncio.run(main())
    assert counters.downloads == {name: 1}
    assert counters.transfers.count == (name in ("ok", "failed"))


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Prometheus' own parser says what is in it."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_prometheus_text() -> None:
    """All numbers, those that are still zero included, and nothing else's."""
    counters, history = Counters(), History()
    told = Metrics(counters, history, lambda: 7)
    empty = samples(told.prometheus_text())
    assert empty["mitmproxy_aia_completions_total", "aia", "completed"] == 0
    assert all(name.startswith("mitmproxy_aia_") for name, *_ in empty)
    for each in outcome(FROM_MEMORY, FROM_AIA, seconds=0.3), broken(), outcome(seconds=30.0):
        counters.note(each)
    history.note("a.example:443", incomplete())
    history.note("b.example:443", broken())
    history.note_complete("a.example:443")
    counters.downloads["not tried"] += 2
    full = samples(told.prometheus_text())
    assert full["mitmproxy_aia_completions_total", "aia", "completed"] == 1
    assert full["mitmproxy_aia_completions_total", "broken", "none"] == 1
    assert full["mitmproxy_aia_cache_hits_total", "memory"] == 1
    assert full["mitmproxy_aia_downloads_total", "not_tried"] == 2
    assert full["mitmproxy_aia_complete_handshakes_total",] == 1
    assert full["mitmproxy_aia_servers", "complete"] == 1
    assert full["mitmproxy_aia_servers", "broken"] == 1
    assert full["mitmproxy_aia_remembered_intermediates",] == 7
    assert full["mitmproxy_aia_pause_seconds_count",] == 3
    assert full["mitmproxy_aia_pause_seconds_sum",] == pytest.approx(30.3)
    assert full["mitmproxy_aia_pause_seconds_bucket", "0.25"] == 1
    assert full["mitmproxy_aia_pause_seconds_bucket", "0.5"] == 2
    assert full["mitmproxy_aia_pause_seconds_bucket", "10.0"] == 2
    assert full["mitmproxy_aia_pause_seconds_bucket", "+Inf"] == 3
    # As many series as before: no label says what a stranger has said.
    assert full.keys() == empty.keys()
    assert b"example" not in told.prometheus_text()
    assert told.content_type.startswith("text/plain")


def test_buckets_are_in_order() -> None:
    """Prometheus takes no others."""
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_without_the_library() -> None:
    """The addon loads and counts; who asks for the text is told what to install."""
    code = f"""
import sys
sys.modules["prometheus_client"] = None
from mitmproxy_aia import Aia
from mitmproxy_aia.metrics import Metrics
from mitmproxy_aia.counters import Counters
from mitmproxy_aia.history import History
Aia()
metrics = Metrics(Counters(), History(), int)
for ask in metrics.prometheus_text, lambda: metrics.content_type:
    try:
        ask()
    except ImportError as error:
        assert str(error) == {metrics.NOT_INSTALLED!r}, error
    else:
        raise AssertionError
"""
    folder = Path(__file__).resolve().parents[1] / "addon"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=folder)
