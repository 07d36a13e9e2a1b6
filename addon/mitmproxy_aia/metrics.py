"""The numbers for Prometheus, as text. Takes the library prometheus_client (extra [metrics])."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mitmproxy_aia import __version__
from mitmproxy_aia.counters import DOWNLOADS, OUTCOMES, SOURCES, Counters, Histogram
from mitmproxy_aia.history import History

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

NOT_INSTALLED = (
    "metrics need the Python library prometheus_client in mitmproxy's environment: "
    "pip install prometheus_client"
)
_COMPLETIONS = [
    *((source, outcome) for source in SOURCES for outcome in OUTCOMES if outcome != "broken"),
    ("none", "broken"),
]
"""All that there may be: a series that only appears with its first event hides that event."""


class Metrics:
    """`remembered` gives the number of intermediates in memory."""

    def __init__(self, counters: Counters, history: History, remembered: Callable[[], int]) -> None:
        self._counters = counters
        self._history = history
        self._remembered = remembered

    def prometheus_text(self) -> bytes:
        """In the format that Prometheus reads; see `content_type`. May be called in another
        thread. Raises ImportError with one sentence if the library is not there."""
        try:
            from prometheus_client import CollectorRegistry, generate_latest
        except ImportError as error:
            raise ImportError(NOT_INSTALLED) from error
        # One of its own, with nothing in it but what is ours.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    @property
    def content_type(self) -> str:
        """Of `prometheus_text`. Raises ImportError with one sentence."""
        try:
            from prometheus_client import CONTENT_TYPE_LATEST
        except ImportError as error:
            raise ImportError(NOT_INSTALLED) from error
        return str(CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks its collectors."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        counters, prefix = self._counters, "mitmproxy_aia"
        yield InfoMetricFamily(prefix, "The addon mitmproxy-aia.", {"version": __version__})
        completions = CounterMetricFamily(
            f"{prefix}_completions",
            "Handshakes with incomplete or broken certificate chains, by the dearest issuer "
            "source that it took and by what came of it.",
            labels=["source", "outcome"],
        )
        for labels in _COMPLETIONS:
            completions.add_metric(labels, counters.completions[labels])
        yield completions
        yield CounterMetricFamily(
            f"{prefix}_complete_handshakes",
            "Handshakes with certificate chains that were complete.",
            self._history.complete,
        )
        hits = CounterMetricFamily(
            f"{prefix}_cache_hits",
            "Missing intermediates that were remembered or in a file, by where.",
            labels=["cache"],
        )
        for source in SOURCES[1:-1]:
            hits.add_metric([source], counters.hits[source])
        yield hits
        downloads = CounterMetricFamily(
            f"{prefix}_downloads",
            "Requests to caIssuers URLs, by what came of them.",
            labels=["outcome"],
        )
        for outcome in DOWNLOADS:
            downloads.add_metric([outcome.replace(" ", "_")], counters.downloads[outcome])
        yield downloads
        yield _family(
            f"{prefix}_pause_seconds", "How long handshakes were paused.", counters.pauses
        )
        yield _family(f"{prefix}_download_seconds", "How long downloads took.", counters.transfers)
        servers = GaugeMetricFamily(
            f"{prefix}_servers",
            "Servers that were seen with an incomplete or broken chain, by what the last one was.",
            labels=["verdict"],
        )
        verdicts = Counter(record.verdict for record in self._history.records())
        for verdict in ("incomplete", "broken", "complete"):
            servers.add_metric([verdict], verdicts[verdict])
        yield servers
        yield GaugeMetricFamily(
            f"{prefix}_remembered_intermediates",
            "Intermediates in memory.",
            self._remembered(),
        )


def _family(name: str, what: str, histogram: Histogram) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    buckets, sofar = list[tuple[str, float]](), 0
    bounds = [*map(str, histogram.bounds), "+Inf"]
    for bound, number in zip(bounds, histogram.numbers, strict=True):
        sofar += number
        buckets.append((bound, sofar))
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=histogram.total)
