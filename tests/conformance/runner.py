"""Runs cases: real handshakes through a mitmdump with the addon and through one without."""

import contextlib
import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.cases import Case, Elsewhere
from tests.conformance.pki import Pki
from tests.lab import CaIssuersServer, Proxy, Reply, TlsServer, authority, pem_bundle
from tests.lab.process import NO_COVERAGE

LOCAL_SOURCE = Path(__file__).parents[1] / "scripts" / "local_source.py"
AT_ONCE = 4
"""Cases. What is measured runs in two other processes, which have one thread each."""


@dataclass(frozen=True)
class Verdict:
    """What a proxy thinks of a server's certificates. `accepted` is None if it did not say."""

    accepted: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """The verdicts of mitmproxy without and with the addon."""

    case: Case
    stock: Verdict
    ours: Verdict


def run(cases: Sequence[Case]) -> list[Result]:
    """The results, in the order of the cases. Both proxies trust the trusted roots of all of
    them, which is the same as one proxy for each: no root is part of two cases."""
    pkis = [Pki.begin(case, number) for number, case in enumerate(cases)]
    trust = [root for pki in pkis for root in pki.trusted]
    trust.append(authority("nobody's"))  # With no root at all, mitmproxy takes certifi's.
    options: dict[str, str | int] = {"termlog_verbosity": "info", "flow_detail": 0}
    with contextlib.ExitStack() as stack:
        ca = stack.enter_context(CaIssuersServer())
        stock, ours = (
            stack.enter_context(
                Proxy(
                    trust=trust,
                    addon=addon,
                    options=options,
                    scripts=[LOCAL_SOURCE] if addon else [],
                    # Measuring coverage would double the time, and other tests do it.
                    environment=NO_COVERAGE,
                )
            )
            for addon in (False, True)
        )
        with TlsServer(authority("stranger").issue("warm-up")) as server:
            assert _verdict(ours, server).accepted is False
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda pki: _run(pki, ca, stock, ours), pkis))


def _run(pki: Pki, ca: CaIssuersServer, stock: Proxy, ours: Proxy) -> Result:
    case, issued = pki.case, pki.issue(ca)
    sent = [issued[edge] for edge in case.sent]
    if case.sends_roots:
        sent += pki.roots.values()
    if case.elsewhere is Elsewhere.LOCAL:
        body = pem_bundle(*(issued[edge] for edge in case.graph.intermediates))
        assert _request(ours, "POST", "http://control.test/", body)[0] == 200
    with TlsServer(issued[case.graph.leaf], *sent) as server:
        return Result(case, _verdict(stock, server), _verdict(ours, server))


def _verdict(proxy: Proxy, server: TlsServer) -> Verdict:
    before = len(server.requests)
    try:
        status, body = _request(proxy, "GET", server.url())
    except (OSError, http.client.HTTPException) as error:
        return Verdict(None, repr(error))
    arrived = len(server.requests) - before
    reason = Reply(status, body, {}, "1.1", 0.0).error_text
    if (status, body, arrived) == (200, server.body, 1):
        return Verdict(True)
    if status == 502 and reason.startswith("Certificate verify failed: ") and not arrived:
        return Verdict(False, reason)
    return Verdict(None, f"{status} {reason} after {arrived} requests")


def _request(proxy: Proxy, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """As a client that leaves TLS to its proxy: `GET https://... HTTP/1.1`, in the clear. It
    takes half the time of CONNECT, and the proxy does the same with the server."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, url, body)
        response = connection.getresponse()
        return response.status, response.read()
