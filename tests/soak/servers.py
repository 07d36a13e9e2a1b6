"""One process that is all the TLS servers: the name that a client asks for tells which one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from tests.lab import authority
from tests.soak.pki import Hand
from tests.soak.sites import Internet, Site


def serve(internet: Internet, ready: Connection) -> None:
    """The process. Sends its port when it listens; ends when it is ended."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Servers(internet).run(ready))


class _Servers:
    def __init__(self, internet: Internet) -> None:
        self._sites = {site.host: site for site in internet.sites}
        self._hand = Hand(internet.authorities)
        self._fixed: dict[str, ssl.SSLContext] = {}
        self._numbers = itertools.count()

    async def run(self, ready: Connection) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.sni_callback = self._choose
            server = await asyncio.start_server(
                self._answer, "127.0.0.1", 0, ssl=context, backlog=512
            )
            ready.send(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    def _choose(self, connection: ssl.SSLObject, host: str, _context: ssl.SSLContext) -> None:
        connection.context = self._context(self._sites[host])

    def _context(self, site: Site) -> ssl.SSLContext:
        if not site.chain:
            chain = self._new_leaf(site) + site.presented
            return self._load(chain, self._hand.leaf.key_pem)
        if site.host not in self._fixed:
            self._fixed[site.host] = self._load(site.chain, site.key)
        return self._fixed[site.host]

    def _new_leaf(self, site: Site) -> bytes:
        number = next(self._numbers)
        hand = self._hand
        key = hand.fresh if site.issuer.startswith("Fresh") else hand.strangers[0]
        issuer = authority(site.issuer.replace("{n}", str(number)), key=key)
        urls = [url.replace("{n}", str(number)) for url in site.urls]
        return issuer.issue(site.host, hosts=[site.host], aia=urls, key=hand.leaf).pem

    def _load(self, chain: bytes, key: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = self._folder / "chain.pem"
        path.write_bytes(chain + key)
        context.load_cert_chain(path)
        return context

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Any request, with the host it was sent to."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            host = head.lower().partition(b"\r\nhost: ")[2].partition(b"\r\n")[0]
            body = host.partition(b":")[0]
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
