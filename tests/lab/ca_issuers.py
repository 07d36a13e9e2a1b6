"""A caIssuers server: the web server on which an authority publishes its certificates."""

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage, parse_headers, responses
from typing import BinaryIO, Self
from urllib.parse import urlsplit

from tests.lab.listener import Listener

_MOST_PATIENCE = 30.0


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `target` is a whole URL when we were used as a proxy."""

    method: str
    target: str
    path: str
    headers: HTTPMessage
    time: float


@dataclass(frozen=True)
class Answer:
    """What a path answers. A body of several chunks is sent as they come, without a length."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    content_type: str = "application/pkix-cert"
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    delay: float = 0.0
    hang: bool = False


class CaIssuersServer:
    """Serves issuers over plain HTTP at `host`, well or badly, and counts the downloads.

    URLs exist before their bodies do, because a certificate names the URL of its issuer:

        with CaIssuersServer() as server:
            leaf = intermediate.issue(aia=[server.url("/intermediate.cer")])
            server.serve("/intermediate.cer", intermediate.der)
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, Answer] = {}
        self._listener = Listener(self._converse, host, port)
        self.host, self.port = host, self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End at once, whoever still hangs or waits for a gate."""
        self._listener.close()

    @property
    def downloads(self) -> Counter[str]:
        """How often each path was requested."""
        return Counter(request.path for request in self.requests)

    @property
    def connections(self) -> int:
        return self._listener.connections

    def url(self, path: str, *, host: str = "") -> str:
        return f"http://{host or self.host}:{self.port}{path}"

    def serve(
        self,
        path: str,
        body: bytes | Iterable[bytes],
        *,
        status: int = 200,
        content_type: str = "application/pkix-cert",
        headers: Mapping[str, str] | None = None,
        gate: threading.Event | None = None,
        delay: float = 0.0,
    ) -> str:
        """Answer `path` with `body` from now on; the answer waits for `gate` and `delay`."""
        answer = Answer(body, status, content_type, headers or {}, gate, delay)
        return self._answer(path, answer)

    def hang(self, path: str) -> str:
        """Read the request and never answer it."""
        return self._answer(path, Answer(hang=True))

    def junk(self, path: str) -> str:
        """Answer with what is no certificate in any format."""
        return self.serve(path, b"<html>404 but with status 200</html>")

    def redirect(self, path: str, to: str, *, status: int = 302) -> str:
        """Send the client to the URL `to`."""
        return self._answer(path, Answer(status=status, headers={"Location": to}))

    def drip(self, path: str, body: bytes, *, pause: float = 0.05) -> str:
        """Send `body` one byte at a time."""
        return self._answer(path, Answer(_Dripping(body, pause)))

    def flood(self, path: str, start: bytes = b"") -> str:
        """Send `start` and then zeros until the client has had enough."""
        return self._answer(path, Answer(_Flood(start)))

    def _answer(self, path: str, answer: Answer) -> str:
        self._answers[path] = answer
        return self.url(path)

    def _converse(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while request := _read_request(reader):
                self.requests.append(request)
                answer = self._answers.get(request.path, Answer(status=404))
                if answer.hang:
                    reader.read()
                    return
                if not self._wait(answer):
                    return
                _send(connection, answer)
                if not isinstance(answer.body, bytes):
                    return

    def _wait(self, answer: Answer) -> bool:
        """Until the answer is due. False: the server was closed meanwhile."""
        closing = self._listener.closing
        if answer.gate:
            limit = time.monotonic() + _MOST_PATIENCE
            while not answer.gate.wait(0.02):
                if closing.is_set() or time.monotonic() > limit:
                    return False
        return not closing.wait(answer.delay)


@dataclass(frozen=True)
class _Dripping:
    """Yields the bytes of `body` one at a time, as often as it is asked to."""

    body: bytes
    pause: float

    def __iter__(self) -> Iterator[bytes]:
        for byte in self.body:
            yield bytes([byte])
            # The slowness is what is served.
            time.sleep(self.pause)


@dataclass(frozen=True)
class _Flood:
    start: bytes

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain([self.start], itertools.repeat(bytes(4096)))


def _read_request(reader: BinaryIO) -> Request | None:
    words = reader.readline().decode("latin-1").split()
    if len(words) != 3:
        return None
    method, target, _version = words
    url = urlsplit(target)
    path = f"{url.path}?{url.query}" if url.query else url.path
    return Request(method, target, path, parse_headers(reader), time.monotonic())


def _send(connection: socket.socket, answer: Answer) -> None:
    headers = {"Content-Type": answer.content_type}
    if isinstance(answer.body, bytes):
        headers["Content-Length"] = str(len(answer.body))
    else:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in (headers | dict(answer.headers)).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body:
        connection.sendall(chunk)
