"""What flows say of their server's certificate chain: real proxies, flow files read back."""

import datetime
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import flow, flowfilter, io
from mitmproxy.test import tflow

from mitmproxy_aia import flow_annotations
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.flow_annotations import Annotations, annotation_of, comment_of
from mitmproxy_aia.history import History, Record
from mitmproxy_aia.sources import Found
from tests.conftest import World
from tests.lab import CaIssuersServer, CurlError, Issued, Proxy, TlsServer, authority
from tests.test_history import broken, incomplete

MISSING = "unable to get local issuer certificate"


@pytest.fixture
def saving(root: Issued, tmp_path: Path) -> Iterator[World]:
    """A proxy that writes each flow to `flow_file` as soon as it has ended."""
    options: dict[str, str | int | float] = {
        "save_stream_file": str(tmp_path / "flows.mitm"),
        "aia_timeout": 2,
    }
    with CaIssuersServer() as ca, Proxy(trust=[root], options=options) as proxy:
        yield World(root, ca, proxy)


def saved(folder: Path, chosen_by: str = "~all") -> list[Any]:
    """The flows in the folder's file that the filter fits."""
    with (folder / "flows.mitm").open("rb") as file:
        return [each for each in io.FlowReader(file).stream() if flowfilter.match(chosen_by, each)]


def read_back(folder: Path, chosen_by: str) -> None:
    """Has another mitmdump read the folder's flows, and keep what the filter fits."""
    command: list[str | Path] = [Path(sys.executable).parent / "mitmdump", "-q", "-n"]
    command += ["--set", f"confdir={folder}", "-r", folder / "flows.mitm"]
    subprocess.run([*command, "-w", folder / "new.mitm", chosen_by], check=True, timeout=60)
    (folder / "new.mitm").replace(folder / "flows.mitm")


def test_a_completed_flow(saving: World, tmp_path: Path) -> None:
    """Which certificate was missing and where it is, in a flow file that ~meta searches."""
    issuer = saving.authority()
    url = saving.published(issuer)
    with TlsServer(issuer.issue(aia=[url])) as server, TlsServer(saving.root.issue()) as complete:
        assert saving.get(server.url("/one")).status == 200
        assert saving.get(complete.url("/two")).status == 200
    saving.proxy.close()
    found, other = saved(tmp_path)
    assert "aia" not in other.metadata
    assert other.comment == ""
    note = found.metadata["aia"]
    assert json.loads(json.dumps(note)) == note
    seconds = note.pop("seconds")
    assert 0 < seconds < 2
    name = Certificate.from_der(issuer.der).name
    fingerprint = Certificate.from_der(issuer.der).fingerprint.hex()
    assert note == {
        "verdict": "incomplete",
        "server": f"127.0.0.1:{server.port}",
        "missing": [{"subject": name, "sha256": fingerprint, "found": f"at {url}"}],
        "path": ["CN=Lab Leaf", name, "CN=Lab Root"],
        "reason": "",
        "refused": False,
    }
    assert found.comment == (
        f'AIA: the server sent an incomplete certificate chain; found "{name}" at {url}'
    )
    assert found.marked == ""
    read_back(tmp_path, "~meta aia & ~comment incomplete")
    (again,) = saved(tmp_path)
    assert (again.metadata["aia"], again.comment) == (note | {"seconds": seconds}, found.comment)


@pytest.mark.parametrize("strategy", ["eager", "lazy"])
def test_a_refused_flow(root: Issued, tmp_path: Path, strategy: str) -> None:
    """The 502 says why as well, whether the connection was there before the request or not."""
    options = {"save_stream_file": str(tmp_path / "flows.mitm"), "connection_strategy": strategy}
    with (
        Proxy(trust=[root], options=options) as proxy,
        CaIssuersServer() as ca,
        TlsServer(authority("Stranger").issue(aia=[ca.url("/404.der")])) as server,
    ):
        world = World(root, ca, proxy)
        assert world.get(server.url()).status == 502
        proxy.close()
    (refused,) = saved(tmp_path, "~meta verdict.*broken")
    note = refused.metadata["aia"]
    assert (note["verdict"], note["missing"], note["path"]) == ("broken", [], [])
    assert note["refused"]
    assert MISSING in note["reason"]
    assert "/404.der answered 404" in note["reason"]
    assert refused.comment == (
        f"AIA: the certificate chain could not be completed: {note['reason']}"
    )
    assert refused.error.msg.endswith(note["reason"])


