"""Whether the installed mitmproxy, pyOpenSSL and httpx still have what this package leans on.

Most of it is no public interface, and may change in any release. What is looked for is what
`pausing`, `handshake`, `verification` and `sources.transports` would otherwise miss in the middle
of a connection. It is looked up by name, so that a name which is gone is a reason and no traceback.
"""

from __future__ import annotations

import importlib
import inspect
import ssl
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from mitmproxy_aia import __version__, rehearsal, selftest

_LAYERS = "mitmproxy.proxy.layers.tls"
_GENERATORS: Mapping[str, tuple[str, ...]] = {
    "receive_handshake_data": ("data",),
    "receive_data": ("data",),
    "send_data": ("data",),
    "tls_interact": (),
}
"""What is replaced on a ServerTLSLayer: generator functions with these parameters."""
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
    *("X509_verify_cert_error_string", "sk_X509_free", "sk_X509_num", "sk_X509_value"),
    *("X509_VERIFY_PARAM_set1_host", "X509_VERIFY_PARAM_set1_ip"),
    *("X509_VERIFY_PARAM_set_hostflags", "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT"),
    *("X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS", "X509_STORE_CTX_set_error", "SSL_set_verify"),
    *("SSL_get_ex_data_X509_STORE_CTX_idx", "X509_STORE_CTX_get_ex_data"),
)
"""What `openssl` takes of pyOpenSSL's bindings."""

_CONFIGURATION = "openssl.cnf"
_HELP = "use a mitmproxy that it was tested with, or a newer mitmproxy-aia"
_HELP_WITH_CONFIGURATION = "change that, or name another file in OPENSSL_CONF"


class _Lacking(Exception):
    """What is not as it was; words to follow the package's name."""


def incompatibility() -> str | None:
    """One line that says what is not as this package needs it, or None. Changes nothing."""
    for package, check in _CHECKS:
        try:
            check()
        except Exception as error:
            lacking = isinstance(error, _Lacking)
            # What the check itself could not even do is a change as well.
            what = str(error) if lacking else f"fails: {type(error).__name__}: {error}"
            helps = _HELP_WITH_CONFIGURATION if package == _CONFIGURATION else _HELP
            whose = f"{package} {_version(package)}".strip()
            line = f"mitmproxy-aia {__version__} cannot work with {whose}: {what}"
            return " ".join(f"{line}; {helps}".split())
    return None


def _version(package: str) -> str:
    if package == _CONFIGURATION:
        return ""  # where it is only OpenSSL knows
    module, name = {
        "mitmproxy": ("mitmproxy.version", "VERSION"),
        "pyOpenSSL": ("OpenSSL", "__version__"),
        "httpx": ("httpx", "__version__"),
    }[package]
    try:
        return str(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError):
        return "(of unknown version)"


