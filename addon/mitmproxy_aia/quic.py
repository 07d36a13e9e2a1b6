"""Watching aioquic's handshakes with servers: HTTP/3, and QUIC with anything else in it.

aioquic verifies a server in the middle of `receive_datagram`, and asks nobody. So it is kept
from that while we drive its handshake, and at no other time. Once it has done the handshake and
before anything that comes of it is sent (no Finished, no request), it is asked for the verdict
that it would have given: aioquic.tls.verify_certificate, with the same arguments. Where that is
a refusal which another path could cure, the chain is completed: see `pausing`. The path has to
pass the same check, and all that a handshake of OpenSSL would ask of it as well.

Acknowledgements of the server's packets do leave before the verdict: without them a server may
not even send its whole chain (RFC 9000 section 8.1). During the pause itself nothing is sent. What
arrives meanwhile, timers included, waits in mitmproxy's layer; a server whose idle timeout is
shorter than the pause is gone when it ends, and aioquic finds that out by its own timer.

A refused server is told so, with the alert that aioquic would have sent: there is no other end
of a connection to see in UDP.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import certifi
import service_identity
from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy.proxy.layers.quic import QuicTlsData, QuicTlsSettings, ServerQuicLayer
from OpenSSL import crypto

from mitmproxy_aia import errors, loaded, openssl, pausing
from mitmproxy_aia.anchors import Anchors
from mitmproxy_aia.certificates import UNREADABLE, Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.formats import presented
from mitmproxy_aia.names import printable
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import Path
from mitmproxy_aia.pausing import Commands, Objection, Watcher
from mitmproxy_aia.rejections import rejected_in
from mitmproxy_aia.verification import Verdict, Verifier

logger = logging.getLogger(__name__)

MAX_REASON = 300
"""Characters that a server is told."""
_UNREADABLE = (service_identity.CertificateError, crypto.Error, *UNREADABLE)
"""What reading a stranger's certificate raises in aioquic and below it."""


def watch(data: QuicTlsData, watcher: Watcher) -> bool:
    """Watches the handshake that is about to be done with a server, as `data.settings` say.
    Returns whether it will be watched: not if its layer is not one that we know."""
    for candidate in data.context.layers:
        if isinstance(candidate, ServerQuicLayer) and candidate.conn is data.conn:
            pausing.watch(candidate, _Handshake(candidate, data.settings), watcher)
            return True
    return False


_BROKEN = Objection("certificate verify failed", curable=False)


class _Verifier(Verifier):
    """Of each path that is good so far aioquic is asked as well, before it counts as verified:
    `ask` is given what is between the leaf and the trust anchor, and says what is against it."""

    def __init__(
        self,
        ask: Callable[[Iterable[x509.Certificate]], Objection | None],
        store: crypto.X509Store,
        **more: Any,
    ) -> None:
        super().__init__(store, **more)
        self._ask = ask

    def judge(self, path: Path) -> Verdict:
        verdict = super().judge(path)
        if verdict.verified is None:
            return verdict
        objection = self._ask(certificate.x509 for certificate in verdict.verified[1:-1])
        if objection is None:
            return verdict
        return Verdict(None, Fault(errors.UNSPECIFIED, 0, objection.reason), growable=False)


