"""Flows say what their server's certificate chain was like: `flow.metadata["aia"]` and a comment.

A TLS hook knows no flow yet, and many flows may share one connection. So what came of a
handshake is remembered by its connection, and the flows ask for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from mitmproxy import connection, dns, flow, http, tcp, udp

from mitmproxy_aia.history import Record
from mitmproxy_aia.names import printable

KEY = "aia"
"""In `flow.metadata`."""
CONNECTIONS = 2_000
"""Connections that are remembered, the last used. A flow that begins when its connection is
forgotten is not annotated."""
MAX_LISTED = 8
"""Certificates in a list: a flow is kept a thousand times, and a path may be long."""
MAX_REASON = 600
"""Characters."""
REFUSED = "Certificate verify failed"
"""How mitmproxy's words for a server that was refused begin."""

Annotation = dict[str, Any]


def annotation_of(record: Record) -> Annotation:
    """What flows are told. It holds nothing but what a flow file can hold.

    `server` is its address as in the log, `verdict` "incomplete" or "broken". `missing` are the
    intermediates that the server did not send, each with its `subject`, its `sha256` in
    hexadecimal and where it was found (`found`, words that follow the subject: "at http://...");
    `path` are the subjects from the leaf to the trust anchor. Both are empty if it is broken,
    and then `reason` says why. `seconds` is how long the handshake was paused. `refused` says
    whether the connection failed by that.
    """
    return {
        "verdict": record.at_fault,
        "server": record.server,
        "missing": [
            {
                "subject": item.certificate.name,
                "sha256": item.certificate.fingerprint.hex(),
                "found": printable(item.place, MAX_REASON),
            }
            for item in record.found[:MAX_LISTED]
        ],
        "path": [certificate.name for certificate in record.path[: MAX_LISTED + 2]],
        "reason": printable(record.reason, MAX_REASON),
        "seconds": round(record.seconds, 4),
        "refused": record.audit or not record.path,
    }


def comment_of(annotation: Annotation) -> str:
    """The same in a sentence or two."""
    if annotation["verdict"] == "broken":
        return f"AIA: the certificate chain could not be completed: {annotation['reason']}"
    missing = ", ".join(f'"{each["subject"]}" {each["found"]}' for each in annotation["missing"])
    what = f"found {missing}" if missing else "a path was found in what it sent"
    audit = ". It was refused all the same (aia_mode=audit)" if annotation["refused"] else ""
    return f"AIA: the server sent an incomplete certificate chain; {what}{audit}"


class Annotations:
    """What the addon does in hooks with flows. `wanted` says whether flows are to be annotated
    now."""

    HOOKS = (
        *("response", "error", "tcp_start", "tcp_end", "tcp_error"),
        *("udp_start", "udp_end", "udp_error", "dns_response", "dns_error"),
    )
    """Besides `request`, in which others have to do something as well."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._remembered: OrderedDict[Hashable, Annotation] = OrderedDict()

    def remember(
        self, client: connection.Client, server: connection.Server, record: Record
    ) -> None:
        """Has the flows of this connection annotated from now on."""
        if not self._wanted():
            return
        # The record has all that the server presented, and the history has its own bounds.
        annotation = annotation_of(record)
        self._put(server.id, annotation)
        if annotation["refused"] and server.address:
            # A flow never gets the connection that mitmproxy made for it and that failed.
            self._put((_who(client), *server.address[:2]), annotation)

    def _put(self, key: Hashable, annotation: Annotation) -> None:
        self._remembered[key] = annotation
        self._remembered.move_to_end(key)
        if len(self._remembered) > CONNECTIONS:
            self._remembered.popitem(last=False)

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.is_replay == "request":
            _forget(flow)
        self._annotate(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        self._annotate(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        self._annotate(flow, (flow.request.host, flow.request.port))

    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        self._annotate(flow)

    def tcp_end(self, flow: tcp.TCPFlow) -> None:
        self._annotate(flow)

    def tcp_error(self, flow: tcp.TCPFlow) -> None:
        self._annotate(flow)

    def udp_start(self, flow: udp.UDPFlow) -> None:
        self._annotate(flow)

    def udp_end(self, flow: udp.UDPFlow) -> None:
        self._annotate(flow)

    def udp_error(self, flow: udp.UDPFlow) -> None:
        self._annotate(flow)

    def dns_response(self, flow: dns.DNSFlow) -> None:
        self._annotate(flow)

    def dns_error(self, flow: dns.DNSFlow) -> None:
        self._annotate(flow)

    def _annotate(self, flow: flow.Flow, asked_for: tuple[str, int] | None = None) -> None:
        if not self._remembered:
            return
        annotation = self._remembered.get(flow.server_conn.id)
        if annotation is not None:
            self._remembered.move_to_end(flow.server_conn.id)
        elif asked_for and flow.error and REFUSED in flow.error.msg:
            annotation = self._remembered.get((_who(flow.client_conn), *asked_for))
        if annotation is None or not self._wanted() or flow.metadata.get(KEY) == annotation:
            return
        _forget(flow)
        # One of its own: what a script does to one flow is not to be seen in others.
        flow.metadata[KEY] = _copy(annotation)
        if not flow.comment:
            flow.comment = comment_of(annotation)


def _copy(annotation: Annotation) -> Annotation:
    missing = [dict(each) for each in annotation["missing"]]
    return {**annotation, "missing": missing, "path": [*annotation["path"]]}


def _who(client: connection.Client) -> Hashable:
    """Not its id: a flow that is replayed has a copy of its client with another one."""
    return client.peername, client.timestamp_start


def _forget(flow: flow.Flow) -> None:
    """What an earlier connection has said of the flow. A comment of the user's stays."""
    old = flow.metadata.pop(KEY, None)
    if isinstance(old, dict) and flow.comment == _comment_or_none(old):
        flow.comment = ""


def _comment_or_none(annotation: Annotation) -> str | None:
    try:
        return comment_of(annotation)
    except (KeyError, TypeError):  # from a flow file that somebody has changed
        return None