def _get(module: str, path: str) -> Any:
    """What `path` (`Class.method`) names in `module`."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        raise _Lacking(f"it has no module {module}") from None
    return _part(found, path, module)


def _part(found: Any, path: str, where: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            raise _Lacking(f"{where} has no {path}")
        found = getattr(found, name)
    return found


def _takes(function: Any, number: int, what: str) -> None:
    """That `function` can be called with `number` arguments."""
    try:
        inspect.signature(function).bind(*range(number))
    except (TypeError, ValueError):
        raise _Lacking(f"{what} takes other arguments") from None


def _layer_methods() -> None:
    for name, parameters in _GENERATORS.items():
        what = f"ServerTLSLayer.{name}"
        method = _get(_LAYERS, what)
        if not inspect.isgeneratorfunction(method):
            raise _Lacking(f"{what} is no generator function")
        _takes(method, 1 + len(parameters), what)


def _layer_of(on_data: Callable[[bytes], Any]) -> tuple[Any, Any]:
    """A ServerTLSLayer on a connection that is open, whose `receive_handshake_data` is
    `on_data`; and its context."""
    make_connection = _get("mitmproxy.connection", "Server")
    opened = _get("mitmproxy.connection", "ConnectionState.OPEN")
    address = ("127.0.0.1", 443)
    client = _get("mitmproxy.connection", "Client")(
        peername=address, sockname=address, timestamp_start=0
    )
    context = _get("mitmproxy.proxy.context", "Context")(client, SimpleNamespace())
    context.server = server = make_connection(address=address)
    server.state = opened
    for name in _OF_A_SERVER:
        _part(server, name, "mitmproxy.connection.Server")
    layer = _get(_LAYERS, "ServerTLSLayer")(context, server)
    _part(layer, "tls", "ServerTLSLayer")
    if _part(layer, "conn", "ServerTLSLayer") is not server:
        raise _Lacking("ServerTLSLayer.conn is not the connection")
    if not any(each is layer for each in _part(context, "layers", "Context")):
        raise _Lacking("a ServerTLSLayer is not in Context.layers")
    layer.receive_handshake_data = on_data
    return layer, context


def _layer_at_work() -> None:
    """The layer calls what is put in the place of its `receive_handshake_data`, with all that
    the server says, and believes its result. If it did not, nobody would judge."""
    got: list[bytes] = []

    def receive_handshake_data(data: bytes) -> Any:
        got.append(data)
        yield from ()
        return False, "probe" if data else None

    layer, context = _layer_of(receive_handshake_data)
    ssl_connection = object()

    def feed(event: str, *arguments: Any) -> list[str]:
        """The names of the commands that follow. Those that wait for an answer get one."""
        seen = []
        for command in [*layer.handle_event(_get("mitmproxy.proxy.events", event)(*arguments))]:
            seen.append(type(command).__name__)
            if seen[-1] == "TlsStartServerHook":
                _fill(command.data, context.server, ssl_connection)
            if seen[-1].endswith("Hook"):
                seen += feed("HookCompleted", command)
        return seen

    feed("Start")
    if layer.tls is not ssl_connection:
        raise _Lacking("ServerTLSLayer.tls is not what tls_start_server has given")
    end = feed("DataReceived", context.server, b"server")
    if got != [b"", b"server"]:
        raise _Lacking("a ServerTLSLayer does not call its receive_handshake_data")
    if "TlsFailedServerHook" not in end or "CloseConnection" not in end:
        raise _Lacking("a ServerTLSLayer goes on when its receive_handshake_data has failed")


def _fill(data: Any, server: Any, ssl_connection: object) -> None:
    """What a handler of tls_start_server does."""
    for name in "conn", "context", "ssl_conn":
        _part(data, name, "TlsData")
    if data.ssl_conn is not None or data.conn is not server:
        raise _Lacking("tls_start_server is called with other data")
    data.ssl_conn = ssl_connection


def _hook() -> None:
    hook = _get("mitmproxy_aia.pausing", "AiaCompleteHook")
    start_hook = _get("mitmproxy.proxy.commands", "StartHook")
    made = hook("pause")
    if not isinstance(made, start_hook) or made.name != "aia_complete" or made.blocking is not True:
        raise _Lacking("a StartHook is not named, or does not wait, as it did")
    if made.args() != ["pause"]:
        raise _Lacking("a StartHook's handler gets other arguments")


def _addons() -> None:
    tlsconfig = "mitmproxy.addons.tlsconfig"
    what = "TlsConfig.tls_start_server"
    _takes(_get(tlsconfig, what), 2, what)
    if inspect.iscoroutinefunction(_get(tlsconfig, what)):
        raise _Lacking(f"{what} has become asynchronous")
    _takes(_get("mitmproxy.addons.proxyserver", "Proxyserver.listen_addrs"), 1, "listen_addrs")
    options = _get("mitmproxy.options", "Options")()
    known = set(options.keys())
    loader = SimpleNamespace(
        add_option=lambda name, *_, **__: known.add(name), add_command=lambda *_: None
    )
    for module, name in (
        (tlsconfig, "TlsConfig"),
        ("mitmproxy.addons.upstream_auth", "UpstreamAuth"),
    ):
        _get(module, name)().load(loader)
    for name in _OPTIONS:
        if name not in known:
            raise _Lacking(f"it has no option {name}")


def _turn() -> None:
    """A hook that is put in the place of an addon's own is called. If it were not, nothing
    would ever be completed."""
    options = _get("mitmproxy.options", "Options")()
    manager = _get("mitmproxy.addonmanager", "AddonManager")(SimpleNamespace(options=options))
    addon = _get("mitmproxy.addons.tlsconfig", "TlsConfig")()
    got: list[object] = []
    addon.tls_start_server = got.append
    _part(manager, "chain", "AddonManager").append(addon)
    manager.trigger(_get(_LAYERS, "TlsStartServerHook")("data"))
    if got != ["data"]:
        raise _Lacking("an AddonManager does not look for a hook on the addon")


def _openssl() -> None:
    for name in OPENSSL:
        _get("OpenSSL.SSL", f"_lib.{name}")
    for name in "gc", "string", "callback", "NULL":
        _get("OpenSSL.SSL", f"_ffi.{name}")
    _get("OpenSSL.crypto", "X509._from_raw_x509_ptr")
    _get("OpenSSL.SSL", "Connection._reverse_mapping")
    _get("OpenSSL.crypto", "X509StoreFlags.PARTIAL_CHAIN")
    method = _get("OpenSSL.SSL", "TLS_METHOD")
    context = _get("OpenSSL.SSL", "Context")(method)
    _part(context, "_context", "SSL.Context")
    connection = _get("OpenSSL.SSL", "Connection")(context)
    for name in _OF_A_CONNECTION:
        _part(connection, name, "SSL.Connection")
    store, certificate = context.get_cert_store(), _get("OpenSSL.crypto", "X509")()
    _part(store, "_store", "X509Store")
    _part(certificate, "_x509", "X509")
    made = _get("OpenSSL.crypto", "X509StoreContext")(store, certificate, [])
    _part(made, "_chain", "X509StoreContext")


def _configuration() -> None:
    if (flaw := rehearsal.obstacle()) is not None:
        raise _Lacking(flaw)


def _verdicts() -> None:
    if (flaw := selftest.wrong_verdict()) is not None:
        raise _Lacking(flaw)


def _httpx() -> None:
    """A transport sends with what is in its `_pool`: the limit to what it receives is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = _get("httpx", "AsyncHTTPTransport")(verify=context)
    pool = _part(transport, "_pool", "AsyncHTTPTransport")
    if not isinstance(pool, _get("httpcore", "AsyncConnectionPool")):
        raise _Lacking("the _pool of an AsyncHTTPTransport is not httpcore's")


_CHECKS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("mitmproxy", _layer_methods),
    ("mitmproxy", _layer_at_work),
    ("mitmproxy", _hook),
    ("mitmproxy", _addons),
    ("mitmproxy", _turn),
    ("pyOpenSSL", _openssl),
    (_CONFIGURATION, _configuration),
    ("pyOpenSSL", _verdicts),
    ("httpx", _httpx),
)
