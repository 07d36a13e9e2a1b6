"""One path against the trust store of one connection, judged by OpenSSL.

Nothing here ever changes the trust store of the connection: mitmproxy shares it between
connections, and a certificate whose subject is its issuer would become a trust anchor the
moment it is added.

OpenSSL is asked twice:

1. Which trust anchor is above the path's last certificate? The connection's own store
   answers; the candidate is the *target* of that verification, so it cannot vouch for itself.
   The answer is kept for the next connection with that store (see `anchors`).
2. Is the path good up to that anchor? A store that lives for this one question holds that
   anchor, and carries the parameters of the connection (host name, flags, depth) and the
   purpose "SSL server". In a rehearsed handshake libssl verifies against it what it would have
   verified had the server sent the certificates of this one path, with no choice. What libssl
   asks on top of X509_verify_cert(3) is asked once of the same certificates (see `strengths`).

In between stands what only the owner of the trust store can say: that a CA is rejected, be it
also in a certificate of another issuer (openssl-x509(1), -addreject). Flags that somebody has
set on the X509_STORE itself count for the first question only; mitmproxy sets none.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from mitmproxy_aia import costs, errors, loaded, openssl, strengths
from mitmproxy_aia.anchors import Anchors, anchors_of
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.openssl import Chain, Fault, Result, error_text
from mitmproxy_aia.paths import Path
from mitmproxy_aia.rehearsal import rehearse

__all__ = ["Fault", "Verdict", "Verifier", "error_text"]


@dataclass(frozen=True)
class Verdict:
    """What OpenSSL says of a path.

    `verified` is the whole path, leaf to trust anchor, or None. `fault` is None only then.
    `growable` tells that the path has no fault of its own: with another certificate on top
    it may still lead to a trust anchor.
    """

    verified: Path | None
    fault: Fault | None
    growable: bool


class Verifier:
    """Judges paths as the handshake of one connection would.

    `store` is the connection's trust store; it is only read. `parameters` is a C
    X509_VERIFY_PARAM with what the connection asks (host name, flags), or None. `owner` is
    kept alive as long as the verifier, since the two before belong to it.
    `ciphers` is the connection's list, from which libssl takes the security level; from its
    configuration (2, unless openssl.cnf has another) if there is none. `rejected` are CAs
    (`Certificate.identity`) of which the owner of the trust store wants to know nothing.
    `at` is the time of the verdicts if that is not now, and then `store` is set to it as well.
    `anchors` is what is remembered of `store`, and of no other.
    """

    def __init__(
        self,
        store: crypto.X509Store,
        *,
        parameters: Any = None,
        owner: object = None,
        ciphers: str = "",
        rejected: frozenset[tuple[bytes, bytes]] = frozenset(),
        at: datetime.datetime | None = None,
        anchors: Anchors | None = None,
    ) -> None:
        self._rejected = rejected
        self._at = at
        self._store = store
        self._parameters = parameters
        self._owner = owner
        self._ciphers = ciphers
        self._anchors = Anchors() if anchors is None else anchors
        self._signatures = 0
        self._above: dict[Certificate, Result] = {}
        self._recalled: set[Certificate] = set()
        self._steps: dict[tuple[Certificate, Certificate], Fault | None] = {}

    @classmethod
    def for_connection(
        cls,
        connection: SSL.Connection,
        ciphers: str,
        rejected: frozenset[tuple[bytes, bytes]] = frozenset(),
        *,
        at: datetime.datetime | None = None,
    ) -> Verifier:
        """A verifier that asks what `connection` asks of its server."""
        context = connection.get_context()
        store = context.get_cert_store()
        if store is None:
            raise ValueError("the connection has no trust store")
        return cls(
            store,
            parameters=openssl.parameters_of(connection),
            owner=connection,
            ciphers=ciphers,
            rejected=rejected,
            at=at,
            anchors=anchors_of(context) if at is None else None,
        )

    def has_nothing_above(self, certificate: Certificate) -> None:
        """To be told what OpenSSL has just found in the trust store of the connection: no issuer
        of `certificate`. It need not be asked once more."""
        missing = Fault.of(errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0)
        self._above[certificate] = [], missing

    @property
    def signatures(self) -> int:
        """How many signatures are in the chains that were verified so far. OpenSSL checks those of
        a bad path up to five times over: it is asked again for what is wrong, and of a part."""
        return self._signatures

    def fault_above(self, certificate: Certificate) -> Fault | None:
        """None if `certificate` is a trust anchor, or the trust store has one above it."""
        return self._found_above(certificate)[1]

    def step(self, certificate: Certificate, issuer: Certificate) -> Fault | None:
        """What is wrong with one step of a path, by itself: the signature, dates, whether
        the issuer is a CA. Depth 0 is `certificate`.

        This decides nothing but what need not be looked at further. It costs one signature
        check for each pair, however many paths the pair is part of.
        """
        step = certificate, issuer
        if step not in self._steps:
            if costs.too_much(step):
                self._steps[step] = _too_much(1)
                return self._steps[step]
            try:
                trusted = openssl.store_of([loaded.to_openssl(issuer)], partial=True, at=self._at)
                _, self._steps[step] = self._verify(trusted, [loaded.to_openssl(certificate)])
            except crypto.Error:
                self._steps[step] = openssl.unreadable(1)
        return self._steps[step]

    def judge(self, path: Path) -> Verdict:
        """A verdict on the path that begins with `path` and goes on to a trust anchor."""
        try:
            verdict = self._judge(path)
            if verdict.verified is None and path[-1] in self._recalled:
                # The store may know another anchor by now, or a better one.
                self._recalled.remove(path[-1])
                self._anchors.forget(path[-1])
                self._above[path[-1]] = self._look_above(path[-1])
                verdict = self._judge(path)
            return verdict
        except crypto.Error:
            return Verdict(None, openssl.unreadable(len(path) - 1), False)

    def _judge(self, path: Path) -> Verdict:
        top = len(path) - 1
        if costs.too_much(path):
            return Verdict(None, _too_much(top), False)
        above, fault = self._found_above(path[-1])
        if fault is not None:
            if top > 0 and (wrong_step := self.step(path[-2], path[-1])):
                return Verdict(None, wrong_step.raised_by(top - 1), False)
            return Verdict(None, fault.raised_by(top), not fault.self_signed)
        if (rejected := self._rejection(path)) is not None:
            return Verdict(None, rejected, False)
        whole = [*map(loaded.to_openssl, path[:-1]), *above]
        # The last of `above` is the anchor, be it the only one.
        verified, fault = self._check(whole, above[1:] or above)
        if fault is None:
            good = tuple(map(loaded.from_openssl, verified))
            for depth, issuer in enumerate(good[1:], 1):
                if self._rejected and issuer.identity in self._rejected:
                    return Verdict(None, Fault.of(errors.CERT_REJECTED, depth), False)
            return Verdict(good, None, False)
        # Is the fault in the path, or only in what the trust store has above it?
        lower = whole[: top + 1]
        _, own = self._check(lower, lower[-1:], partial=True)
        return Verdict(None, fault, own is None)

    def _found_above(self, certificate: Certificate) -> Result:
        """`certificate` and what OpenSSL finds above it in the connection's trust store; up to
        a trust anchor if there is no fault. There are no untrusted certificates. What the anchor
        is trusted for is another question."""
        if certificate not in self._above:
            if (remembered := self._anchors.above(certificate)) is not None:
                self._above[certificate] = remembered, None
                self._recalled.add(certificate)
            else:
                self._above[certificate] = self._look_above(certificate)
        return self._above[certificate]

    def _look_above(self, certificate: Certificate) -> Result:
        if costs.too_much([certificate]):
            return [], _too_much(0)
        try:
            chain, fault = self._verify(self._store, [loaded.to_openssl(certificate)])
        except crypto.Error:
            return [], openssl.unreadable(0)
        if fault is not None and 0 < fault.depth == len(chain) - 1:
            # Here nobody says that it is about TLS servers, so that OpenSSL rejects an
            # anchor that is trusted for just these (openssl-x509(1), -addtrust).
            fault = None if fault.code == errors.CERT_REJECTED else fault
        if fault is None:
            self._anchors.remember(certificate, chain)
            # With one object for each anchor, of which nothing has to be read again.
            chain = self._anchors.above(certificate) or chain
        return chain, fault

    def _rejection(self, path: Path) -> Fault | None:
        """Whether the trust store rejects a CA of `path` as an issuer for TLS servers.

        OpenSSL looks for issuers in the trust store first, so it would have met the rejected
        certificate, even if another one of that name and key were presented; be it that these
        are written in another way there.
        """
        depths = {certificate.identity: depth for depth, certificate in enumerate(path)}
        for below, certificate in enumerate(path[:-1]):
            for height, trusted in enumerate(self._found_above(certificate)[0][1:], 1):
                issuer = loaded.from_openssl(trusted)
                depth = depths.get(issuer.identity)
                if depth is None and height == 1:
                    step = self.step(certificate, issuer)
                    if step is None or not errors.not_the_issuer(step.code):
                        depth = below + 1
                if depth is not None and self._is_rejected(trusted):
                    return Fault.of(errors.CERT_REJECTED, depth)
        return None

    def _is_rejected(self, trusted: crypto.X509) -> bool:
        store = openssl.store_of([trusted], partial=True, at=self._at)
        openssl.ask_for_servers(store)
        _, fault = self._verify(store, [trusted])
        return fault is not None and fault.code == errors.CERT_REJECTED

    def _check(self, chain: Chain, trusted: Chain, *, partial: bool = False) -> Result:
        """Has OpenSSL verify exactly this chain, as the connection would, if `trusted` and no
        others were in its trust store. Returns the chain as OpenSSL verified it."""
        store = openssl.store_of(trusted, partial=partial, at=self._at)
        openssl.ask_for_servers(store, self._parameters)
        self._signatures += len(chain)
        sent, key = chain[:-1] or chain, strengths.key_of(self._ciphers, chain)
        if strengths.is_strong(key):
            result = openssl.verify(store, sent, [*chain, *trusted])
            if result[1] is None:
                return result
        built, fault = rehearse(store, sent, self._ciphers)
        if fault is None and strengths.key_of(self._ciphers, built) == key:
            strengths.remember(key)
        return built, fault

    def _verify(self, store: crypto.X509Store, chain: Chain) -> Result:
        self._signatures += len(chain)
        return openssl.verify(store, chain, chain)


def _too_much(depth: int) -> Fault:
    return Fault(errors.UNSPECIFIED, depth, "certificates that would take too long to verify")
