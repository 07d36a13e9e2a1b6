"""Watching OpenSSL's handshakes with servers: TLS over TCP, and DTLS.

OpenSSL is allowed to go on after an error that another path could cure, so that it checks
everything else (host name, the leaf's dates, ...) as always. Whatever it then wants to send to
the server waits for the verdict: see `pausing`. It is what SSL_set_retry_verify(3) does, which
pyOpenSSL does not offer.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

from mitmproxy import tls
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy.layers import tls as tls_layers
from OpenSSL import SSL

from mitmproxy_aia import costs, pausing
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.errors import UNABLE_TO_GET_ISSUER_CERT_LOCALLY, curable
from mitmproxy_aia.formats import presented
from mitmproxy_aia.loaded import unparsed
from mitmproxy_aia.openssl import (
    Built,
    error_text,
    forgive,
    is_forgiving,
    presented_to,
    verified_intermediates,
)
from mitmproxy_aia.pausing import Commands, Objection, Watcher
from mitmproxy_aia.rejections import rejected_in
from mitmproxy_aia.verification import Verifier

_FAILED = "Certificate verify failed: "
"""As mitmproxy words it."""
_TOO_MUCH = " (the server's certificates would take too long to verify)"


def watch(data: tls.TlsData, watcher: Watcher) -> bool:
    """Watches the handshake that `data.ssl_conn` is about to do with a server. Returns whether it
    will be watched: not if its layer is not one that we know, nor with Suite B."""
    if data.ssl_conn is None or is_suite_b(data.conn.cipher_list):
        return False
    for candidate in data.context.layers:
        if isinstance(candidate, tls_layers.ServerTLSLayer) and candidate.conn is data.conn:
            handshake = _Handshake(candidate, data, data.ssl_conn)
            pausing.watch(candidate, handshake, watcher)
            handshake.start()
            return True
    return False


class _Handshake:
    """`_driving` while the layer's own generator runs in ours."""

    def __init__(
        self, layer: tls_layers.ServerTLSLayer, data: tls.TlsData, connection: SSL.Connection
    ) -> None:
        options = data.context.options
        self._layer = layer
        self._connection = connection
        self._ciphers = tuple(data.conn.cipher_list), options.tls_version_server_min
        self._trust = (
            options.ssl_verify_upstream_trusted_ca,
            options.ssl_verify_upstream_trusted_confdir,
        )
        self._objection: Objection | None = None
        self._alone = False
        self._driving = False

    def start(self) -> None:
        forgive(self._connection, self._forgives)

    def _forgives(self, code: int, depth: int, built: Built) -> bool:
        """OpenSSL found an error; the result is whether it shall go on."""
        # A renegotiation verifies again, when nobody waits to decide any more.
        # If it is not us who drive the handshake, nobody is going to decide at all.
        if not self._driving or not curable(code, depth):
            return False
        if self._objection is None:
            # OpenSSL would now verify the rest of the chain, though that leads nowhere. If
            # that is the leaf alone, there is no signature and no constraint to verify.
            chain = built()
            self._alone = len(chain) == 1 and code == UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            too_much = len(chain) > 1 and costs.too_much(unparsed(chain))
            reason = error_text(code) + (_TOO_MUCH if too_much else "")
            self._objection = Objection(reason, _FAILED, curable=not too_much)
        return self._objection.curable

    @property
    def ours(self) -> bool:
        """False also if another addon has taken it upon itself to judge this server."""
        return self._connection is self._layer.tls and is_forgiving(self._connection)

    def driven(self) -> _Handshake:
        return self

    def __enter__(self) -> None:
        self._driving = True

    def __exit__(self, *_: object) -> None:
        self._driving = False

    def objection(self, *, finished: bool) -> Objection | None:
        return self._objection

    def failure(self, error: BaseException) -> None:
        """mitmproxy's layer expects what OpenSSL may raise."""

    def verifier(self) -> Verifier:
        rejected = rejected_in(*self._trust)
        ciphers = cipher_string(*self._ciphers)
        self._verifier = Verifier.for_connection(self._connection, ciphers, rejected)
        return self._verifier

    def presented(self) -> Iterator[Certificate]:
        certificates = presented(presented_to(self._connection))
        if not self._alone:
            return certificates
        leaf = next(certificates)
        self._verifier.has_nothing_above(leaf)
        return itertools.chain([leaf], certificates)

    def confirmed(self, outcome: Outcome) -> Outcome:
        return outcome

    def verified_intermediates(self) -> Sequence[Certificate]:
        return verified_intermediates(self._connection)

    def refuse(self, objection: Objection) -> Commands:
        """Nothing but the end of the connection, as after any failed handshake."""
        yield from ()


@functools.lru_cache(maxsize=64)
def cipher_string(cipher_list: tuple[str, ...], tls_version_min: str) -> str:
    """The ciphers of a connection as OpenSSL takes them, or those that mitmproxy uses by default
    for this minimal version (mitmproxy.net.tls.Version). It may carry a security level."""
    return ":".join(cipher_list or _default_ciphers(tls_version_min))


def _default_ciphers(tls_version_min: str) -> Sequence[str]:
    """What TlsConfig takes if it is not told any. For old versions of TLS there is @SECLEVEL=0
    among them, but not before mitmproxy 11.0.1. Nothing, if it does not say what it takes."""
    try:
        return tlsconfig._default_ciphers(net_tls.Version[tls_version_min])
    except (AttributeError, KeyError, TypeError):
        return ()


def is_suite_b(cipher_list: Sequence[str]) -> bool:
    """Whether these ciphers ask for Suite B (openssl-ciphers(1), RFC 6460), which binds the keys
    and signatures of the chain as well. A rehearsal cannot ask for that, so that OpenSSL alone
    has to verify such a server."""
    ciphers = ":".join(cipher_list).split(":") if cipher_list else ()
    return any(cipher.startswith("SUITEB") for cipher in ciphers)
