"""Starting the processes of the soak that are not mitmdump."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess

from tests.soak import ca_issuers, servers
from tests.soak.sites import Internet

_PATIENCE = 30.0
# The other ways of starting one copy our threads' locks.
_spawn = multiprocessing.get_context("spawn")


class CaIssuers:
    """The process of all caIssuers servers, which can be killed and started again."""

    def __init__(self, internet: Internet, port: int) -> None:
        self._internet = internet
        self._port = port
        self._process: SpawnProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when it listens."""
        if self._process is not None:
            return
        self._process = _spawn.Process(
            target=ca_issuers.serve, args=(self._internet, self._port), daemon=True
        )
        self._process.start()
        async with asyncio.timeout(_PATIENCE):
            while not await _listens(self._port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


@contextmanager
def tls_servers(internet: Internet) -> Iterator[int]:
    """The process of all TLS servers, and the port at which they are."""
    ready, theirs = _spawn.Pipe(duplex=False)
    process = _spawn.Process(target=servers.serve, args=(internet, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        if not ready.poll(_PATIENCE):
            raise RuntimeError(f"the TLS servers did not start in {_PATIENCE:g} s")
        yield ready.recv()
    finally:
        process.kill()
        process.join()
        ready.close()


def free_port() -> int:
    """One that nobody listens on now: the URLs in certificates exist before their servers do."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
