"""What the user changes while a handshake is paused. A bad server is refused whatever it is, and
nobody waits for ever."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority
from tests.lab.proxy import ADDON
from tests.lab.quic import QuicServer, http3_get
from tests.test_addon import REMOTE_CONTROL, order
from tests.test_end_to_end import wait_until
from tests.test_neighbours import reload
from tests.test_quic_end_to_end import CRASH

AT_HTTP3 = "127.0.0.2"


@dataclass(kw_only=True)
class Field(World):
    """`proxy` has the addon from `script`, and `quic` behind it at `quic_port`."""

    script: Path
    quic: QuicServer
    quic_port: int

    def pause(self, root: Issued, protocol: str, meanwhile: Callable[[], object]) -> int:
        """The status of the answer for a server below `root`, with `meanwhile` in its pause."""
        path, gate = self.path(), threading.Event()
        issuer = root.issue(f"CA {path}", ca=True)
        leaf = issuer.issue(aia=[self.ca.serve(path, issuer.der, gate=gate)])
        self.quic.present(leaf)
        with TlsServer(leaf) as server, ThreadPoolExecutor() as pool:
            try:
                if protocol == "TLS":
                    reply = pool.submit(self.get, server.url())
                else:
                    trust = self.proxy.ca_file
                    reply = pool.submit(http3_get, self.quic_port, trust=trust, at=AT_HTTP3)
                wait_until(lambda: self.ca.downloads[path] == 1)
                meanwhile()
            finally:
                gate.set()
            status = reply.result().status
            if status != 200:
                assert (server.requests, server.handshakes) == ([], [])
                assert (self.quic.requests, self.quic.handshakes) == ([], 0)
            return status


@pytest.fixture(scope="module")
def field(root: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    script = Path(shutil.copy(ADDON, tmp_path_factory.mktemp("script") / "aia.py"))
    with (
        CaIssuersServer() as ca,
        QuicServer(root.issue()) as quic,
        Proxy(
            *("--mode", f"reverse:http3://127.0.0.1:{quic.port}@{AT_HTTP3}:0"),
            trust=[root],
            addon=False,
            scripts=[REMOTE_CONTROL, script],
            options={"aia_cache": "memory"},
            environment={"PYTHONPATH": str(ADDON.parent)},
        ) as proxy,
    ):
        port = int(proxy.wait_for(rf"listening at {AT_HTTP3}:(\d+)")[1])
        yield Field(root=root, ca=ca, proxy=proxy, script=script, quic=quic, quic_port=port)
        for crash in CRASH:
            assert crash not in proxy.log


OPTIONS = {
    "aia_mode": ("complete", "off", "audit", "frozen"),
    "ssl_insecure": ("false", "true"),
    "aia_cache": ("memory", "off"),
}


@pytest.mark.parametrize("protocol", ["TLS", "QUIC"])
@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in OPTIONS.items() for value in values[1:]],
)
def test_option(field: Field, protocol: str, option: str, value: str) -> None:
    """It counts from the next connection on."""
    for root, status in (field.root, 200), (authority("Stranger"), 502):
        try:
            assert status == field.pause(root, protocol, lambda: order(field, f"{option}={value}"))
        finally:
            assert order(field, f"{option}={OPTIONS[option][0]}").status == 200


@pytest.mark.parametrize("protocol", ["TLS", "QUIC"])
def test_reload(field: Field, protocol: str) -> None:
    """The addon that was to decide is gone, so that the verdict is no; the new one decides on the
    next connection."""
    for root in field.root, authority("Stranger"):
        assert field.pause(root, protocol, lambda: reload(field.proxy, field.script)) == 502
    assert field.pause(field.root, protocol, lambda: None) == 200