def test_another_failure_of_the_same_server(saving: World, tmp_path: Path) -> None:
    """A server that is gone has no chain."""
    with TlsServer(authority("Stranger").issue()) as server:
        assert saving.get(server.url()).status == 502
        url = server.url()
    with pytest.raises(CurlError, match="CONNECT tunnel failed, response 502"):
        saving.get(url)
    saving.proxy.close()
    refused, *others = saved(tmp_path)
    assert "aia" in refused.metadata
    assert not [other for other in others if "aia" in other.metadata]


def test_audit(root: Issued, tmp_path: Path) -> None:
    """What would have been done, and that it was not."""
    options = {"save_stream_file": str(tmp_path / "flows.mitm"), "aia_mode": "audit"}
    with CaIssuersServer() as ca, Proxy(trust=[root], options=options) as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert world.get(server.url()).status == 502
        proxy.close()
    (refused,) = saved(tmp_path, "~meta aia")
    note = refused.metadata["aia"]
    assert (note["verdict"], note["refused"], len(note["missing"])) == ("incomplete", True, 1)
    assert refused.comment.endswith("It was refused all the same (aia_mode=audit)")


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_every_flow_of_a_connection(saving: World, tmp_path: Path, version: str) -> None:
    """One handshake, several requests: all of them say it."""
    issuer = saving.authority()
    leaf = issuer.issue(aia=[saving.published(issuer)])
    with TlsServer(leaf, alpn=["h2"] if version == "2" else ["http/1.1"]) as server:
        urls = [server.url(f"/{number}") for number in range(3)]
        options = ["--disable", "--silent", "--fail", f"--http{version}", "--proxy"]
        command = ["curl", *options, saving.proxy.url, "--cacert", str(saving.proxy.ca_file)]
        subprocess.run([*command, *urls], check=True, timeout=30, capture_output=True)
        assert server.connections == 1
    saving.proxy.close()
    flows = saved(tmp_path, "~meta aia")
    assert [each.request.path for each in flows] == ["/0", "/1", "/2"]


def test_replayed_flows(root: Issued, tmp_path: Path) -> None:
    """`mitmdump -nC`: a flow says what the server is like now, not when it was recorded."""
    record, replay = tmp_path / "record", tmp_path / "replay"
    record.mkdir()
    replay.mkdir()
    stranger = authority("Stranger")
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"save_stream_file": str(record / "flows.mitm")}) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        incomplete = TlsServer(issuer.issue(aia=[world.published(issuer)]))
        refused = TlsServer(stranger.issue())
        assert world.get(incomplete.url("/incomplete")).status == 200
        assert world.get(refused.url("/refused")).status == 502
        proxy.close()
    assert [each.metadata["aia"]["verdict"] for each in saved(record)] == ["incomplete", "broken"]
    # Now it is another root that is trusted: what was refused is complete, and the other way.
    options = {"save_stream_file": str(replay / "flows.mitm")}
    with (
        incomplete,
        refused,
        Proxy(
            "-n",
            "-C",
            str(record / "flows.mitm"),
            trust=[stranger],
            options=options,
            listen=False,
        ) as player,
    ):
        player.wait()
    notes = {each.request.path: each for each in saved(replay)}
    assert notes["/incomplete"].metadata["aia"]["verdict"] == "broken"
    assert notes["/incomplete"].comment.startswith("AIA: the certificate chain could not be")
    assert "aia" not in notes["/refused"].metadata
    assert notes["/refused"].comment == ""


def test_not_wanted(root: Issued, tmp_path: Path) -> None:
    """aia_annotate=false leaves flows as they are."""
    options = {"save_stream_file": str(tmp_path / "flows.mitm"), "aia_annotate": "false"}
    with CaIssuersServer() as ca, Proxy(trust=[root], options=options) as proxy:
        world = World(root, ca, proxy)
        issuer = world.authority()
        with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
            assert world.get(server.url()).status == 200
        proxy.close()
    (plain,) = saved(tmp_path)
    assert (plain.metadata.get("aia"), plain.comment) == (None, "")


def record(**changes: Any) -> Record:
    return History().note("a.example:443", changes.pop("outcome", incomplete()), **changes)


def remembering(each: flow.Flow, what: Record) -> Annotations:
    part = Annotations(lambda: True)
    part.remember(each.client_conn, each.server_conn, what)
    return part


def test_of_a_connection_that_never_was_the_flows() -> None:
    """With lazy connections mitmproxy tells only by the error why there is none: a refused chain
    is one reason, a closed port another."""
    for message, annotated in {
        f"Certificate verify failed: {MISSING}": True,
        "[Errno 111] Connect call failed": False,
    }.items():
        each = tflow.tflow(err=True)
        each.error = flow.Error(message)
        server = each.server_conn.copy()
        server.address = (each.request.host, each.request.port)
        part = Annotations(lambda: True)
        part.remember(each.client_conn, server, record(outcome=broken()))
        part.error(each)
        assert ("aia" in each.metadata) == annotated


