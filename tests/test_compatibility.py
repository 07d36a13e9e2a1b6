"""A mitmproxy or pyOpenSSL that has changed: one line says so when the addon is loaded.

For httpx see test_late.py."""

import asyncio
import re
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mitmproxy.version
import OpenSSL
import pytest
from mitmproxy import addonmanager, connection, hooks, options, tls
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy import commands, tunnel
from mitmproxy.proxy.layers import tls as layers
from mitmproxy.test import taddons
from OpenSSL import SSL, crypto

import mitmproxy_aia.addon
from mitmproxy_aia import compatibility, openssl, selftest
from mitmproxy_aia.addon import Aia
from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.pausing import SET_BY_A_HANDSHAKE, AiaCompleteHook
from tests.lab import Issued, authority
from tests.lab.process import clean_environment
from tests.lab.proxy import ADDON
from tests.test_addon import mitmdump
from tests.test_handshake import Wire

SCRIPT = Path(__file__).parent / "scripts" / "fault_incompatible.py"
_ssl: Any = SSL

Patch = pytest.MonkeyPatch


def _itself(target: Any, name: str, patch: Patch) -> Any:
    """`OpenSSL.crypto` stands before the module of that name. It may have kept what it has got
    from there, and pytest would not undo what it has patched in front."""
    if not isinstance(target, types.ModuleType) or "_module" not in vars(target):
        return target
    patch.delitem(vars(target), name, raising=False)
    return vars(target)["_module"]


def test_compatible() -> None:
    """Nothing is lacking in what the tests run with, however often it is looked at."""
    assert [incompatibility() for _ in range(3)] == [None] * 3


def gone(target: Any, name: str) -> Callable[[Patch], None]:
    return lambda patch: patch.delattr(_itself(target, name, patch), name)


def other(target: Any, name: str, value: object) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(_itself(target, name, patch), name, value)


def generator(*_: object) -> Any:
    yield from ()


def no_method_of_that_name(patch: Patch) -> None:
    patch.delattr(layers.TLSLayer, "receive_handshake_data")
    patch.delattr(tunnel.TunnelLayer, "receive_handshake_data")


def with_three_arguments(self: object, data: bytes, more: bytes) -> Any:
    yield from ()


async def asynchronous(self: object, data: object) -> None:
    pass


def plain(self: object, data: bytes) -> tuple[bool, None]:
    return True, None


def ignores_the_connection(self: Any) -> Any:
    yield layers.TlsStartServerHook(tls.TlsData(self.conn, self.context))
    self.tls = object()
    yield from self.receive_handshake_data(b"")


def handshakes_by_itself(self: Any) -> Any:
    yield from self.start_tls()


def fills_in_before_the_addons(self: Any) -> Any:
    filled = _ssl.Connection(_ssl.Context(SSL.TLS_METHOD))
    yield layers.TlsStartServerHook(tls.TlsData(self.conn, self.context, filled))


def is_in_no_context(self: Any, context: Any, conn: Any) -> None:
    server_layer(self, context, conn)
    context.layers.clear()


def has_another_connection(self: Any, context: Any, conn: object = None) -> None:
    server_layer(self, context, connection.Server(address=None))


def keeps_elsewhere(self: Any, context: Any, conn: Any = None) -> None:
    server_layer(self, context, conn)
    queue = self._paused_event_queue

    class Elsewhere(type(self)):  # type: ignore[misc] # whatever it is
        _paused_event_queue = property(lambda _: queue, lambda *_: None)

    self.__class__ = Elsewhere


def has_another_tunnel(self: Any, context: Any, conn: Any = None) -> None:
    server_layer(self, context, conn)
    self.tunnel_connection = connection.Server(address=None)


def keeps_nothing(self: Any, context: Any, conn: Any = None) -> None:
    server_layer(self, context, conn)
    del self._paused_event_queue


server_layer = layers.ServerTLSLayer.__init__

