"""Everything that the addon relies on, broken in every way, one at a time, in a running mitmdump.

Whatever breaks: a good chain is completed or refused, a bad one is refused, a complete one works,
nobody is kept waiting, nothing crashes and nothing is left behind.
"""

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority
from tests.lab.listener import Listener
from tests.lab.proxy import ADDON
from tests.test_download_faults import answer
from tests.test_end_to_end import wait_until

SCRIPT = Path(__file__).parent / "scripts" / "fault_switch.py"
NO_HANG = 10.0
"""Seconds in which a request must be answered; what hangs may cost aia_timeout and a second."""

RAISED = "RuntimeError", "MemoryError", "RecursionError", "CancelledError", "Panic"
RETURNED = "None", "an object"
HANG = ("hang",)
SYNC, ASYNC = (*RAISED, *RETURNED), (*RAISED, *RETURNED, *HANG)
# Of RuntimeError, MemoryError and RecursionError, one will do where nothing can tell them apart.
INNER = "MemoryError", "CancelledError", "Panic", "None"
FAULTS: dict[str, tuple[str, ...]] = {
    "completion at once": SYNC,
    "completion": (*RAISED, *RETURNED),
    "search": INNER,
    "verifier for a connection": INNER,
    "judge": INNER,
    "step": INNER,
    "presented": INNER,
    "curable": RAISED,
    "watch": INNER,
    "verified intermediates": INNER,
    "begin": INNER,
    "conclude": INNER[:3],
    "server": INNER,
    "complete": INNER[:3],
    "learn": INNER[:3],
    "sources": INNER,
    "memory": INNER,
    "memory, keeping": INNER[:3],
    "files": INNER,
    "cache": ASYNC,
    "cache, keeping": RAISED,
    "aia": ASYNC,
    "slots": INNER[:3],
    "download": ASYNC,
    "answer": ASYNC,
    "reading": SYNC,
    "transport": ASYNC,
    "names": (*ASYNC, "[]", "[1]", "[[1, 2]]", '[[2, 1, 6, "", ["no address", 0]]]'),
    "threads": INNER[:3],
    "layer": ("None",),
    "log": INNER[:3],
    "warning": INNER[:3],
    "clock": ("36500", "-36500", "1", "-1"),
    "cache file": ("gone", "junk", "empty", "a folder"),
    "TlsConfig is gone": ("",),
}


@dataclass
class Field:
    """A proxy that can be broken, and what can be asked of it."""

    proxy: Proxy
    ca: CaIssuersServer
    root: Issued
    stranger: Issued
    number: int = 0

    def order(self, what: str) -> object:
        with contextlib.closing(self._connect()) as client:
            request = (
                f"GET http://control.test/{quote(what)} HTTP/1.1\r\nHost: control.test\r\n\r\n"
            )
            client.sendall(request.encode())
            response = HTTPResponse(client)
            response.begin()
            assert response.status == 200, response.read().decode()
            return json.loads(response.read())

    def get(self, server: TlsServer) -> int:
        """The status of what a client of the proxy gets; 0 if it is no HTTP."""
        with contextlib.closing(self._connect()) as client:
            client.sendall(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n\r\n".encode())
            response = HTTPResponse(client)
            response.begin()
            if response.status != 200:
                return response.status
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            try:
                with context.wrap_socket(client) as tls:
                    tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    response = HTTPResponse(tls)
                    response.begin()
                    return response.status
            except (ssl.SSLError, HTTPException, ConnectionError):
                return 0

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.proxy.port), timeout=NO_HANG)

    def incomplete(self, root: Issued, host: str = "127.0.0.1") -> TlsServer:
        """A new server whose chain AIA can complete, up to `root`."""
        self.number += 1
        issuer = root.issue(f"Matrix {self.number}", ca=True)
        url = self.ca.serve(f"/{self.number}", issuer.der).replace("127.0.0.1", host)
        return TlsServer(issuer.issue(aia=[url]))

    def good(self, host: str = "127.0.0.1") -> int:
        with self.incomplete(self.root, host) as server:
            return self.get(server)

    def complete(self) -> int:
        """A complete chain that is new to the proxy."""
        self.number += 1
        issuer = self.root.issue(f"Complete {self.number}", ca=True)
        with TlsServer(issuer.issue(), issuer) as server:
            return self.get(server)

    def bad(self, host: str = "127.0.0.1") -> int:
        with self.incomplete(self.stranger, host) as server:
            status = self.get(server)
            assert server.requests == []
            assert server.handshakes == []
            return status

    def check(self, fault: str, *, host: str = "127.0.0.1", complete: bool = True) -> None:
        """All that is promised, while `fault` is there and afterwards."""
        start = len(self.proxy.log)
        self.order(fault)
        try:
            assert self.good(host) in (200, 502)
            assert self.bad(host) == 502
            assert self.complete() == (200 if complete else 502)
        finally:
            self.order("none")
        assert self.good() == 200
        wait_until(lambda: self.order("left") == [])
        log = self.proxy.log[start:]
        for crash in "has crashed", "never retrieved", "Task was destroyed", "Unhandled error":
            assert crash not in log, log