class _Handshake:
    def __init__(self, layer: ServerQuicLayer, settings: QuicTlsSettings | None) -> None:
        self._layer = layer
        self._settings = settings
        self._asked = False
        self._objection: Objection | None = None
        self._alert = tls.AlertDescription.bad_certificate

    @property
    def ours(self) -> bool:
        """Not if another addon has put its settings in place of those, or wants no verification."""
        settings = self._layer.tls
        return (
            settings is not None
            and settings is self._settings
            and settings.verify_mode != ssl.CERT_NONE
        )

    @property
    def _quic(self) -> QuicConnection:
        # There is one from the hook on that we were made in.
        return cast(QuicConnection, self._layer.quic)

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        before = self._quic.configuration.verify_mode
        self._verify_mode(ssl.CERT_NONE)
        try:
            yield
        finally:
            self._verify_mode(before)

    def _verify_mode(self, mode: int | None) -> None:
        # After a Retry aioquic begins anew, with what is configured.
        self._quic.configuration.verify_mode = mode
        self._quic.tls._verify_mode = mode  # type: ignore[assignment] # None is "always", too

    def objection(self, *, finished: bool) -> Objection | None:
        done = finished or self._quic.tls.state is tls.State.CLIENT_POST_HANDSHAKE
        if done and not self._asked:
            self._asked, self._objection = True, _BROKEN
            self._objection = self._ask(self._quic.tls._peer_certificate_chain)
        return self._objection

    def failure(self, error: BaseException) -> Objection:
        """aioquic reads what the server sends with `cryptography`, and has no words for it if
        that cannot be read. mitmproxy would have crashed, and let the client wait."""
        # Its own words would be about its lists and types.
        lost = isinstance(error, (AttributeError, LookupError, TypeError))
        what = "its messages make no sense" if lost else _text_of(error)
        return Objection(f"the handshake failed ({what})", curable=False)

    def _ask(self, chain: Iterable[x509.Certificate]) -> Objection | None:
        """What aioquic has against the server's certificate with `chain` above it."""
        configuration = self._quic.configuration
        certificate = self._quic.tls._peer_certificate
        try:
            try:
                tls.verify_certificate(
                    # If there is none, it fails.
                    certificate=cast(x509.Certificate, certificate),
                    chain=[*chain],
                    server_name=configuration.server_name,
                    cadata=configuration.cadata,
                    cafile=configuration.cafile,
                    capath=configuration.capath,
                )
            except tls.Alert as alert:
                self._alert = alert.description
                # It may hold all names of the certificate.
                return Objection(printable(str(alert), 2 * MAX_REASON), curable=is_curable(alert))
        except (KeyboardInterrupt, SystemExit):
            raise
        except _UNREADABLE as error:
            # A host name or a certificate that aioquic cannot read, and has no words for: the
            # layer would have crashed, and the client waited.
            return replace(_BROKEN, reason=f"{_BROKEN.reason} ({_text_of(error)})")
        except BaseException:
            logger.exception("verifying the certificate of a QUIC server failed")
            return _BROKEN
        finally:
            # A failed signature leaves entries, and a TLS connection would be blamed for them.
            openssl.clear_errors()
        return None

    def verifier(self) -> Verifier:
        return self._make(functools.partial(_Verifier, self._ask))

    def _make(self, verifier: Callable[..., Verifier]) -> Verifier:
        configuration = self._quic.configuration
        store, anchors = self._trusted()
        return verifier(
            store,
            parameters=openssl.parameters_for(configuration.server_name),
            rejected=rejected_in(configuration.cafile, configuration.capath),
            anchors=anchors,
        )

    def _trusted(self) -> _Trusted:
        """What aioquic trusts."""
        configuration = self._quic.configuration
        file, folder = configuration.cafile, configuration.capath
        if file is None and folder is None:
            file = certifi.where()
        # That of a folder is looked up in it when it is needed.
        status = None if file is None else os.stat(file)
        return _load(file, folder, status and (status.st_ino, status.st_mtime_ns, status.st_size))

    def presented(self) -> Iterator[Certificate]:
        return presented(self._presented())

    def _presented(self) -> Iterator[bytes]:
        connection = self._quic.tls
        if connection._peer_certificate is not None:
            yield connection._peer_certificate.public_bytes(Encoding.DER)
        for certificate in connection._peer_certificate_chain:
            yield certificate.public_bytes(Encoding.DER)

    def confirmed(self, outcome: Outcome) -> Outcome:
        """Refused with the words that aioquic had in the first place, if it is."""
        fault = outcome.fault
        words = self._objection.reason if self._objection else ""
        if fault is not None and words and fault.text != words:
            return replace(outcome, fault=replace(fault, text=f"{words}; {fault.text}"))
        return outcome

    def verified_intermediates(self) -> Sequence[Certificate]:
        """Of the path that aioquic, which does not tell, must have found; unless OpenSSL would
        not have taken it in a handshake."""
        chain = [*map(loaded.to_openssl, self.presented())]
        built, fault = openssl.verify(self._trusted()[0], chain)
        if fault is not None:
            return ()
        path = tuple(loaded.from_openssl(certificate) for certificate in built[:-1])
        return (self._make(Verifier).judge(path).verified or ())[1:-1]

    def refuse(self, objection: Objection) -> Commands:
        try:
            self._quic.close(
                QuicErrorCode.CRYPTO_ERROR + self._alert,
                QuicFrameType.CRYPTO,
                # It has to fit into a packet.
                printable(objection.reason, MAX_REASON),
            )
            yield from self._layer.tls_interact()
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # The server would have found out in time, too.
            logger.exception("telling a QUIC server that it is refused failed")


_Trusted = tuple[crypto.X509Store, Anchors]
"""A trust store and what is remembered of it. With a folder, OpenSSL keeps in it what it has found
there; what is trusted no longer is refused by aioquic, which looks anew."""


# aioquic loads the roots for each verification, which takes 5 ms.
@functools.lru_cache(maxsize=4)
def _load(file: str | None, folder: str | None, _state: object) -> _Trusted:
    # Its types have no None, and it takes one.
    store: Any = crypto.X509Store()
    store.load_locations(file, folder)
    return store, Anchors()


def _text_of(error: BaseException) -> str:
    text = openssl.reason_of(error) if isinstance(error, crypto.Error) else str(error)
    return printable(text) or type(error).__name__


def is_curable(alert: tls.Alert) -> bool:
    """Whether it is OpenSSL's verdict on the chain, and not on the leaf's dates or names."""
    cause = alert.__context__
    if not isinstance(cause, crypto.X509StoreContextError):
        return False
    code, depth = cause.errors[:2]
    return errors.curable(code, depth)