MITMPROXY: dict[str, Callable[[Patch], None]] = {
    "has no ServerTLSLayer": gone(layers, "ServerTLSLayer"),
    "has no ServerTLSLayer.receive_handshake_data": no_method_of_that_name,
    "ServerTLSLayer.receive_handshake_data is no generator function": other(
        layers.TLSLayer, "receive_handshake_data", plain
    ),
    "ServerTLSLayer.receive_handshake_data takes other arguments": other(
        layers.TLSLayer, "receive_handshake_data", with_three_arguments
    ),
    "ServerTLSLayer.tls_interact is no generator function": other(
        layers.TLSLayer, "tls_interact", plain
    ),
    "has no ServerTLSLayer.tls_interact": gone(layers.TLSLayer, "tls_interact"),
    "ServerTLSLayer.send_data takes other arguments": other(
        layers.TLSLayer, "send_data", with_three_arguments
    ),
    "ServerTLSLayer has no tls": gone(layers.TLSLayer, "tls"),
    "ServerTLSLayer.conn is not the connection": other(
        layers.ServerTLSLayer, "__init__", has_another_connection
    ),
    "ServerTLSLayer.tls is not what TlsStartServerHook was given": other(
        layers.TLSLayer, "start_tls", ignores_the_connection
    ),
    "a ServerTLSLayer does not call its receive_handshake_data": other(
        layers.ServerTLSLayer, "start_handshake", handshakes_by_itself
    ),
    "a ServerTLSLayer goes on when its receive_handshake_data has failed": other(
        layers.ServerTLSLayer, "on_handshake_error", generator
    ),
    "TlsStartServerHook comes with other data": other(
        layers.TLSLayer, "start_tls", fills_in_before_the_addons
    ),
    "ServerTLSLayer.tunnel_connection is not the connection": other(
        layers.ServerTLSLayer, "__init__", has_another_tunnel
    ),
    "ServerTLSLayer has no _paused_event_queue": other(
        layers.ServerTLSLayer, "__init__", keeps_nothing
    ),
    "a ServerTLSLayer that waits does not keep what comes in _paused_event_queue": other(
        layers.ServerTLSLayer, "__init__", keeps_elsewhere
    ),
    "a ServerTLSLayer is not in Context.layers": other(
        layers.ServerTLSLayer, "__init__", is_in_no_context
    ),
    "the data of TlsStartServerHook has no ssl_conn": other(
        layers,
        "TlsData",
        lambda conn, *_, **__: type("Other", (), {"conn": conn, "context": 1}),
    ),
    "a StartHook is not named, or does not wait, as it did": other(
        AiaCompleteHook, "name", "a_ia_complete"
    ),
    "a StartHook's handler gets other arguments": other(hooks.Hook, "args", lambda _: []),
    "a StartHook is not named, or does not wait": other(commands, "StartHook", str),
    "has no TlsConfig.tls_start_server": gone(TlsConfig, "tls_start_server"),
    "TlsConfig.tls_start_server takes other arguments": other(
        TlsConfig, "tls_start_server", lambda self: None
    ),
    "TlsConfig.tls_start_server has become asynchronous": other(
        TlsConfig, "tls_start_server", asynchronous
    ),
    "an AddonManager does not look for a hook on the addon": other(
        addonmanager.AddonManager, "trigger", lambda *_: None
    ),
    "AddonManager has no chain": other(addonmanager.AddonManager, "__init__", lambda *_: None),
    "has no Proxyserver.listen_addrs": gone(Proxyserver, "listen_addrs"),
    "it has no option ssl_insecure": other(options.Options, "keys", lambda _: {"confdir"}),
    "it has no option tls_version_server_min": other(TlsConfig, "load", lambda *_: None),
    "has no Server": gone(connection, "Server"),
    "fails: ValueError: in two lines": other(
        layers.ServerTLSLayer, "handle_event", lambda *_: int("in\ntwo lines")
    ),
}


@pytest.mark.parametrize("what", MITMPROXY)
def test_changed_mitmproxy(what: str, monkeypatch: Patch) -> None:
    """One line that names the version and what is not as it was."""
    MITMPROXY[what](monkeypatch)
    line = incompatibility() or ""
    version = re.escape(mitmproxy.version.VERSION)
    start = rf"mitmproxy-aia \S+ cannot work with mitmproxy {version}: "
    assert re.match(start, line), line
    assert what.removesuffix(": in two lines") in line
    assert line.isprintable()


@pytest.mark.parametrize("name", SET_BY_A_HANDSHAKE)
def test_changed_connection(name: str, monkeypatch: Patch) -> None:
    """What a rejected handshake takes back must be there to be taken back."""

    class Server(connection.Server):
        def __getattribute__(self, wanted: str) -> Any:
            if wanted == name:
                raise AttributeError(wanted)
            return super().__getattribute__(wanted)

    monkeypatch.setattr(connection, "Server", Server)
    assert f"mitmproxy.connection.Server has no {name};" in (incompatibility() or "")


class Without:
    """pyOpenSSL's bindings without one name."""

    def __init__(self, real: object, name: str) -> None:
        self._real = real
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._real, name)


@pytest.mark.parametrize("name", compatibility.OPENSSL)
def test_changed_bindings(name: str, monkeypatch: Patch) -> None:
    """Each name that is called of OpenSSL's library."""
    monkeypatch.setattr(SSL, "_lib", Without(_ssl._lib, name))
    line = incompatibility() or ""
    assert f"cannot work with pyOpenSSL {OpenSSL.__version__}: " in line
    assert f"OpenSSL.SSL has no _lib.{name};" in line