def test_a_comment_of_the_users() -> None:
    """It stays, and so does a mark; the metadata is there all the same."""
    each = tflow.tflow(resp=True)
    each.comment, each.marked = "mine", ":grapes:"
    remembering(each, record()).response(each)
    assert (each.comment, each.marked) == ("mine", ":grapes:")
    assert each.metadata["aia"]["verdict"] == "incomplete"


def test_a_comment_that_the_user_took_away() -> None:
    """It does not come back with the response."""
    each = tflow.tflow(resp=True)
    part = remembering(each, record())
    part.request(each)
    assert each.comment
    each.comment = ""
    part.response(each)
    assert each.comment == ""


def test_flows_share_nothing() -> None:
    """What a script does to the annotation of one flow is not seen in the next."""
    one, other = tflow.tflow(), tflow.tflow()
    other.server_conn = one.server_conn
    part = remembering(one, record())
    part.request(one)
    one.metadata["aia"]["path"].clear()
    one.metadata["aia"]["missing"][0].clear()
    part.request(other)
    assert other.metadata["aia"]["path"]
    assert other.metadata["aia"]["missing"][0]


def test_certificates_are_not_kept() -> None:
    """A server may present a megabyte of them with each connection."""
    each = tflow.tflow()
    seen = record(outcome=broken())
    presented = weakref.ref(seen.presented[0])
    part = remembering(each, seen)
    del seen
    gc.collect()
    assert presented() is None
    part.response(each)
    assert each.metadata["aia"]["verdict"] == "broken"


@pytest.mark.parametrize(
    ("kind", "hooks"),
    [
        (tflow.ttcpflow, ["tcp_start", "tcp_end", "tcp_error"]),
        (tflow.tudpflow, ["udp_start", "udp_end", "udp_error"]),
        (tflow.tdnsflow, ["dns_response", "dns_error"]),
    ],
)
def test_other_flows(kind: Any, hooks: list[str]) -> None:
    """TCP, UDP and DNS flows over TLS are annotated, too, at the first chance."""
    for hook in hooks:
        each = kind()
        part = remembering(each, record(outcome=broken()))
        getattr(part, hook)(each)
        assert each.metadata["aia"]["verdict"] == "broken"
        state = each.get_state()
        assert flow.Flow.from_state(state).metadata == each.metadata


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections that were used last."""
    monkeypatch.setattr(flow_annotations, "CONNECTIONS", 2)
    flows = [tflow.tflow() for _ in range(3)]
    part = Annotations(lambda: True)
    for each in flows:
        part.remember(each.client_conn, each.server_conn, record())
    for each in flows:
        part.request(each)
    assert ["aia" in each.metadata for each in flows] == [False, True, True]


def test_a_connection_in_use_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others there have been since its handshake."""
    monkeypatch.setattr(flow_annotations, "CONNECTIONS", 2)
    first, *others = (tflow.tflow() for _ in range(4))
    part = remembering(first, record())
    for each in others:
        part.remember(each.client_conn, each.server_conn, record())
        again = first.copy()
        again.server_conn = first.server_conn
        part.request(again)
        assert "aia" in again.metadata


def test_what_a_stranger_says_is_bounded_and_printable() -> None:
    """A flow is kept a thousand times, and shown in a terminal."""
    bad = authority("<script>alert(1)</script>\x1b[31m" + "x" * 30)
    issuer = Certificate.from_der(bad.der)
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    found = (Found(issuer, "http://a/\x07" + "y" * 10_000),) * 50
    note = annotation_of(Record("a:443", "incomplete", now, now, found=found, path=(issuer,) * 32))
    assert len(note["missing"]) == 8
    assert len(note["path"]) == 10
    assert comment_of(note).isprintable()
    assert len(json.dumps(note)) < 12_000


def test_a_flow_file_that_somebody_has_changed() -> None:
    """Whatever stands in place of the annotation is replaced when the flow is replayed."""
    for odd in {"verdict": "incomplete"}, "text", {"verdict": "broken"}, None:
        each = tflow.tflow()
        each.metadata["aia"] = odd
        each.comment = "mine"
        each.is_replay = "request"
        part = remembering(each, record())
        part.request(each)
        assert each.metadata["aia"]["server"] == "a.example:443"
        assert each.comment == "mine"