@pytest.fixture(scope="module")
def field(root: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    file = tmp_path_factory.mktemp("intermediates") / "another.pem"
    file.write_bytes(authority("Another").issue("CA", ca=True).pem)
    options = {"aia_timeout": "0.2", "aia_allow": "ca.fault.test", "aia_intermediates": str(file)}
    with (
        CaIssuersServer() as ca,
        Proxy(
            trust=[root],
            scripts=[SCRIPT],
            options=options,
            environment={"PYTHONPATH": str(ADDON.parent)},
        ) as proxy,
    ):
        field = Field(proxy, ca, root, authority("Stranger"))
        assert (field.good(), field.bad(), field.complete()) == (200, 502, 200)
        yield field


@pytest.mark.parametrize(
    ("seam", "kind"), [(seam, kind) for seam, kinds in FAULTS.items() for kind in kinds]
)
def test_fault(field: Field, seam: str, kind: str) -> None:
    """One thing the addon relies on fails in one way."""
    host = "ca.fault.test" if seam == "names" else "127.0.0.1"
    field.check(f"{seam}/{kind}", host=host)


@pytest.mark.parametrize(
    "value",
    ["/nonexistent/roots.pem", "/dev/null", "/", __file__],
    ids=["gone", "empty", "folder", "junk"],
)
def test_trust_file(field: Field, value: str) -> None:
    """Without roots nobody is verified: the stock 502, for complete chains as well."""
    option = f"option/ssl_verify_upstream_trusted_ca={value}"
    field.check(option, complete=False)


@pytest.mark.parametrize("kind", ["RuntimeError", "MemoryError", "RecursionError", "None"])
def test_tlsconfig(field: Field, kind: str) -> None:
    """mitmproxy's own addon fails: nobody is verified, and nobody is let through."""
    field.order(f"TlsConfig/{kind}")
    try:
        assert field.good() != 200
        assert field.bad() != 200
    finally:
        field.order("none")
    assert field.good() == 200


def hang(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


SERVICES = {
    "hangs": hang,
    "closes": lambda connection: None,
    "speaks SSH": answer(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "speaks TLS": answer(b"\x15\x03\x01\x00\x02\x02\x46"),
    "answers 200 without end": answer(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(65536)] * 10_000),
    "promises more than it has": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"),
}


@pytest.mark.parametrize("service", SERVICES)
def test_redis(field: Field, service: str) -> None:
    """Whatever is at the address of the Redis server."""
    listener = Listener(SERVICES[service])
    try:
        field.check(f"option/aia_cache=redis://127.0.0.1:{listener.port}/0")
    finally:
        listener.close()


@pytest.mark.parametrize("service", SERVICES)
def test_ca_issuers_server(field: Field, service: str) -> None:
    """Whatever is at the caIssuers URL, in good and in bad chains."""
    start = len(field.proxy.log)
    listener = Listener(SERVICES[service])
    try:
        for root in field.root, field.stranger:
            url = f"http://127.0.0.1:{listener.port}/{root.name}"
            with TlsServer(root.issue("CA", ca=True).issue(aia=[url])) as server:
                assert field.get(server) == 502
                assert server.requests == []
        assert listener.connections == 2
        assert field.good() == 200
    finally:
        listener.close()
    wait_until(lambda: field.order("left") == [])
    assert "has crashed" not in field.proxy.log[start:]