def test_all_bindings_are_looked_for() -> None:
    """What `openssl` takes of OpenSSL's library, and nothing else."""
    text = Path(openssl.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"_lib\.(\w+)", text)) == set(compatibility.OPENSSL)


PYOPENSSL: dict[str, Callable[[Patch], None]] = {
    "has no _ffi.gc": other(SSL, "_ffi", object()),
    "has no X509._from_raw_x509_ptr": gone(crypto.X509, "_from_raw_x509_ptr"),
    "has no X509StoreFlags.PARTIAL_CHAIN": gone(crypto, "X509StoreFlags"),
    "SSL.Connection has no get_verified_chain": gone(SSL.Connection, "get_verified_chain"),
    "SSL has no Connection._reverse_mapping": gone(SSL.Connection, "_reverse_mapping"),
    "X509StoreContext has no _chain": other(
        crypto, "X509StoreContext", lambda *_: type("Other", (), {})
    ),
}


@pytest.mark.parametrize("what", PYOPENSSL)
def test_changed_pyopenssl(what: str, monkeypatch: Patch) -> None:
    """What is no public interface of pyOpenSSL."""
    PYOPENSSL[what](monkeypatch)
    line = incompatibility() or ""
    assert f"cannot work with pyOpenSSL {OpenSSL.__version__}: " in line
    assert what in line


def believes_everything(store: object, chain: list[Any], level: object) -> Any:
    return chain, None


def ignores_the_security_level(store: Any, chain: list[Any], level: object) -> Any:
    return openssl.verify(store, chain)


def refuses_everything(store: object, chain: list[Any], level: object) -> Any:
    return chain, openssl.Fault.of(1, 0)


@pytest.mark.parametrize(
    ("rehearse", "said"),
    [
        (believes_everything, 'says "ok" of a chain at security level 4, and should say "CA sig'),
        (
            ignores_the_security_level,
            'says "ok" of a chain at security level 4, and should say "CA',
        ),
        (refuses_everything, 'of a chain at security level 3, and should say "ok"'),
    ],
)
def test_wrong_verdicts(
    rehearse: Callable[[Any, list[Any], object], Any], said: str, monkeypatch: Patch
) -> None:
    """An OpenSSL that does not say any more what is wrong with a chain, or that it is good."""
    monkeypatch.setattr(selftest, "rehearse", rehearse)
    line = incompatibility() or ""
    assert f"cannot work with pyOpenSSL {OpenSSL.__version__}: OpenSSL says " in line
    assert said in line


def test_module_that_is_gone(monkeypatch: Patch) -> None:
    """A missing module is a reason as well; so is a version that nobody knows."""
    monkeypatch.setattr(compatibility, "_LAYERS", "mitmproxy.no_such_module")
    monkeypatch.delattr(mitmproxy.version, "VERSION")
    line = incompatibility() or ""
    assert "mitmproxy (of unknown version): it has no module mitmproxy.no_such_module;" in line


@pytest.mark.parametrize("missing", ["method", "call"])
def test_refuses_to_start(missing: str) -> None:
    """mitmdump ends with status 1 after one line from the addon, and no traceback."""
    result = subprocess.run(
        [mitmdump(), "-p", "0", "--listen-host", "127.0.0.1", "-s", SCRIPT, "-s", ADDON],
        env=clean_environment() | {"GONE": missing},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert said.count("cannot work with mitmproxy") == 1
    assert "Traceback" not in said


def test_does_nothing_where_it_cannot_work(monkeypatch: Patch) -> None:
    """Added later it ends nothing, and each handshake is as without the addon."""
    monkeypatch.setattr(mitmproxy_aia.addon, "incompatibility", lambda: "mitmproxy has changed")

    async def main() -> None:
        tlsconfig = TlsConfig()
        with taddons.context(tlsconfig) as context:
            ours = Aia()
            context.master.addons.add(ours)
            context.options.aia_cache = "memory"
            ours.running()
            assert "tls_start_server" not in vars(tlsconfig)
            context.master.addons.remove(ours)

    asyncio.run(main())


class Deaf(layers.ServerTLSLayer):
    """A layer on which nothing can be put in the place of `receive_handshake_data`."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "receive_handshake_data":
            super().__setattr__(name, value)


def test_layer_that_does_not_ask(root: Issued, monkeypatch: Patch) -> None:
    """Where nobody would decide, nothing is forgiven: OpenSSL refuses the server itself."""
    monkeypatch.setattr(layers, "ServerTLSLayer", Deaf)
    issuer = root.issue("CA", ca=True)
    for chain in [issuer.issue()], [authority("Stranger").issue()]:
        wire = Wire(root, chain).run()
        assert wire.conn.timestamp_tls_setup is None
        assert (
            wire.conn.error == "Certificate verify failed: unable to get local issuer certificate"
        )
    assert incompatibility() is not None
