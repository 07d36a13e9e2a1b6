"""Pausing the upstream TLS handshake; the only module that knows mitmproxy's layers.

OpenSSL is allowed to go on after an error that another path could cure, so that it checks
everything else (host name, the leaf's dates, ...) as always. What it then wants to send to
the server is held back until there is a verdict: the layer's `receive_handshake_data`
generator is wrapped, and its next command is passed on only after a completion was verified.
It is what SSL_set_retry_verify(3) does, which pyOpenSSL does not offer.

The verdict starts as "failed" and becomes "verified" in one place, `_Watch._decide`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mitmproxy import tls
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import tls as tls_layers
from OpenSSL import SSL, crypto

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.errors import curable
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.rejections import rejected_in
from mitmproxy_aia.verification import Verifier

logger = logging.getLogger(__name__)

Handshake = Generator[commands.Command, Any, tuple[bool, str | None]]
"""(done, error), as TunnelLayer.receive_handshake_data returns it."""

_FAILED = "Certificate verify failed"
"""As mitmproxy words it."""
_SET_BY_A_HANDSHAKE = ("timestamp_tls_setup", "certificate_list", "alpn", "cipher", "tls_version")


@dataclass
class Pause:
    """A handshake that waits for a completion. Nobody but the hook's handler sets `outcome`;
    as long as it is None the server is not verified."""

    completion: Completion
    outcome: Outcome | None = None


@dataclass
class AiaCompleteHook(commands.StartHook):
    """
    The handshake with a server is paused because its certificate chain is incomplete.

    The addon is expected to try to complete it and to set pause.outcome.
    """

    pause: Pause


Begin = Callable[[Iterable[Certificate], Verifier], Completion]
"""Starts the completion of a presented chain, leaf first. Raises ValueError if the leaf cannot
be read."""
Conclude = Callable[[Outcome], None]
"""Takes note of what came of it."""


Learn = Callable[[Sequence[Certificate]], None]
"""Takes the intermediates of a complete chain that OpenSSL has verified."""


def watch(
    data: tls.TlsData,
    begin: Begin,
    conclude: Conclude,
    *,
    learn: Learn | None = None,
    complete: Callable[[], None] = lambda: None,
    audit: bool = False,
) -> bool:
    """Watches the handshake that `data.ssl_conn` is about to do with a server.

    `complete` is called when the chain was complete and verified. With `audit` an incomplete
    chain is completed for `conclude` to know, and the handshake fails all the same, with
    mitmproxy's own words. Returns whether it will be watched: not if its layer is not one that
    we know, nor with Suite B.
    """
    if data.ssl_conn is None or is_suite_b(data.conn.cipher_list):
        return False
    for candidate in data.context.layers:
        if isinstance(candidate, tls_layers.ServerTLSLayer) and candidate.conn is data.conn:
            level = security_level(
                data.conn.cipher_list, data.context.options.tls_version_server_min
            )
            trust = (
                data.context.options.ssl_verify_upstream_trusted_ca,
                data.context.options.ssl_verify_upstream_trusted_confdir,
            )
            watch = _Watch(
                candidate, data.ssl_conn, level, trust, begin, conclude, learn, complete, audit
            )
            watch.start()
            return True
    return False


class _Watch:
    """One handshake. `_forgiving` from its first byte to the verdict or the end,
    and `_driving` while the layer's own generator runs in ours."""

    def __init__(
        self,
        layer: tls_layers.ServerTLSLayer,
        ssl_connection: SSL.Connection,
        security_level: int | None,
        trust: tuple[str | None, str | None],
        begin: Begin,
        conclude: Conclude,
        learn: Learn | None,
        complete: Callable[[], None],
        audit: bool,
    ) -> None:
        self._layer = layer
        self._connection = ssl_connection
        self._security_level = security_level
        self._trust = trust
        self._begin = begin
        self._conclude = conclude
        self._learn = learn
        self._complete = complete
        self._audit = audit
        self._stock = layer.receive_handshake_data
        self._forgiven: list[Fault] = []
        self._forgiving = True
        self._driving = False

    def start(self) -> None:
        # On the instance, so that no other connection is concerned; mypy knows classes only.
        self._layer.receive_handshake_data = self._receive_handshake_data  # type: ignore[method-assign] # this layer only
        self._connection.set_verify(SSL.VERIFY_PEER, self._verify_callback)

    def _verify_callback(
        self, _connection: SSL.Connection, _certificate: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL found an error (not `ok`) or none; the result is whether it shall go on."""
        if ok:
            return True
        # A renegotiation verifies again, when nobody waits to decide any more.
        # If it is not us who drive the handshake, nobody is going to decide at all.
        if not self._driving or not self._forgiving or not curable(code, depth):
            return False
        self._forgiven.append(Fault.of(code, depth))
        return True

    def _receive_handshake_data(self, data: bytes) -> Handshake:
        """In place of the layer's own: the same commands, but none between the certificate
        and the verdict, and an error if that is not "verified"."""
        if self._connection is not self._layer.tls:
            # Another addon has put its own connection in place of ours.
            return (yield from self._stock(data))
        before = {name: getattr(self._layer.conn, name) for name in _SET_BY_A_HANDSHAKE}
        stock = self._stock(data)
        reply: object = None
        result: tuple[bool, str | None] | None = None
        while result is None:
            command: commands.Command | None = None
            self._driving = True
            try:
                command = stock.send(reply)
            except StopIteration as end:
                result = end.value
            finally:
                self._driving = False
            if self._forgiving and self._forgiven and not (result and result[1]):
                failure = yield from self._decide()
                self._forgiving = False
                if failure is not None:
                    stock.close()
                    for name, value in before.items():
                        setattr(self._layer.conn, name, value)
                    _seal(self._layer)
                    return False, failure
            if command is not None:
                reply = yield command
        if result != (False, None):
            self._forgiving = False
        if result[1] and self._audit and self._forgiven:
            # OpenSSL went on after the error with which it would have ended.
            result = False, f"{_FAILED}: {self._forgiven[0].text}"
        if result == (True, None) and not self._forgiven:
            self._tell()
        return result

    def _tell(self) -> None:
        """Has the complete chain learned. Whatever comes of that, the server is verified."""
        try:
            self._complete()
            if self._learn is not None:
                self._learn(_verified_intermediates(self._connection))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            logger.exception("learning from a complete certificate chain failed")

    def _decide(self) -> Generator[commands.Command, Any, str | None]:
        """None if the chain was completed and verified, else the error for the client."""
        outcome: Outcome | None = None
        error = self._forgiven[0].text
        try:
            verifier = Verifier.for_connection(
                self._connection, self._security_level, rejected_in(*self._trust)
            )
            try:
                completion = self._begin(_presented(self._connection), verifier)
            except ValueError as unreadable:
                return f"{_FAILED}: {error} ({unreadable})"
            outcome = completion.complete_at_once()
            if not outcome.verified:
                pause = Pause(completion)
                yield AiaCompleteHook(pause)
                outcome = pause.outcome
            if outcome is not None:
                self._conclude(outcome)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # Nothing is awaited here, so that a CancelledError is an error like others; and a
            # panic in `cryptography` is no Exception. mitmproxy would let the client wait.
            logger.exception("completing a certificate chain failed")
            outcome = None
        if self._audit:
            return f"{_FAILED}: {error}"
        if outcome is not None and outcome.verified:
            return None
        return f"{_FAILED}: {outcome.reason if outcome else error}"


def _presented(connection: SSL.Connection) -> Iterator[Certificate]:
    """What the server sent, in its order, leaf first, each parsed when it is taken. Raises
    ValueError if the leaf cannot be read; of the others, those that cannot are left out."""
    for position, certificate in enumerate(connection.get_peer_cert_chain() or ()):
        try:
            yield Certificate.from_der(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
        except ValueError as error:
            if position == 0:
                raise ValueError(f"the server's certificate cannot be read: {error}") from error


def _verified_intermediates(connection: SSL.Connection) -> tuple[Certificate, ...]:
    """What OpenSSL has verified between the leaf and the trust anchor of `connection`."""
    chain = connection.get_verified_chain() or []
    try:
        return tuple(
            Certificate.from_der(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
            for certificate in chain[1:-1]
        )
    except ValueError:
        # One that only OpenSSL can read: path building could do nothing with it.
        return ()


def _seal(layer: tls_layers.ServerTLSLayer) -> None:
    """Makes a rejected connection unusable, as OpenSSL does in a failed handshake.

    In TLS 1.3 ours has succeeded as far as OpenSSL knows. Without this, what the server sent
    in the meantime would be decrypted and passed on, and the next write would bring our
    Finished and any client certificate with it.
    """

    def nothing(data: bytes = b"") -> Generator[commands.Command, Any, None]:
        yield from ()

    # On the instance again; mypy knows classes only.
    layer.receive_data = nothing  # type: ignore[method-assign] # this layer only
    layer.send_data = nothing  # type: ignore[method-assign] # this layer only
    layer.tls_interact = nothing  # type: ignore[method-assign] # this layer only


def security_level(cipher_list: Sequence[str], tls_version_min: str) -> int | None:
    """OpenSSL's security level for a connection with these ciphers, or with those that
    mitmproxy uses by default for this minimal version (mitmproxy.net.tls.Version). None: the
    one from OpenSSL's configuration."""
    levels = re.findall(r"@SECLEVEL=(\d)", ":".join(cipher_list))
    if levels:
        return int(levels[-1])
    if not cipher_list and tls_version_min in _INSECURE_VERSIONS:
        return 0  # TlsConfig puts @SECLEVEL=0 in front of its default ciphers.
    return None


_INSECURE_VERSIONS = frozenset({"UNBOUNDED", "SSL3", "TLS1", "TLS1_1"})


def is_suite_b(cipher_list: Sequence[str]) -> bool:
    """Whether these ciphers ask for Suite B (openssl-ciphers(1), RFC 6460), which binds the keys
    and signatures of the chain as well. A rehearsal cannot ask for that, so that OpenSSL alone
    has to verify such a server."""
    return any(cipher.startswith("SUITEB") for cipher in ":".join(cipher_list).split(":"))
