"""Whether the installed mitmproxy, pyOpenSSL and httpx still have what this package leans on.

Most of it is no public interface, and may change in any release. What is looked for is what
`pausing`, `handshake`, `verification` and `sources.transports` would otherwise miss in the middle
of a connection.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from mitmproxy_aia import rehearsal, selftest
from mitmproxy_aia.lacking import (
    CONFIGURATION,
    Lacking,
    NotInstalled,
    first_flaw,
    get,
    part,
    takes,
)

_LAYERS = "mitmproxy.proxy.layers.tls"
_GENERATORS: Mapping[str, tuple[str, ...]] = {
    "receive_handshake_data": ("data",),
    "receive_data": ("data",),
    "send_data": ("data",),
    "tls_interact": (),
}
"""What is replaced on a layer: generator functions with these parameters."""
_OF_A_SERVER = (
    *("address", "sni", "peername", "via", "cipher_list", "state"),
    *("timestamp_tls_setup", "certificate_list", "alpn", "cipher", "tls_version"),
)
_OPTIONS = (
    *("confdir", "ssl_insecure", "upstream_auth", "tls_version_server_min"),
    *("ssl_verify_upstream_trusted_ca", "ssl_verify_upstream_trusted_confdir"),
)
_OF_A_CONNECTION = (*("get_context", "get_peer_cert_chain", "get_verified_chain", "_ssl"),)
OPENSSL = (
    *("ERR_clear_error", "SSL_CTX_set_cert_store", "SSL_get0_param", "SSL_get_verify_result"),
    *(
        "SSL_CTX_get_options",
        "SSL_CTX_set1_sigalgs_list",
        "X509_PURPOSE_SSL_SERVER",
        "X509_STORE_up_ref",
    ),
    *("X509_STORE_CTX_free", "X509_STORE_CTX_get1_chain", "X509_STORE_CTX_get_error"),
    *("X509_STORE_CTX_get_error_depth", "X509_STORE_CTX_init", "X509_STORE_CTX_new"),
    *("X509_STORE_set1_param", "X509_STORE_set_purpose", "X509_V_OK", "X509_verify_cert"),
    *("X509_verify_cert_error_string", "X509_free", "sk_X509_free", "sk_X509_num", "sk_X509_value"),
    *("X509_VERIFY_PARAM_set1_host", "X509_VERIFY_PARAM_set1_ip"),
    *("X509_VERIFY_PARAM_set_hostflags", "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT"),
    *("X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS", "X509_STORE_CTX_set_error", "SSL_set_verify"),
    *("SSL_get_ex_data_X509_STORE_CTX_idx", "X509_STORE_CTX_get_ex_data"),
    *("X509_VERIFY_PARAM_free", "X509_VERIFY_PARAM_new", "SSL_get_verify_mode"),
)
"""What `openssl` takes of pyOpenSSL's bindings."""


def incompatibility() -> str | None:
    """One line that says what is not as this package needs it, or None. Changes nothing."""
    return first_flaw(_CHECKS)


def layer_methods(module: str, layer: str) -> None:
    """What is replaced on a layer is there to be replaced."""
    for name, parameters in _GENERATORS.items():
        what = f"{layer}.{name}"
        method = get(module, what)
        if not inspect.isgeneratorfunction(method):
            raise Lacking(f"{what} is no generator function")
        takes(method, 1 + len(parameters), what)


def _layer_of(make: Callable[[Any, Any], Any], name: str) -> tuple[Any, Any]:
    """A layer on a connection that is open, as `make` makes it; and its context."""
    make_connection = get("mitmproxy.connection", "Server")
    opened = get("mitmproxy.connection", "ConnectionState.OPEN")
    address = ("127.0.0.1", 443)
    client = get("mitmproxy.connection", "Client")(
        peername=address, sockname=address, timestamp_start=0
    )
    context = get("mitmproxy.proxy.context", "Context")(client, SimpleNamespace())
    context.server = server = make_connection(address=address, peername=address)
    server.state = opened
    for each in _OF_A_SERVER:
        part(server, each, "mitmproxy.connection.Server")
    layer = make(context, server)
    part(layer, "tls", name)
    for each in "conn", "tunnel_connection":
        if part(layer, each, name) is not server:
            raise Lacking(f"{name}.{each} is not the connection")
    if not any(each is layer for each in part(context, "layers", "Context")):
        raise Lacking(f"a {name} is not in Context.layers")
    return layer, context


def layer_at_work(
    make: Callable[[Any, Any], Any],
    name: str,
    hook: str,
    given: str,
    value: object,
    first: Sequence[bytes] = (),
) -> Any:
    """The layer calls what is put in the place of its `receive_handshake_data`, with all that
    the server says, and believes its result. If it did not, nobody would judge.

    `make` makes one of a context and a connection, `name` is what it is called, and `hook` the
    hook in which addons set `given` of its data to `value`. `first` is what the layer gives to its
    `receive_handshake_data` to begin with. Returns the layer."""
    got: list[bytes] = []

    def receive_handshake_data(data: bytes) -> Any:
        got.append(data)
        yield from ()
        return False, "probe" if data else None

    layer, context = _layer_of(make, name)
    layer.receive_handshake_data = receive_handshake_data

    def keeps_what_comes(server: Any) -> None:
        """While it waits for an answer, it does so where it is bounded (see `waiting`)."""
        part(layer, "_paused_event_queue", name)
        early = get("mitmproxy.proxy.events", "DataReceived")(server, b"early")
        layer._paused_event_queue = kept = deque[Any]()
        if [*layer.handle_event(early)] or [*kept] != [early]:
            raise Lacking(f"a {name} that waits does not keep what comes in _paused_event_queue")
        kept.clear()

    def feed(event: str, *arguments: Any) -> list[str]:
        """The names of the commands that follow. Those that wait for an answer get one."""
        seen = []
        for command in [*layer.handle_event(get("mitmproxy.proxy.events", event)(*arguments))]:
            seen.append(type(command).__name__)
            if seen[-1] == hook:
                _fill(hook, command.data, context.server, given, value)
                keeps_what_comes(context.server)
            if seen[-1].endswith("Hook"):
                seen += feed("HookCompleted", command)
        return seen

    feed("Start")
    if layer.tls is not value:
        raise Lacking(f"{name}.tls is not what {hook} was given")
    end = feed("DataReceived", context.server, b"server")
    if got != [*first, b"server"]:
        raise Lacking(f"a {name} does not call its receive_handshake_data")
    if "TlsFailedServerHook" not in end or "CloseConnection" not in end:
        raise Lacking(f"a {name} goes on when its receive_handshake_data has failed")
    return layer


