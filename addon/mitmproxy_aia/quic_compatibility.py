"""Whether the installed mitmproxy and aioquic still have what `quic` leans on.

Where they have not, QUIC is left to them alone, which refuse what is incomplete; TLS and DTLS
are none the worse for it. See `compatibility` for those.
"""

from __future__ import annotations

import inspect
import ssl
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from mitmproxy_aia import openssl, selftest
from mitmproxy_aia.compatibility import layer_at_work, layer_methods
from mitmproxy_aia.lacking import Lacking, first_flaw, get, part, takes

_LAYERS = "mitmproxy.proxy.layers.quic"
_VERIFIED_WITH = ("certificate", "chain", "server_name", "cadata", "cafile", "capath")


def quic_incompatibility() -> str | None:
    """One line that says what is not as `quic` needs it, or None. Changes nothing."""
    begun: list[Any] = []
    return first_flaw(
        (
            ("mitmproxy", lambda: begun.append(_mitmproxy())),
            ("aioquic", lambda: _aioquic(begun[0])),
        )
    )


def _mitmproxy() -> Any:
    """Returns aioquic's side of a connection that a layer has begun, which takes milliseconds."""
    layer_methods(_LAYERS, "ServerQuicLayer")
    layer = layer_at_work(
        lambda context, server: get(_LAYERS, "ServerQuicLayer")(context, server, time=lambda: 0.0),
        "ServerQuicLayer",
        "QuicStartServerHook",
        "settings",
        get(_LAYERS, "QuicTlsSettings")(alpn_protocols=["h3"], verify_mode=ssl.CERT_REQUIRED),
    )
    what = "TlsConfig.quic_start_server"
    takes(get("mitmproxy.addons.tlsconfig", what), 2, what)
    if inspect.iscoroutinefunction(get("mitmproxy.addons.tlsconfig", what)):
        raise Lacking(f"{what} has become asynchronous")
    quic = part(layer, "quic", "ServerQuicLayer")
    if not isinstance(quic, get("aioquic.quic.connection", "QuicConnection")):
        raise Lacking("the quic of a ServerQuicLayer is not aioquic's")
    return quic


def _aioquic(begun: Any) -> None:
    configuration = get("aioquic.quic.configuration", "QuicConfiguration")(
        alpn_protocols=["h3"], verify_mode=ssl.CERT_REQUIRED
    )
    quic = get("aioquic.quic.connection", "QuicConnection")(configuration=configuration)
    if part(quic, "configuration", "QuicConnection") is not configuration:
        raise Lacking("QuicConnection.configuration is not what it was made with")
    for name in "server_name", "cadata", "cafile", "capath":
        part(configuration, name, "QuicConfiguration")
    context = part(begun, "tls", "QuicConnection")
    for name in "state", "_verify_mode", "_peer_certificate", "_peer_certificate_chain":
        part(context, name, "aioquic.tls.Context")
    if context._verify_mode != ssl.CERT_REQUIRED:
        raise Lacking("the _verify_mode of its Context is not what was configured")
    get("aioquic.tls", "State.CLIENT_POST_HANDSHAKE")
    get("aioquic.tls", "AlertDescription.bad_certificate")
    get("aioquic.quic.packet", "QuicErrorCode.CRYPTO_ERROR")
    get("aioquic.quic.packet", "QuicFrameType.CRYPTO")
    _says_no(get("aioquic.tls", "verify_certificate"))


def _says_no(verify_certificate: Any) -> None:
    """aioquic's check takes what it took, is what aioquic itself calls, and raises an Alert
    that tells what OpenSSL has said."""
    try:
        inspect.signature(verify_certificate).bind(**dict.fromkeys(_VERIFIED_WITH))
    except (TypeError, ValueError):
        raise Lacking("aioquic.tls.verify_certificate takes other arguments") from None
    method = get("aioquic.tls", "Context._client_handle_certificate_verify")
    if "verify_certificate" not in method.__code__.co_names:
        raise Lacking("aioquic.tls.verify_certificate is not what it verifies with")
    leaf, root = selftest.leaf_and_stranger()
    try:
        verify_certificate(certificate=leaf.x509, cadata=root.x509.public_bytes(Encoding.PEM))
    except get("aioquic.tls", "Alert") as alert:
        if get("mitmproxy_aia.quic", "is_curable")(alert):
            return
    finally:
        openssl.clear_errors()
    raise Lacking("aioquic.tls.verify_certificate does not say what OpenSSL has said")
