"""The verdict on a presented chain, with and without completion, as the proxy would have it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.egress import NOBODY, Server
from mitmproxy_aia.errors import curable
from mitmproxy_aia.inspection.results import NO_ANCHOR, Inspection
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import Path
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.verification import Verifier


@dataclass(frozen=True)
class Exhibit:
    """A chain, and what OpenSSL made of it by itself: all `faults`, or none, and the path that it
    has `built`, good or not. `verifier` asks what OpenSSL was asked."""

    presented: tuple[Certificate, ...]
    faults: tuple[Fault, ...]
    built: Path
    verifier: Verifier


async def judge(
    exhibit: Exhibit,
    sources: Sequence[IssuerSource],
    limits: Limits,
    server: Server = NOBODY,
    at: datetime.datetime | None = None,
) -> Inspection:
    """Completes the chain, if that could help. `server` decides where downloads may go; `at` is
    the time of the verdict if that is not now."""
    presented, faults = exhibit.presented, exhibit.faults
    when = at or datetime.datetime.now(datetime.UTC)
    if not faults:
        return Inspection(presented, faults, when, path=exhibit.built)
    if not all(curable(fault.code, fault.depth) for fault in faults):
        # As in the proxy: no other path could cure it, so nothing is downloaded.
        whole = not any(fault.code in NO_ANCHOR for fault in faults)
        return Inspection(presented, faults, when, refused=exhibit.built if whole else ())
    completion = Completion(presented, exhibit.verifier, sources, limits, lambda: server)
    outcome = completion.complete_at_once()
    if not outcome.verified:
        outcome = await completion.complete()
    return Inspection(presented, faults, when, outcome, outcome.path)
