"""What mitmproxy knows of the connection to a server, of where it listens itself, and of what
its user wants to see."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import replace

from mitmproxy import connection, ctx

from mitmproxy_aia.egress import Proxy, Server
from mitmproxy_aia.names import printable
from mitmproxy_aia.proxies import AUTO, Way, upstream_proxy


def server_of(conn: connection.Server, proxy: Proxy | Way) -> Server:
    """The server at the other end of `conn`, with `proxy` from the option `aia_proxy`."""
    host, port = conn.address[:2] if conn.address else ("", 0)
    if proxy == AUTO:
        via, auth = conn.via, ctx.options.upstream_auth
        used = None if via is None else upstream_proxy(via, auth)
    else:
        used = None if isinstance(proxy, str) else proxy
    if used is not None:
        used = replace(
            used,
            ca_file=ctx.options.ssl_verify_upstream_trusted_ca or "",
            ca_folder=ctx.options.ssl_verify_upstream_trusted_confdir or "",
        )
    peer, here = None, False
    if conn.via is None and conn.peername:
        # A proxy in between is all that we are connected to.
        with contextlib.suppress(ValueError):
            peer, port = ipaddress.ip_address(conn.peername[0]), conn.peername[1]
            # Who connects to an address of his own does so from the same one.
            here = conn.sockname is not None and conn.sockname[0] == conn.peername[0]
    return Server(printable(conn.sni or host or "the server"), peer, port, used, here)


def own_listeners() -> list[tuple[str, int]]:
    """Where this proxy listens, mitmweb's page included: host and port."""
    addresses = ctx.master.addons.get("proxyserver").listen_addrs()
    own = [(str(address[0]), int(address[1])) for address in addresses]
    if "web_port" in ctx.options:
        own.append((ctx.options.web_host, ctx.options.web_port))
    return own


def address_of(conn: connection.Server) -> str:
    """How the log calls a server: by the name it was asked for, if there is one."""
    host, port = conn.address[:2] if conn.address else ("unknown", 0)
    return printable(f"{conn.sni or host}:{port}")


def protocol_of(conn: connection.Server) -> str:
    """What the handshake with a server is one of."""
    if conn.tls_version == "QUICv1":
        return "QUIC"
    return "DTLS" if conn.transport_protocol == "udp" else "TLS"


def details_are_shown() -> bool:
    """Whether somebody reads what is logged at DEBUG. mitmproxy makes an event of each line
    all the same, and calls all addons with it."""
    return any(
        name in ctx.options and getattr(ctx.options, name) == "debug"
        for name in ("termlog_verbosity", "console_eventlog_verbosity")
    )
