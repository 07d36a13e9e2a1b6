"""What happened, as JSON for other programs and for whoever can mend the servers. Pure.

`report.schema.json` beside this file says what is in it. Keys may be added within a version.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from mitmproxy_aia import __version__
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.drawing import draw
from mitmproxy_aia.history import History, Record
from mitmproxy_aia.names import cut, printable
from mitmproxy_aia.remedies import full_chain
from mitmproxy_aia.times import iso

VERSION = 1
MAX_PLACE = 2_000
"""Characters of a URL."""
MAX_NAME = 2_000
"""Characters of a subject. A stranger's may have a hundred times as many, six bytes each."""

Json = dict[str, Any]


def report(history: History, now: datetime.datetime) -> Json:
    """All that is remembered, the server that was at fault last first."""
    return {
        "version": VERSION,
        "program": f"mitmproxy-aia {__version__}",
        "started": iso(history.started),
        "written": iso(now),
        "complete_handshakes": history.complete,
        "forgotten_servers": history.forgotten,
        "servers": [_server(record) for record in history.records()],
    }


def as_json(history: History, now: datetime.datetime) -> str:
    """The same as text. In ASCII: whatever is in a name, it is no control character."""
    return json.dumps(report(history, now), indent=2) + "\n"


def _server(record: Record) -> Json:
    places = {item.certificate: item for item in record.found}
    missing = [
        in_json(item.certificate) | {"found": printable(item.place, MAX_PLACE)}
        for item in record.found
    ]
    path = [
        in_json(each)
        | {
            "presented": each in record.presented,
            "origin": printable(places[each].origin, MAX_PLACE) if each in places else None,
        }
        for each in record.path
    ]
    chain = draw(record.presented, record.path, record.found).chain if record.path else ()
    return {
        "name": record.server,
        "verdict": record.verdict,
        "at_fault": record.at_fault,
        "handshakes": {
            "incomplete": record.incomplete,
            "broken": record.broken,
            "complete": record.complete,
        },
        "first": iso(record.first),
        "last": iso(record.last),
        "mended": iso(record.mended) if record.mended else None,
        "protocol": record.protocol,
        "refused": record.audit or not record.path,
        "reason": record.reason,
        "seconds": round(record.seconds, 4),
        "presented": [in_json(each) for each in record.presented],
        "presented_left_out": record.left_out,
        "missing": missing,
        "path": path,
        "full_chain": full_chain(chain),
    }


def in_json(certificate: Certificate) -> Json:
    """What other programs are told of it."""
    return {
        "sha256": certificate.fingerprint.hex(),
        "subject": cut(certificate.full_name, MAX_NAME),
        "issuer": cut(certificate.full_issuer, MAX_NAME),
        "not_before": iso(certificate.not_before),
        "not_after": iso(certificate.not_after),
    }
