"""A mitmproxy or aioquic that has changed in what QUIC leans on: QUIC is left to it alone."""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Any

import aioquic.tls
import pytest
from aioquic.quic import configuration, connection
from aioquic.quic import packet as quic_packet
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.hooks import DoneHook
from mitmproxy.proxy import events, tunnel
from mitmproxy.proxy.layers import quic as layers
from mitmproxy.test import taddons
from OpenSSL import SSL

import mitmproxy_aia.addon
from mitmproxy_aia import Aia
from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.quic_compatibility import quic_incompatibility
from tests.test_compatibility import Patch, Without, generator, gone, other, plain


def test_compatible() -> None:
    """Nothing is lacking in what the tests run with, however often it is looked at."""
    assert [quic_incompatibility() for _ in range(3)] == [None] * 3


def test_leaves_no_error_behind() -> None:
    """A TLS connection would be blamed for what OpenSSL still has to say of a signature."""
    ssl: Any = SSL
    ssl._lib.ERR_clear_error()
    assert (incompatibility(), quic_incompatibility()) == (None, None)
    assert ssl._lib.ERR_peek_error() == 0


def believes(**_: object) -> None:
    pass


def refuses_for_no_reason(
    certificate: object,
    chain: object = (),
    server_name: object = None,
    cadata: object = None,
    cafile: object = None,
    capath: object = None,
) -> None:
    raise aioquic.tls.AlertBadCertificate("no")


def verifies_by_other_means(self: object, input_buf: object) -> None:
    pass


def has_another_engine(self: Any, original_destination_connection_id: object) -> Any:
    yield from start_tls(self, original_destination_connection_id)
    self.quic = Without(self.quic, "nothing")


async def later(self: object, data: object) -> None:
    pass


def never_listens(self: Any, event: events.Event) -> Any:
    if isinstance(event, events.Start):
        yield from self.start_handshake()


def verifies_whatever_is_configured(self: Any, *args: Any, **kwargs: Any) -> None:
    make_context(self, *args, **kwargs)
    self._verify_mode = ssl.CERT_NONE


def keeps_certificates_elsewhere(self: Any, *args: Any, **kwargs: Any) -> None:
    make_context(self, *args, **kwargs)
    del self._peer_certificate_chain


quic_layer: Any = layers.ServerQuicLayer.__mro__[1]
start_tls: Any = quic_layer.start_tls
make_context = aioquic.tls.Context.__init__

MITMPROXY: dict[str, Callable[[Patch], None]] = {
    "has no ServerQuicLayer": gone(layers, "ServerQuicLayer"),
    "ServerQuicLayer.receive_handshake_data is no generator function": other(
        quic_layer, "receive_handshake_data", plain
    ),
    "has no ServerQuicLayer.tls_interact": gone(quic_layer, "tls_interact"),
    "a ServerQuicLayer does not call its receive_handshake_data": other(
        tunnel.TunnelLayer, "_handle_event", never_listens
    ),
    "a ServerQuicLayer goes on when its receive_handshake_data has failed": other(
        layers.ServerQuicLayer, "on_handshake_error", generator
    ),
    "has no TlsConfig.quic_start_server": gone(TlsConfig, "quic_start_server"),
    "TlsConfig.quic_start_server takes other arguments": other(
        TlsConfig, "quic_start_server", lambda self: None
    ),
    "TlsConfig.quic_start_server has become asynchronous": other(
        TlsConfig, "quic_start_server", later
    ),
    "the quic of a ServerQuicLayer is not aioquic's": other(
        quic_layer, "start_tls", has_another_engine
    ),
}
AIOQUIC: dict[str, Callable[[Patch], None]] = {
    "has no verify_certificate": gone(aioquic.tls, "verify_certificate"),
    "verify_certificate takes other arguments": other(
        aioquic.tls, "verify_certificate", lambda certificate: None
    ),
    "verify_certificate does not say what OpenSSL has said": other(
        aioquic.tls, "verify_certificate", believes
    ),
    "verify_certificate does not say": other(
        aioquic.tls, "verify_certificate", refuses_for_no_reason
    ),
    "verify_certificate is not what it verifies with": other(
        aioquic.tls.Context, "_client_handle_certificate_verify", verifies_by_other_means
    ),
    "the _verify_mode of its Context is not what was configured": other(
        aioquic.tls.Context, "__init__", verifies_whatever_is_configured
    ),
    "aioquic.tls.Context has no _peer_certificate_chain": other(
        aioquic.tls.Context, "__init__", keeps_certificates_elsewhere
    ),
    "QuicConnection.configuration is not what it was made with": other(
        connection.QuicConnection, "configuration", configuration.QuicConfiguration()
    ),
    "has no State.CLIENT_POST_HANDSHAKE": other(
        aioquic.tls, "State", Without(aioquic.tls.State, "CLIENT_POST_HANDSHAKE")
    ),
    "has no QuicErrorCode.CRYPTO_ERROR": other(quic_packet, "QuicErrorCode", object()),
}


@pytest.mark.parametrize("what", [*MITMPROXY, *AIOQUIC])
def test_changed(what: str, monkeypatch: Patch) -> None:
    """One line that names the package, and what is not as it was; the rest can still work."""
    (MITMPROXY | AIOQUIC)[what](monkeypatch)
    line = quic_incompatibility() or ""
    package = "mitmproxy" if what in MITMPROXY else "aioquic"
    assert re.match(rf"mitmproxy-aia \S+ cannot work with {package} \d\S+: ", line), line
    assert what in line
    assert line.isprintable()
    # What both kinds of layers have from TunnelLayer is the others' business as well.
    if what != "a ServerQuicLayer does not call its receive_handshake_data":
        assert incompatibility() is None


def test_quic_is_left_alone(monkeypatch: Patch, caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING, which ends nothing, and mitmproxy's hook for QUIC stays its own; that for TLS
    is ours all the same."""
    monkeypatch.setattr(mitmproxy_aia.addon, "quic_incompatibility", lambda: "aioquic has changed")

    async def main() -> None:
        tlsconfig = TlsConfig()
        with taddons.context(tlsconfig) as context:
            context.master.addons.add(Aia())
            assert "tls_start_server" in vars(tlsconfig)
            assert "quic_start_server" not in vars(tlsconfig)
            context.master.addons.trigger(DoneHook())

    asyncio.run(main())
    said = [record for record in caplog.records if "aioquic has changed" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]