def _fill(hook: str, data: Any, server: Any, given: str, value: object) -> None:
    """What a handler of the hook does."""
    for name in "conn", "context", given:
        part(data, name, f"the data of {hook}")
    if getattr(data, given) is not None or data.conn is not server:
        raise Lacking(f"{hook} comes with other data")
    setattr(data, given, value)


def _tls_layer() -> None:
    layer_methods(_LAYERS, "ServerTLSLayer")
    make = get(_LAYERS, "ServerTLSLayer")
    layer_at_work(make, "ServerTLSLayer", "TlsStartServerHook", "ssl_conn", object(), [b""])


def _hook() -> None:
    hook = get("mitmproxy_aia.pausing", "AiaCompleteHook")
    start_hook = get("mitmproxy.proxy.commands", "StartHook")
    made = hook("pause")
    if not isinstance(made, start_hook) or made.name != "aia_complete" or made.blocking is not True:
        raise Lacking("a StartHook is not named, or does not wait, as it did")
    if made.args() != ["pause"]:
        raise Lacking("a StartHook's handler gets other arguments")


def _addons() -> None:
    tlsconfig = "mitmproxy.addons.tlsconfig"
    what = "TlsConfig.tls_start_server"
    takes(get(tlsconfig, what), 2, what)
    if inspect.iscoroutinefunction(get(tlsconfig, what)):
        raise Lacking(f"{what} has become asynchronous")
    takes(get("mitmproxy.addons.proxyserver", "Proxyserver.listen_addrs"), 1, "listen_addrs")
    options = get("mitmproxy.options", "Options")()
    known = set(options.keys())
    loader = SimpleNamespace(
        add_option=lambda name, *_, **__: known.add(name), add_command=lambda *_: None
    )
    for module, name in (
        (tlsconfig, "TlsConfig"),
        ("mitmproxy.addons.upstream_auth", "UpstreamAuth"),
    ):
        get(module, name)().load(loader)
    for name in _OPTIONS:
        if name not in known:
            raise Lacking(f"it has no option {name}")


def _turn() -> None:
    """A hook that is put in the place of an addon's own is called. If it were not, nothing
    would ever be completed."""
    options = get("mitmproxy.options", "Options")()
    manager = get("mitmproxy.addonmanager", "AddonManager")(SimpleNamespace(options=options))
    addon = get("mitmproxy.addons.tlsconfig", "TlsConfig")()
    got: list[object] = []
    addon.tls_start_server = got.append
    part(manager, "chain", "AddonManager").append(addon)
    manager.trigger(get(_LAYERS, "TlsStartServerHook")("data"))
    if got != ["data"]:
        raise Lacking("an AddonManager does not look for a hook on the addon")


def _openssl() -> None:
    for name in OPENSSL:
        get("OpenSSL.SSL", f"_lib.{name}")
    for name in "gc", "string", "callback", "NULL":
        get("OpenSSL.SSL", f"_ffi.{name}")
    get("OpenSSL.crypto", "X509._from_raw_x509_ptr")
    get("OpenSSL.SSL", "Connection._reverse_mapping")
    get("OpenSSL.crypto", "X509StoreFlags.PARTIAL_CHAIN")
    method = get("OpenSSL.SSL", "TLS_METHOD")
    context = get("OpenSSL.SSL", "Context")(method)
    part(context, "_context", "SSL.Context")
    connection = get("OpenSSL.SSL", "Connection")(context)
    for name in _OF_A_CONNECTION:
        part(connection, name, "SSL.Connection")
    store, certificate = context.get_cert_store(), get("OpenSSL.crypto", "X509")()
    part(store, "_store", "X509Store")
    part(certificate, "_x509", "X509")
    made = get("OpenSSL.crypto", "X509StoreContext")(store, certificate, [])
    part(made, "_chain", "X509StoreContext")


def _configuration() -> None:
    if (flaw := rehearsal.obstacle()) is not None:
        raise Lacking(flaw)


def _verdicts() -> None:
    if (flaw := selftest.wrong_verdict()) is not None:
        raise Lacking(flaw)


def _httpx_is_there() -> None:
    if importlib.util.find_spec("httpx") is None:
        raise NotInstalled("httpx")


_CHECKS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("mitmproxy", _tls_layer),
    ("mitmproxy", _hook),
    ("mitmproxy", _addons),
    ("mitmproxy", _turn),
    ("pyOpenSSL", _openssl),
    (CONFIGURATION, _configuration),
    ("pyOpenSSL", _verdicts),
    ("httpx", _httpx_is_there),
)
