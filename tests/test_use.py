"""The ways to use mitmproxy: its front ends, replaying, and as a part of another program."""

import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import World
from tests.flows.record import HOST, PATHS
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority, curl, trust_file
from tests.lab.process import Process
from tests.lab.proxy import ADDON
from tests.lab.terminal import Screen
from tests.test_end_to_end import wait_until as wait_for_long

SCRIPTS = Path(__file__).parent / "scripts"
NEIGHBOUR = SCRIPTS / "neighbour.py"
FLOWS = sorted((Path(__file__).parent / "flows").glob("*.mitm"))
COMPLETED = "sent an incomplete chain; found"


def wait_until(condition: Callable[[], bool]) -> None:
    """A front end may take its time to start."""
    wait_for_long(condition, timeout=30)


@dataclass
class Recorded:
    """The server that was recorded, as it is now: its chain is incomplete."""

    server: TlsServer
    ca: CaIssuersServer
    gate: threading.Event = field(default_factory=threading.Event)

    def replaying(self, trust: Issued, flows: Path, concurrency: int) -> Proxy:
        """mitmdump with these flows, which ends by itself, if they are replayed one at a time:
        it would not wait for those that are replayed all at once."""
        return Proxy(
            *("--no-server", "-C", str(flows)),
            trust=[trust],
            scripts=[NEIGHBOUR],
            options={
                "neighbour": f"redirects:{self.server.port}",
                "aia_cache": "memory",
                "client_replay_concurrency": concurrency,
                "keepserving": str(concurrency == -1).lower(),
            },
            listen=False,
        )


@pytest.fixture
def recorded(root: Issued) -> Iterator[Recorded]:
    issuer, gate = root.issue("Recorded Intermediate", ca=True), threading.Event()
    with CaIssuersServer() as ca:
        url = ca.serve("/intermediate.der", issuer.der, gate=gate)
        with TlsServer(issuer.issue(hosts=[HOST], aia=[url]), alpn=("h2", "http/1.1")) as server:
            yield Recorded(server, ca, gate)
        gate.set()


def test_flows_of_both_versions() -> None:
    """The flow files are of mitmproxy 11 and 12."""
    assert [file.stem for file in FLOWS] == ["mitmproxy-11", "mitmproxy-12"]


@pytest.mark.parametrize("concurrency", [1, -1])
@pytest.mark.parametrize("flows", FLOWS, ids=lambda file: file.stem)
def test_client_replay(recorded: Recorded, root: Issued, flows: Path, concurrency: int) -> None:
    """`mitmdump -nC` of what any version has recorded, one at a time or all at once, in which
    case all handshakes wait for one download."""
    with recorded.replaying(root, flows, concurrency) as proxy:
        wait_until(lambda: recorded.server.connections == (1 if concurrency == 1 else len(PATHS)))
        wait_until(lambda: recorded.ca.downloads["/intermediate.der"] == 1)
        assert recorded.server.requests == []
        recorded.gate.set()
        wait_until(lambda: len(recorded.server.requests) == len(PATHS))
        if concurrency == 1:
            assert proxy.wait(30) == 0
    assert sorted(recorded.server.requests) == sorted(PATHS)
    if concurrency == 1:
        assert recorded.server.requests == PATHS
    assert {handshake.alpn for handshake in recorded.server.handshakes} == {"h2", "http/1.1"}
    assert recorded.ca.downloads["/intermediate.der"] == 1
    assert proxy.log.count(COMPLETED) == len(PATHS)
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("concurrency", [1, -1])
def test_client_replay_of_a_broken_server(recorded: Recorded, concurrency: int) -> None:
    """It hears of no request, and the replay goes on to its end."""
    recorded.gate.set()
    with recorded.replaying(authority("Other"), FLOWS[0], concurrency) as proxy:
        wait_until(lambda: proxy.log.count("could not be completed") == len(PATHS))
        if concurrency == 1:
            assert proxy.wait(30) == 0
    assert recorded.server.requests == []
    assert recorded.server.connections == len(PATHS)
    assert proxy.log.count("could not be completed") == len(PATHS)


