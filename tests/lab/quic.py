"""HTTP/3 and raw QUIC, over aioquic, which comes with mitmproxy: a server and a client."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer as Endpoint
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
)

from tests.lab.certificates import Issued
from tests.lab.client import Reply

RAW_ALPN = "lab-echo"
_PATIENCE = 10.0

Address = tuple[str, int]


class QuicServer:
    """Presents `leaf` and then `presented`, in this order; speaks HTTP/3, and with ALPN
    `lab-echo` it sends each stream back. `idle_timeout` is in seconds; with `retry` it wants to
    see first that clients have the address that they send from (RFC 9000 section 8.1.2).

    `handshakes` counts those that a client has completed, `requests` are the paths asked for,
    and `endings` the reasons that clients, or timers, have given for the end of a connection.
    """

    def __init__(
        self,
        leaf: Issued,
        *presented: Issued,
        body: bytes = b"hello from the lab over QUIC",
        idle_timeout: float = 60.0,
        retry: bool = False,
        port: int = 0,
    ) -> None:
        self.body = body
        self.handshakes = self.connections = 0
        self.requests: list[str] = []
        self.endings: list[str] = []
        self._configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=[*H3_ALPN, RAW_ALPN],
            idle_timeout=idle_timeout,
            max_datagram_frame_size=65536,
        )
        self.present(leaf, *presented)
        self._retry = retry
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="quic server")
        self._thread.start()
        self._endpoint: Endpoint = self._run(self._serve())
        transport = cast(asyncio.DatagramTransport, self._endpoint._transport)
        self.port: int = transport.get_extra_info("sockname")[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def present(self, leaf: Issued, *presented: Issued) -> None:
        """From the next connection on, which is the first one that is counted."""
        self._configuration.certificate = leaf.certificate
        self._configuration.certificate_chain = [item.certificate for item in presented]
        self._configuration.private_key = leaf.key
        self.handshakes = self.connections = 0
        self.requests, self.endings = [], []

    def close(self) -> None:
        """End without a word to the clients."""
        if self._loop.is_closed():
            return
        self._run(self._vanish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def close_connections(self, reason: str = "the server has had enough") -> None:
        """Say goodbye to every client, and go on serving."""
        self._run(self._close_connections(reason))

    async def _serve(self) -> Endpoint:
        def protocol(*args: Any, **kwargs: Any) -> QuicConnectionProtocol:
            self.connections += 1
            return _ServerProtocol(self, *args, **kwargs)

        return await serve(
            "127.0.0.1",
            self._port,
            configuration=self._configuration,
            create_protocol=protocol,
            retry=self._retry,
        )

    async def _vanish(self) -> None:
        for protocol in {*self._endpoint._protocols.values()}:
            if protocol._timer is not None:
                protocol._timer.cancel()
        cast(asyncio.DatagramTransport, self._endpoint._transport).abort()
        await asyncio.sleep(0)

    async def _close_connections(self, reason: str) -> None:
        for protocol in {*self._endpoint._protocols.values()}:
            protocol.close(reason_phrase=reason)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)


class _ServerProtocol(QuicConnectionProtocol):
    def __init__(self, server: QuicServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server = server
        self._http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated) and event.alpn_protocol in H3_ALPN:
            # Its SETTINGS may go out with the rest of its first flight, before the client has
            # said that it takes us for the right server.
            self._http = H3Connection(self._quic)
        elif isinstance(event, HandshakeCompleted):
            self._server.handshakes += 1
        elif isinstance(event, ConnectionTerminated):
            self._server.endings.append(event.reason_phrase)
        elif self._http is None:
            if isinstance(event, StreamDataReceived):
                self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
                self.transmit()
        else:
            for each in self._http.handle_event(event):
                self._answer(self._http, each)

    def _answer(self, http: H3Connection, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived):
            return
        path = dict(event.headers).get(b":path", b"").decode()
        self._server.requests.append(path)
        http.send_headers(event.stream_id, [(b":status", b"200")])
        http.send_data(event.stream_id, self._server.body, end_stream=True)
        self.transmit()


def http3_get(
    port: int,
    path: str = "/",
    *,
    trust: Path,
    at: str = "127.0.0.1",
    patience: float = _PATIENCE,
) -> Reply:
    """The answer of an HTTP/3 server, or a proxy's, on a loopback port. Raises ConnectionError
    if there is none, and TimeoutError if nobody says so for `patience` seconds."""
    return asyncio.run(_http3_get((at, port), path, trust, patience))


def quic_echo(
    port: int, data: bytes, *, trust: Path, at: str = "127.0.0.1", patience: float = _PATIENCE
) -> bytes:
    """What comes back on a stream that `data` was sent on. Raises as `http3_get`."""
    return asyncio.run(_quic_echo((at, port), data, trust, patience))


async def http3_walk_away(port: int, trust: Path, when: Callable[[], bool]) -> None:
    """Ask for something, and be gone without a word as soon as `when` is true."""
    configuration = _configuration(trust, H3_ALPN)
    async with asyncio.timeout(_PATIENCE):
        client = connect(
            "127.0.0.1",
            port,
            configuration=configuration,
            create_protocol=_Client,
            wait_connected=False,
        )
        protocol = await client.__aenter__()
        protocol.transmit()
        while not when():  # noqa: ASYNC110 # other threads know
            await asyncio.sleep(0.01)
        cast(asyncio.DatagramTransport, protocol._transport).abort()
        if protocol._timer is not None:
            protocol._timer.cancel()


def _configuration(trust: Path, alpn: Sequence[str]) -> QuicConfiguration:
    configuration = QuicConfiguration(
        alpn_protocols=[*alpn], verify_mode=ssl.CERT_REQUIRED, server_name="127.0.0.1"
    )
    configuration.load_verify_locations(str(trust))
    return configuration


async def _http3_get(address: Address, path: str, trust: Path, patience: float) -> Reply:
    start = time.monotonic()
    configuration = _configuration(trust, H3_ALPN)
    async with (
        asyncio.timeout(patience),
        connect(*address, configuration=configuration, create_protocol=_Client) as client,
    ):
        assert isinstance(client, _Client)
        headers, body = await client.get(path)
    return Reply(
        status=int(headers[":status"]),
        body=body,
        headers=headers,
        http_version="3",
        seconds=time.monotonic() - start,
    )


async def _quic_echo(address: Address, data: bytes, trust: Path, patience: float) -> bytes:
    configuration = _configuration(trust, [RAW_ALPN])
    async with (
        asyncio.timeout(patience),
        connect(*address, configuration=configuration, create_protocol=_Client) as client,
    ):
        assert isinstance(client, _Client)
        return await client.echo(data)


class _Client(QuicConnectionProtocol):
    """One request or one stream, and then it has done its work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http: H3Connection | None = None
        self._headers: dict[str, str] = {}
        self._body = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def get(self, path: str) -> tuple[dict[str, str], bytes]:
        self._http = H3Connection(self._quic)
        headers = {":method": "GET", ":scheme": "https", ":authority": "lab.example", ":path": path}
        stream = self._quic.get_next_available_stream_id()
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._http.send_headers(stream, encoded, end_stream=True)
        self.transmit()
        await self._done
        return self._headers, self._body

    async def echo(self, data: bytes) -> bytes:
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, data, end_stream=True)
        self.transmit()
        await self._done
        return self._body

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            if not self._done.done():
                self._done.set_exception(ConnectionError(event.reason_phrase))
                self._done.exception()  # It may be that nobody waits for it any more.
        elif self._http is not None:
            for each in self._http.handle_event(event):
                if isinstance(each, HeadersReceived):
                    pairs = each.headers
                    self._headers = {name.decode(): value.decode() for name, value in pairs}
                elif isinstance(each, DataReceived):
                    self._body += each.data
                if isinstance(each, HeadersReceived | DataReceived) and each.stream_ended:
                    self._done.set_result(None)
        elif isinstance(event, StreamDataReceived):
            self._body += event.data
            if event.end_stream and not self._done.done():
                self._done.set_result(None)
