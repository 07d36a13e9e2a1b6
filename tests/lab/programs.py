"""TLS servers that nobody here wrote: OpenSSL's s_server and nginx."""

import contextlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bundles import pem_bundle
from tests.lab.certificates import Issued
from tests.lab.process import Process, find_program

_NGINX_LINES = """
ssl_certificate /etc/nginx/chain.pem;
ssl_certificate_key /etc/nginx/key.pem;
"""
_NGINX_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        {lines}
        location / {{ return 200 "hello from nginx"; }}
    }}
}}
"""


@dataclass(frozen=True)
class RunningServer:
    """A server program on a loopback port."""

    process: Process
    port: int

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"


@contextlib.contextmanager
def openssl_s_server(leaf: Issued, *presented: Issued) -> Iterator[RunningServer]:
    """`openssl s_server -www`, presenting these certificates. It serves one client at a time."""
    program = find_program("openssl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [program, "s_server", "-www", "-accept", "127.0.0.1:0"]
        command += ["-cert", _write(folder / "leaf.pem", leaf.pem)]
        command += ["-key", _write(folder / "key.pem", leaf.key_pem)]
        if presented:
            command += ["-cert_chain", _write(folder / "chain.pem", pem_bundle(*presented))]
        # Without these it completes its own chain from the roots of the machine.
        command += ["-no-CAfile", "-no-CApath", "-no-CAstore"]
        with Process(command) as process:
            port = process.wait_for(r"ACCEPT 127\.0\.0\.1:(\d+)")[1]
            yield RunningServer(process, int(port))


def nginx(leaf: Issued, *presented: Issued) -> contextlib.AbstractContextManager[RunningServer]:
    """nginx with HTTP/1.1 and HTTP/2, presenting these certificates."""
    files = {"chain.pem": pem_bundle(leaf, *presented), "key.pem": leaf.key_pem}
    return nginx_with(_NGINX_LINES, files)


@contextlib.contextmanager
def nginx_with(lines: str, files: Mapping[str, bytes]) -> Iterator[RunningServer]:
    """nginx with these lines in its configuration, and these files as its /etc/nginx."""
    program = find_program("nginx")
    with tempfile.TemporaryDirectory() as name, _bound_socket() as listening:
        folder, port = Path(name), listening.getsockname()[1]
        for file, content in files.items():
            _write(folder / file, content)
        lines = lines.replace("/etc/nginx/", f"{folder}/")
        text = _NGINX_CONFIGURATION.format(folder=folder, port=port, lines=lines)
        configuration = _write(folder / "nginx.conf", text.encode())
        # nginx takes over a listening socket named in NGINX, as in an upgrade of its binary.
        # Clients can thus connect before it has started, and no port is ever guessed.
        number = listening.fileno()
        with Process(
            [program, "-p", folder, "-e", "stderr", "-c", configuration],
            environment={"NGINX": f"{number};"},
            pass_fds=[number],
        ) as process:
            process.wait_for("using inherited sockets")
            yield RunningServer(process, port)


def _bound_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)
