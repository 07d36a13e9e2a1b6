"""The clients of the soak: one request each, by CONNECT or with the whole URL, or rude."""

from __future__ import annotations

import asyncio
import contextlib
import html
import re
import ssl
from dataclasses import dataclass

ORIGIN = "soak-client.test"


@dataclass(frozen=True)
class Answer:
    """What a client got; `status` is 0 if that was no answer, and `text` then says why."""

    status: int
    text: str


class Client:
    """Asks through the proxy on `port`; `trust` is how mitmproxy's own authority is trusted."""

    def __init__(self, port: int, trust: ssl.SSLContext, patience: float) -> None:
        self.port = port
        self._trust = trust
        self._patience = patience

    async def get(self, host: str, port: int, *, tunnel: bool) -> Answer:
        """GET https://host:port/, inside a CONNECT with TLS of its own or as a whole URL."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._get(f"https://{host}:{port}/", host, port, tunnel)
        except TimeoutError:
            return Answer(0, f"no answer in {self._patience:g} s")
        except (OSError, EOFError, ValueError) as error:
            return Answer(0, f"{type(error).__name__}: {error}")

    async def probe(self, path: str) -> str:
        """What the script `soak_probe.py` answers. Raises RuntimeError."""
        try:
            async with asyncio.timeout(60):
                answer = await self._get(f"http://probe.test/{path}", "probe.test", 80, False)
        except (OSError, EOFError, TimeoutError) as error:
            raise RuntimeError(f"the proxy did not answer {path!r}: {error!r}") from error
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.text}")
        return answer.text

    async def leave(self, host: str, port: int, after: float) -> None:
        """Ask, and go away `after` seconds, whatever happens meanwhile."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(after):
                await self._get(f"https://{host}:{port}/", host, port, False)

    async def _get(self, url: str, host: str, port: int, tunnel: bool) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if tunnel:
                writer.write(
                    f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 200 " not in head.partition(b"\r\n")[0]:
                    return await _answer(reader, head)
                await writer.start_tls(self._trust, server_hostname=host)
                url = "/"
            writer.write(
                f"GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            return await _answer(reader, await reader.readuntil(b"\r\n\r\n"))
        finally:
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, head: bytes) -> Answer:
    status = int(head.split(maxsplit=2)[1])
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    body = await (reader.readexactly(int(length[1])) if length else reader.read())
    text = body.decode(errors="replace")
    message = re.search(r"<h1>\d+ [^<]*</h1>\s*<p>(.*?)</p>", text, re.DOTALL)
    return Answer(status, html.unescape(message[1]) if message else text)
