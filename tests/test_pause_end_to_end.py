"""What happens during the pause of a TLS handshake over TCP. QUIC and DTLS have theirs in
test_quic_end_to_end and test_dtls_end_to_end."""

import contextlib
import resource
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import World
from tests.lab import CurlError, Issued, Proxy, TlsServer, curl
from tests.lab.listener import Listener
from tests.lab.tls_server import TlsVersion
from tests.test_end_to_end import wait_until
from tests.test_quic_end_to_end import CRASH

MIB = 2**20

pytestmark = pytest.mark.parametrize("tls", ["1.2", "1.3"])


def incomplete(world: World, path: str, gate: threading.Event) -> Issued:
    """The leaf of a chain whose intermediate is at `path`, once `gate` is open."""
    issuer = world.authority()
    return issuer.issue(aia=[world.ca.serve(path, issuer.der, gate=gate)])


def test_server_closes(world: World, tls: TlsVersion) -> None:
    """The verdict comes first: it is a good server that has closed after the handshake. What was
    downloaded is there for the next connection."""
    path, gate = world.path(), threading.Event()
    leaf = incomplete(world, path, gate)
    start = len(world.proxy.log)
    with ThreadPoolExecutor() as pool:
        server = TlsServer(leaf, tls=tls)
        reply = pool.submit(world.get, server.url())
        wait_until(lambda: world.ca.downloads[path] == 1)
        server.close()
        gate.set()
        assert reply.result().status == 502
    assert server.handshakes == []
    assert "Certificate verify failed" not in world.proxy.log[start:]
    with TlsServer(leaf, tls=tls) as again:
        assert world.get(again.url()).status == 200
    assert world.ca.downloads[path] == 1
    for crash in CRASH:
        assert crash not in world.proxy.log[start:]


def test_server_that_is_refused_closes(world: World, tls: TlsVersion) -> None:
    """It stays refused, with the reason."""
    path, gate = world.path(), threading.Event()
    leaf = world.authority().issue(aia=[world.ca.serve(path, b"junk", gate=gate)])
    with ThreadPoolExecutor() as pool:
        server = TlsServer(leaf, tls=tls)
        reply = pool.submit(world.get, server.url())
        wait_until(lambda: world.ca.downloads[path] == 1)
        server.close()
        gate.set()
        assert reply.result().status == 502
        assert "unable to get local issuer certificate (AIA: " in reply.result().error_text


class Flooding:
    """Passes on what a client and the server at `port` say to each other; and says more of its
    own to the client, `size` bytes, as soon as `begin` is set. `done` is set after that."""

    def __init__(self, port: int, size: int) -> None:
        self._target = port
        self._size = size
        self.begin, self.done = threading.Event(), threading.Event()
        self._listener = Listener(self._converse)
        self.port = self._listener.port

    def __enter__(self) -> "Flooding":
        return self

    def __exit__(self, *_: object) -> None:
        self.begin.set()
        self._listener.close()

    def _converse(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            server.sendall(client.recv(65536))
            server.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    client.sendall(server.recv(65536))
            self.begin.wait()
            record = b"\x17\x03\x03\x40\x00" + bytes(16384)
            for _ in range(self._size // len(record)):
                client.sendall(record)
            self.done.set()
            client.recv(65536)


def memory(pid: int) -> int:
    """Bytes of it that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_server_floods(world: World, root: Issued, tls: TlsVersion) -> None:
    """It fills no memory, and is refused; others are served."""
    path, gate = world.path(), threading.Event()
    with (
        TlsServer(incomplete(world, path, gate), tls=tls) as server,
        TlsServer(root.issue()) as other,
        Flooding(server.port, 64 * MIB) as flooding,
        ThreadPoolExecutor() as pool,
    ):
        reply = pool.submit(world.get, f"https://127.0.0.1:{flooding.port}/")
        wait_until(lambda: world.ca.downloads[path] == 1)
        before = memory(world.proxy.process.pid)
        flooding.begin.set()
        assert world.get(other.url()).status == 200
        assert flooding.done.wait(20)
        assert memory(world.proxy.process.pid) - before < 32 * MIB
        gate.set()
        assert reply.result().status == 502
        assert "the server sent more than 1 MiB" in reply.result().error_text
        assert server.handshakes == []


def test_client_goes_away(world: World, tls: TlsVersion) -> None:
    """The download still ends, and what it brought is kept."""
    path, gate = world.path(), threading.Event()
    start = len(world.proxy.log)
    with TlsServer(incomplete(world, path, gate), tls=tls) as server:
        client = subprocess.Popen(
            ["curl", "-s", "--proxy", world.proxy.url, "-k", server.url()],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: world.ca.downloads[path] == 1)
        client.kill()
        client.wait()
        gate.set()
        world.proxy.wait_for("sent an incomplete chain; found", after=start)
        assert world.get(server.url()).status == 200
    assert world.ca.downloads[path] == 1
    for crash in CRASH:
        assert crash not in world.proxy.log[start:]


def test_proxy_is_shut_down(world: World, root: Issued, tls: TlsVersion) -> None:
    """At once, without a word of tasks that were left behind, and the server has got nothing."""
    path, gate = world.path(), threading.Event()
    with (
        TlsServer(incomplete(world, path, gate), tls=tls) as server,
        Proxy(trust=[root], options={"aia_timeout": 60}) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        reply = pool.submit(curl, server.url(), proxy=proxy)
        wait_until(lambda: world.ca.downloads[path] == 1)
        proxy.process.stop()
        assert proxy.wait() == 0
        with pytest.raises(CurlError):
            reply.result()
        # Python 3.11 shows a traceback of mitmproxy's own, also without the addon.
        for crash in {*CRASH, "mitmproxy_aia"} - {"Traceback"}:
            assert crash not in proxy.log
        assert server.handshakes == []
