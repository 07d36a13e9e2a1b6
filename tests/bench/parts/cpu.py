"""CPU of one completion that needs no network, by where the intermediate is known."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from OpenSSL import SSL, crypto

from mitmproxy_aia import strengths
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.history import utc_now
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.sources import Found, IssuerSource
from mitmproxy_aia.sources.files import FilesSource
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from mitmproxy_aia.verification import Verifier
from tests.bench.measuring import in_turns
from tests.bench.plan import Plan
from tests.bench.report import Row
from tests.lab import Issued, authority, trust_file

PART = "cpu"
# A collection of garbage in the middle must not look like a search that takes long.
_LIMITS = Limits(slice=1.0)


def measure(plan: Plan) -> Iterator[Row]:
    for key in "ec256", "rsa2048":
        with tempfile.TemporaryDirectory() as name:
            root = authority("Root", key=key)
            issuer = root.issue("Intermediate", ca=True, key=key)
            leaf = issuer.issue(key=key)
            for what, source in _sources(issuer, Path(name)):
                for again in [False, True] if what == "memory" else [False]:
                    chain = root, issuer, leaf
                    yield _compare(plan, key, what, source, chain, Path(name), again=again)


def _sources(issuer: Issued, folder: Path) -> Iterator[tuple[str, IssuerSource]]:
    memory = MemorySource()
    memory.keep([Found(Certificate(issuer.der), "http://ca.test/issuer.der")])
    yield "memory", memory
    (folder / "issuer.pem").write_bytes(issuer.pem)
    yield "files", FilesSource([folder / "issuer.pem"])
    file, now = folder / "cache.sqlite3", utc_now()
    with contextlib.closing(SqliteCache(file)) as cache:
        cache.add([Entry(Certificate(issuer.der), "http://ca.test/issuer.der", now, now)])
    sqlite = SqliteSource(file)
    try:
        yield "SQLite", sqlite
    finally:
        sqlite.close()


def _compare(
    plan: Plan,
    key: str,
    what: str,
    source: IssuerSource,
    chain: tuple[Issued, Issued, Issued],
    folder: Path,
    *,
    again: bool,
) -> Row:
    """`again`: libssl has verified the same chain before."""
    root, issuer, leaf = chain
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(trust_file(folder / "root.pem", root)))
    store, ders = context.get_cert_store(), [leaf.der, issuer.der]
    assert store
    # There is one already when a chain is found to be incomplete.
    connection = SSL.Connection(context)

    def complete() -> None:
        if not again:
            strengths.forget()
        verifier = Verifier.for_connection(connection, "")
        presented = [Certificate.from_der(ders[0])]
        # As the handshake has found.
        verifier.has_nothing_above(presented[0])
        outcome = Completion(presented, verifier, [source], _LIMITS).complete_at_once()
        assert outcome.verified, outcome.reason

    def verify() -> None:
        # As they come from the server: OpenSSL parses them, too.
        read = [crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in ders]
        crypto.X509StoreContext(store, read[0], read[1:]).verify_certificate()

    turns = in_turns(
        plan.turns, lambda: _cpu(complete, plan.requests), lambda: _cpu(verify, plan.requests)
    )
    return Row(
        PART,
        f"CPU of a completion from {what}{', not the first' if again else ''} ({key})",
        "OpenSSL's verification of the full chain, read from DER",
        "us",
        *turns.compare(statistics.median),
        aim=3,
    )


def _cpu(work: Callable[[], None], number: int) -> Sequence[float]:
    """Microseconds of CPU time that each of `number` calls takes, in this thread and others."""
    figures = []
    for _ in range(number):
        started = time.process_time_ns()
        work()
        figures.append((time.process_time_ns() - started) / 1000)
    return figures