@pytest.mark.parametrize("flows", FLOWS, ids=lambda file: file.stem)
def test_server_replay(recorded: Recorded, root: Issued, flows: Path) -> None:
    """`mitmdump -S`: answers come from the file. With connection_strategy=lazy there is no server,
    and nothing to complete; an eager connection is completed as always."""
    recorded.gate.set()
    for strategy in "lazy", "eager":
        with Proxy(
            "-S",
            str(flows),
            trust=[root],
            scripts=[NEIGHBOUR],
            options={
                "neighbour": f"redirects:{recorded.server.port}",
                "connection_strategy": strategy,
                # An eager connection lends its address to the request.
                "server_replay_ignore_port": "true",
                "server_replay_reuse": "true",
            },
        ) as proxy:
            for path in PATHS[:2]:
                reply = curl(f"https://{HOST}{path}", proxy=proxy)
                assert (reply.status, reply.body) == (200, b"as recorded")
        if strategy == "lazy":
            assert recorded.server.connections == 0
            assert recorded.ca.requests == []
            assert "chain" not in proxy.log
    assert recorded.server.requests == []
    assert len(recorded.server.handshakes) == 2


class Web:
    """mitmweb's interface, for programs."""

    # Whoever can send this as a cookie may also send it as a header.
    TOKEN = "00" * 16

    def __init__(self, proxy: Proxy) -> None:
        self._url, self._password = proxy.wait_for(
            r"Web server listening at (http://\S+?/)(\?token=\w+)?$"
        ).groups(default="")

    def get(self, path: str) -> Any:
        return json.loads(self._request("GET", path))

    def post(self, path: str) -> None:
        self._request("POST", path)

    def _request(self, method: str, path: str) -> bytes:
        headers = {
            "X-XSRFToken": self.TOKEN,
            "Cookie": f"_xsrf={self.TOKEN}; _mitmproxy_xsrf={self.TOKEN}",
        }
        url = f"{self._url}{path}{self._password}"
        request = urllib.request.Request(url, headers=headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=15) as reply:
            body: bytes = reply.read()
        return body


def test_mitmweb(world: World, root: Issued) -> None:
    """A flow is completed, shown, and completed again when it is replayed from the page."""
    issuer = world.authority()
    with (
        TlsServer(issuer.issue(aia=[world.published(issuer)])) as server,
        Proxy(
            "--no-web-open-browser",
            trust=[root],
            program="mitmweb",
            options={"web_port": unused_port()},
        ) as proxy,
    ):
        web = Web(proxy)
        assert curl(server.url("/visited"), proxy=proxy).status == 200
        (flow,) = web.get("flows.json")
        assert flow["response"]["status_code"] == 200
        start = len(proxy.log)
        web.post(f"flows/{flow['id']}/replay")
        proxy.wait_for(COMPLETED, after=start)
        wait_until(lambda: server.requests == ["/visited"] * 2)
        wait_until(lambda: bool((web.get("flows.json")[0]["response"] or {}).get("status_code")))
        (flow,) = web.get("flows.json")
        assert flow["response"]["status_code"] == 200


def unused_port() -> int:
    """mitmweb does not tell which port it has got if it is asked for any."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


def test_console(world: World, root: Issued, tmp_path: Path) -> None:
    """The same in a terminal: a request is completed, shown, and with `r` it is made again."""
    issuer = world.authority()
    roots = trust_file(tmp_path / "roots.pem", root)
    command: list[str | Path] = [Path(sys.executable).parent / "mitmproxy", "-s", ADDON]
    command += ["--listen-host", "127.0.0.1", "--listen-port", "0"]
    for setting in f"confdir={tmp_path}", f"ssl_verify_upstream_trusted_ca={roots}":
        command += ["--set", setting]
    with (
        TlsServer(issuer.issue(aia=[world.published(issuer)])) as server,
        Screen(command) as screen,
    ):
        port = screen.wait_for(r"\[127\.0\.0\.1:(\d+)\]", 30)[1]
        reply = curl(server.url("/visited"), "--insecure", "--proxy", f"http://127.0.0.1:{port}")
        assert (reply.status, reply.error_text) == (200, "")
        screen.wait_for("/visited")
        screen.type("r")
        wait_until(lambda: server.requests == ["/visited"] * 2)


def test_embedded(world: World, root: Issued, tmp_path: Path) -> None:
    """`master.addons.add(Aia())` in somebody's program is all that it takes."""
    issuer = world.authority()
    roots = trust_file(tmp_path / "roots.pem", root)
    environment = {"PYTHONPATH": str(ADDON.parent), "PYTHONUNBUFFERED": "1"}
    command: list[str | Path] = [sys.executable, SCRIPTS / "embedding.py", roots]
    with (
        Process(command, environment=environment) as program,
        TlsServer(issuer.issue(aia=[world.published(issuer)])) as server,
    ):
        port = program.wait_for(r"listening at 127\.0\.0\.1:(\d+)")[1]
        reply = curl(server.url(), "--insecure", "--proxy", f"http://127.0.0.1:{port}")
        assert (reply.status, reply.error_text) == (200, "")
