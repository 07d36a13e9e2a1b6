"""A Redis that can be stopped and started again: the real redis-server, on loopback."""

import socket
import tempfile
from pathlib import Path
from typing import Self

from tests.lab.certificates import Issued
from tests.lab.process import Process, find_program


class RedisServer:
    """Keeps everything in memory: started again, it has the same port and is empty.

    With `certificate` it speaks TLS and nothing else.
    """

    def __init__(self, *, password: str = "", certificate: Issued | None = None) -> None:
        self._password = password
        self._scheme = "rediss" if certificate else "redis"
        self._folder = tempfile.TemporaryDirectory()
        self._program = find_program("redis-server")
        self.port = _free_port()
        self._options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if password:
            self._options += ["--requirepass", password]
        if certificate:
            self._options += self._tls(certificate)
        else:
            self._options += ["--port", str(self.port)]
        self._process: Process | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """With the password, if it has one."""
        return self.url_for(self._password)

    def url_for(self, password: str) -> str:
        user = f":{password}@" if password else ""
        return f"{self._scheme}://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, if it does not run. Returns when it answers."""
        if self._process is None:
            command = [self._program, "--dir", self._folder.name, *self._options]
            self._process = Process(command)
            self._process.wait_for("Ready to accept connections")

    def stop(self) -> None:
        """End it, and with it all that it kept. Its port then refuses connections."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def _tls(self, certificate: Issued) -> list[str]:
        folder = Path(self._folder.name)
        (folder / "certificate.pem").write_bytes(certificate.pem)
        (folder / "key.pem").write_bytes(certificate.key_pem)
        options = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        options += ["--tls-cert-file", str(folder / "certificate.pem")]
        return [*options, "--tls-key-file", str(folder / "key.pem")]


def _free_port() -> int:
    # redis-server takes over no socket of ours and reports no port of its choice. Linux hands
    # out a port that was just free rarely again, and a clash is an error that quotes the log.
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port
