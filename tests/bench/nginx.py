"""nginx as all servers of the benchmarks: one process, and a loopback address for each."""

from __future__ import annotations

import contextlib
import itertools
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Issued, pem_bundle
from tests.lab.process import Process, find_program

_HEAD = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""
_SERVER = """
    server {{
        listen {address}:{port} ssl;
        ssl_certificate {folder}/{number}.pem;
        ssl_certificate_key {folder}/{number}.key;
        location / {{ return 200 "hello"; }}
    }}
"""
_FILES = """
    server {{
        listen 127.0.0.1:{port};
        root {folder}/www;
    }}
"""
_BACKLOG = 1024


@dataclass(frozen=True)
class Site:
    """A TLS server at `address`, which presents `leaf` and then `presented`."""

    address: str
    leaf: Issued
    presented: tuple[Issued, ...] = ()


def addresses() -> Iterator[str]:
    """Loopback addresses: all of 127.0.0.0/8 are this machine's on Linux."""
    for high, low in itertools.product(range(1, 250), range(1, 250)):
        yield f"127.{77}.{high}.{low}"


@contextmanager
def nginx(sites: Sequence[Site], port: int) -> Iterator[None]:
    """Serves `sites`, all on `port`."""
    with _nginx() as (folder, stack, configuration, listening):
        for number, site in enumerate(sites):
            listening.append(_listen(stack, site.address, port))
            (folder / f"{number}.pem").write_bytes(pem_bundle(site.leaf, *site.presented))
            (folder / f"{number}.key").write_bytes(site.leaf.key_pem)
            configuration.append(
                _SERVER.format(address=site.address, port=port, folder=folder, number=number)
            )
        with _run(folder, configuration, listening):
            yield


@contextmanager
def file_server() -> Iterator[tuple[Path, int]]:
    """Serves what is put into a folder, over plain http on 127.0.0.1: a fast caIssuers server.
    Gives the folder and the port."""
    with _nginx() as (folder, stack, configuration, listening):
        listening.append(_listen(stack, "127.0.0.1", 0))
        port: int = listening[0].getsockname()[1]
        (folder / "www").mkdir()
        # The worker has another user, when nginx is started by root.
        folder.chmod(0o755)
        configuration.append(_FILES.format(port=port, folder=folder))
        with _run(folder, configuration, listening):
            yield folder / "www", port


@contextmanager
def _nginx() -> Iterator[tuple[Path, contextlib.ExitStack, list[str], list[socket.socket]]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield folder, stack, [_HEAD.format(folder=folder)], []


def _listen(stack: contextlib.ExitStack, address: str, port: int) -> socket.socket:
    return stack.enter_context(socket.create_server((address, port), backlog=_BACKLOG))


@contextmanager
def _run(folder: Path, configuration: list[str], listening: list[socket.socket]) -> Iterator[None]:
    file = folder / "nginx.conf"
    file.write_text("".join([*configuration, "}\n"]))
    numbers = [each.fileno() for each in listening]
    # As in an upgrade of its binary it takes over these sockets: clients can connect before it
    # has started.
    with Process(
        [find_program("nginx"), "-p", folder, "-e", "stderr", "-c", file],
        environment={"NGINX": "".join(f"{number};" for number in numbers)},
        pass_fds=numbers,
    ) as process:
        process.wait_for("using inherited sockets")
        yield


def free_port() -> int:
    """One that nobody listens on now, for a program that takes no socket of ours."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port
