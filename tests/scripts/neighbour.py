"""Another addon, which does what the option `neighbour` says: one of `ACTS`, and what it needs.

    curl http://control.test/neighbour=renames:other.test

needs remote_control.py. With `tells`, it writes the hooks it gets into the log.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import addonmanager, ctx, http, tls
from mitmproxy.proxy import server_hooks
from OpenSSL import SSL

logger = logging.getLogger(__name__)
HOOKS = (
    *("server_connect", "server_connected", "server_connect_error", "server_disconnected"),
    *("tls_start_server", "tls_established_server", "tls_failed_server"),
    *("requestheaders", "request", "responseheaders", "response", "error"),
)


def renames(data: tls.TlsData, name: str) -> None:
    data.conn.sni = name


def weakens(data: tls.TlsData, ciphers: str) -> None:
    data.conn.cipher_list = [ciphers]


def raises(data: tls.TlsData, text: str) -> None:
    raise RuntimeError(text)


def provides(data: tls.TlsData, verdict: str) -> None:
    """A connection of its own, which believes everything or nothing."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: verdict == "yes")
    data.ssl_conn = SSL.Connection(context)
    data.ssl_conn.set_connect_state()


def asks_tlsconfig(data: tls.TlsData, name: str) -> None:
    """TlsConfig's connection, with another name."""
    data.conn.sni = name
    ctx.master.addons.get("tlsconfig").tls_start_server(data)


def asks_tlsconfig_and_judges(data: tls.TlsData, verdict: str) -> None:
    ctx.master.addons.get("tlsconfig").tls_start_server(data)
    assert data.ssl_conn
    data.ssl_conn.set_verify(SSL.VERIFY_PEER, lambda *rest: verdict == "yes" or bool(rest[-1]))


ACTS: dict[str, Callable[[tls.TlsData, str], None]] = {
    "renames": renames,
    "renames in a while": renames,
    "weakens": weakens,
    "raises": raises,
    "provides": provides,
    "asks TlsConfig": asks_tlsconfig,
    "asks TlsConfig and judges": asks_tlsconfig_and_judges,
}


class Neighbour:
    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []

    def load(self, loader: addonmanager.Loader) -> None:
        loader.add_option("neighbour", str, "", "What the neighbour does.")

    def order(self) -> tuple[str, str]:
        act, _, what = ctx.options.neighbour.partition(":")
        return act, what

    async def tls_start_server(self, data: tls.TlsData) -> None:
        act, what = self.order()
        if act == "renames in a while":
            await asyncio.sleep(0.1)
        if act in ACTS:
            ACTS[act](data, what)

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        act, what = self.order()
        if act == "redirects" and data.server.address:
            data.server.address = ("127.0.0.1", int(what))
        elif act == "refuses":
            data.server.error = what
        elif act == "raises":
            raise RuntimeError(what)

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host == "control.test":
            if flow.request.path == "/kill":
                for each in self.flows:
                    if each.killable:
                        each.kill()
            return
        self.flows.append(flow)
        act, what = self.order()
        if act == "kills":
            flow.kill()
        elif act == "rewrites":
            flow.request.port = int(what)
        elif act == "raises":
            raise RuntimeError(what)


class Teller:
    """Writes what happens into the log."""

    def __getattr__(self, name: str) -> Any:
        if name not in HOOKS:
            raise AttributeError(name)

        def tell(data: object) -> None:
            if isinstance(data, http.HTTPFlow) and data.request.host == "control.test":
                return
            if ctx.options.neighbour == "tells":
                logger.info(f"neighbour: {name}")

        return tell


addons = [Neighbour(), Teller()]
