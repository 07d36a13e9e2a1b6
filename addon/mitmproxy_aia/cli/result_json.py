"""Inspections as JSON, for other programs.

    {"version": 1,
     "results": [
       {"name": "www.example.com:443",         what was asked for, with its port; or a file
        "verdict": "incomplete",               complete, incomplete, broken or unreachable
        "problem": "",                         why it is unreachable, and what to do
        "reason": "",                          why it is broken, in OpenSSL's words
        "connection": {"address", "port", "tls", "name", "starttls", "note"},  or null
        "at": "2026-11-26T01:30:00Z",          the time of the verdict
        "faults": [{"code", "depth", "text"}], OpenSSL's, of the chain as it was sent
        "presented": [CERTIFICATE, ...],       what was sent, leaf first
        "path": [CERTIFICATE, ...],            the verified path, leaf to trust anchor, or empty
        "attempts": [{"where", "outcome", "seconds", "refused"}],   the downloads
        "notes": ["..."],                      which limits were met
        "seconds": 0.043,                      how long the completion took
        "full_chain": "-----BEGIN ..."}]}      PEM: what should be sent; empty if it is not known

A CERTIFICATE has "sha256", "subject", "issuer", "not_before", "not_after"; in "path" also
"presented" (true or false) and "origin" (where it was found, if it was not presented). Keys may
be added within a version. Where nothing was connected to, `at` is null and the lists are empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mitmproxy_aia.inspection.results import Inspection, Result
from mitmproxy_aia.remedies import full_chain
from mitmproxy_aia.report import in_json
from mitmproxy_aia.times import iso

VERSION = 1


def as_json(results: Sequence[Result]) -> str:
    """In ASCII: whatever is in a name, it is no control character."""
    return json.dumps({"version": VERSION, "results": [*map(_result, results)]}, indent=2)


def _result(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "verdict": result.verdict.name.lower(),
        "problem": result.problem,
        "connection": None if result.link is None else asdict(result.link),
        **_inspection(result.inspection),
    }


def _inspection(inspection: Inspection | None) -> dict[str, Any]:
    if inspection is None:
        lists: dict[str, Any] = {
            name: [] for name in ("faults", "presented", "path", "attempts", "notes")
        }
        return {"reason": "", "at": None, **lists, "seconds": 0.0, "full_chain": ""}
    outcome = inspection.outcome
    origins = {found.certificate: found.origin for found in inspection.found}
    return {
        "reason": inspection.reason,
        "at": iso(inspection.at),
        "faults": [asdict(fault) for fault in inspection.faults],
        "presented": [in_json(each) for each in inspection.presented],
        "path": [
            in_json(each) | {"presented": each in inspection.presented, "origin": origins.get(each)}
            for each in inspection.path
        ],
        "attempts": [
            {
                "where": attempt.where,
                "outcome": attempt.outcome,
                "seconds": round(attempt.seconds, 3),
                "refused": attempt.refused,
            }
            for attempt in (outcome.attempts if outcome else ())
        ],
        "notes": list(outcome.notes if outcome else ()),
        "seconds": round(outcome.seconds if outcome else 0.0, 3),
        "full_chain": full_chain(inspection.to_send),
    }
