"""One path against the trust store of one connection, judged by OpenSSL.

The only module that touches OpenSSL's library. Nothing here ever changes the trust store of
the connection: mitmproxy shares it between connections, and a certificate whose subject is
its issuer would become a trust anchor the moment it is added.

OpenSSL is asked twice, with pyOpenSSL's X509StoreContext:

1. Which trust anchor is above the path's last certificate? The connection's own store
   answers; the candidate is the *target* of that verification, so it cannot vouch for itself.
2. Is the path good up to that anchor? A store that lives for this one question holds that
   anchor, and carries the parameters of the connection (host name, flags, depth) and the
   purpose "SSL server", which would not be checked by itself. It is given the certificates of
   this one path and no choice.

In between stands what only the owner of the trust store can say: that a CA is rejected, be it
also in a certificate of another issuer (openssl-x509(1), -addreject). Flags that somebody has
set on the X509_STORE itself count for the first question only; mitmproxy sets none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from mitmproxy_aia import errors
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.paths import Path

# pyOpenSSL's own bindings: not part of its typed interface, and nothing else has these calls.
_lib: Any = SSL._lib  # type: ignore[attr-defined] # has no types
_ffi: Any = SSL._ffi  # type: ignore[attr-defined] # has no types

# OpenSSL's names for what it finds at depth 0 and for the same fault further up.
_OTHER_ABOVE_THE_LEAF = {
    errors.DEPTH_ZERO_SELF_SIGNED_CERT: errors.SELF_SIGNED_CERT_IN_CHAIN,
    errors.EE_KEY_TOO_SMALL: errors.CA_KEY_TOO_SMALL,
}


def error_text(code: int) -> str:
    """OpenSSL's words for a verification error (X509_verify_cert_error_string)."""
    return str(_ffi.string(_lib.X509_verify_cert_error_string(code)).decode())


@dataclass(frozen=True)
class Fault:
    """Why a path was refused: OpenSSL's error code and text, and at which certificate."""

    code: int
    depth: int
    text: str

    @classmethod
    def of(cls, code: int, depth: int) -> Fault:
        return cls(code, depth, error_text(code))

    @property
    def self_signed(self) -> bool:
        """Whether there is nothing above the certificate, for OpenSSL and for us."""
        return self.code == errors.DEPTH_ZERO_SELF_SIGNED_CERT

    def raised_by(self, depth: int) -> Fault:
        """The fault as it is called in a path with `depth` more certificates below."""
        if depth and self.code in _OTHER_ABOVE_THE_LEAF:
            return Fault.of(_OTHER_ABOVE_THE_LEAF[self.code], depth + self.depth)
        return Fault(self.code, depth + self.depth, self.text)


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


_Chain = list[crypto.X509]
_Result = tuple[_Chain, Fault | None]
"""A chain and, unless it is good, what is wrong with it."""
# pyOpenSSL makes objects of what OpenSSL gives it; they free it.
_from_pointer: Any = crypto.X509._from_raw_x509_ptr


class Verifier:
    """Judges paths as the handshake of one connection would.

    `store` is the connection's trust store; it is only read. `parameters` is a C
    X509_VERIFY_PARAM with what the connection asks (host name, flags), or None. `owner` is
    kept alive as long as the verifier, since the two before belong to it.
    `security_level` is OpenSSL's, 0 to 5 (SSL_CTX_set_security_level(3)); None is the one
    that OpenSSL takes from its configuration (2, unless openssl.cnf has another). `rejected`
    are CAs (`Certificate.identity`) of which the owner of the trust store wants to know nothing.
    """

    def __init__(
        self,
        store: crypto.X509Store,
        *,
        parameters: Any = None,
        owner: object = None,
        security_level: int | None = None,
        rejected: frozenset[tuple[bytes, bytes]] = frozenset(),
    ) -> None:
        self._rejected = rejected
        self._store = store
        self._parameters = parameters
        self._owner = owner
        self._security_level = security_level
        self._signatures = 0
        self._above: dict[Certificate, _Result] = {}
        self._steps: dict[tuple[Certificate, Certificate], Fault | None] = {}

    @classmethod
    def for_connection(
        cls,
        connection: SSL.Connection,
        security_level: int | None,
        rejected: frozenset[tuple[bytes, bytes]] = frozenset(),
    ) -> Verifier:
        """A verifier that asks what `connection` asks of its server."""
        store = connection.get_context().get_cert_store()
        if store is None:
            raise ValueError("the connection has no trust store")
        return cls(
            store,
            parameters=_lib.SSL_get0_param(connection._ssl),
            owner=connection,
            security_level=security_level,
            rejected=rejected,
        )

    @property
    def signatures(self) -> int:
        """How many signature checks there were so far, at most."""
        return self._signatures

    def above(self, certificate: Certificate) -> Fault | None:
        """None if the trust store has an anchor above `certificate`, or is it itself."""
        return self._found_above(certificate)[1]

    def step(self, certificate: Certificate, issuer: Certificate) -> Fault | None:
        """What is wrong with one step of a path, by itself: the signature, dates, whether
        the issuer is a CA, strength. Depth 0 is `certificate`.

        This decides nothing but what need not be looked at further. It costs one signature
        check for each pair, however many paths the pair is part of.
        """
        step = certificate, issuer
        if step not in self._steps:
            try:
                pair = [_x509(certificate), _x509(issuer)]
                _, fault = self._verify(_store_of(pair[1:], partial=True), pair[:1])
                self._steps[step] = fault or self._weakness(pair)
            except crypto.Error:
                self._steps[step] = _unreadable(1)
        return self._steps[step]

    def judge(self, path: Path) -> Verdict:
        """A verdict on the path that begins with `path` and goes on to a trust anchor."""
        try:
            return self._judge(path)
        except crypto.Error:
            return Verdict(None, _unreadable(len(path) - 1), False)

    def _judge(self, path: Path) -> Verdict:
        top = len(path) - 1
        above, fault = self._found_above(path[-1])
        if fault is not None:
            if top > 0 and (wrong_step := self.step(path[-2], path[-1])):
                return Verdict(None, wrong_step.raised_by(top - 1), False)
            return Verdict(None, fault.raised_by(top), not fault.self_signed)
        if (rejected := self._rejection(path)) is not None:
            return Verdict(None, rejected, False)
        whole = [*map(_x509, path[:-1]), *above]
        # The last of `above` is the anchor, be it the only one.
        verified, fault = self._check(whole, above[1:] or above)
        if fault is None:
            good = tuple(map(_certificate, verified))
            for depth, issuer in enumerate(good[1:], 1):
                if issuer.identity in self._rejected:
                    return Verdict(None, Fault.of(errors.CERT_REJECTED, depth), False)
            return Verdict(good, None, False)
        # Is the fault in the path, or only in what the trust store has above it?
        lower = whole[: top + 1]
        _, own = self._check(lower, lower[-1:], partial=True)
        return Verdict(None, fault, own is None)

    def _found_above(self, certificate: Certificate) -> _Result:
        """`certificate` and what OpenSSL finds above it in the connection's trust store; up to
        a trust anchor if there is no fault. There are no untrusted certificates."""
        if certificate not in self._above:
            try:
                self._above[certificate] = self._verify(self._store, [_x509(certificate)])
            except crypto.Error:
                self._above[certificate] = [], _unreadable(0)
        return self._above[certificate]

    def _rejection(self, path: Path) -> Fault | None:
        """Whether the trust store rejects a CA of `path` as an issuer for TLS servers.

        OpenSSL looks for issuers in the trust store first, so it would have met the rejected
        certificate, even if another one of that name and key were presented.
        """
        depths = {certificate.identity: depth for depth, certificate in enumerate(path)}
        for certificate in path[:-1]:
            for trusted in self._found_above(certificate)[0][1:]:
                depth = depths.get(_certificate(trusted).identity)
                if depth is not None and self._is_rejected(trusted):
                    return Fault.of(errors.CERT_REJECTED, depth)
        return None

    def _is_rejected(self, trusted: crypto.X509) -> bool:
        store = _store_of([trusted], partial=True)
        _assert(_lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_SERVER))
        _, fault = self._verify(store, [trusted])
        return fault is not None and fault.code == errors.CERT_REJECTED

    def _check(self, chain: _Chain, trusted: _Chain, *, partial: bool = False) -> _Result:
        """Has OpenSSL verify exactly this chain, as the connection would, if `trusted` and no
        others were in its trust store. Returns the chain as OpenSSL verified it."""
        store = _store_of(trusted, partial=partial)
        if self._parameters is not None:
            _assert(_lib.X509_STORE_set1_param(store._store, self._parameters))
        _assert(_lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_SERVER))
        verified, fault = self._verify(store, chain[:-1] or chain)
        return verified, fault or self._weakness(verified)

    def _weakness(self, chain: _Chain) -> Fault | None:
        """What in `chain` is below the security level: the key of every certificate and the
        signature of every one that is not self-signed, as check_auth_level() in OpenSSL's
        crypto/x509/x509_vfy.c asks in a handshake. X509StoreContext does not ask it.
        """
        if self._security_level == 0:
            return None
        level = _level(self._security_level)
        for depth, certificate in enumerate(chain):
            # A context takes a certificate only if it satisfies the security level.
            if _lib.SSL_CTX_use_certificate(level._context, certificate._x509) == 1:
                continue
            try:
                SSL._raise_current_error()
            except SSL.Error as error:
                if any("md too weak" in str(entry) for entry in error.args):
                    return Fault.of(errors.CA_MD_TOO_WEAK, depth)
            return Fault.of(errors.CA_KEY_TOO_SMALL if depth else errors.EE_KEY_TOO_SMALL, depth)
        return None

    def _verify(self, store: crypto.X509Store, chain: _Chain) -> _Result:
        """Has OpenSSL verify chain[0] against `store`, with the rest as untrusted certificates.
        Returns the chain it built, target first, and what was wrong with it."""
        self._signatures += len(chain)
        # For the stack that it makes of the untrusted ones; it does not tell the chain it has
        # built if that is not good.
        stack = crypto.X509StoreContext(store, chain[0], chain[1:])._chain
        context = _ffi.gc(_lib.X509_STORE_CTX_new(), _lib.X509_STORE_CTX_free)
        _assert(_lib.X509_STORE_CTX_init(context, store._store, chain[0]._x509, stack))
        try:
            good = _lib.X509_verify_cert(context) == 1
        finally:
            # A failed signature leaves entries in OpenSSL's error queue, and the next operation
            # on whatever connection would be blamed for them (SSL_get_error(3)).
            _lib.ERR_clear_error()
        code = _lib.X509_STORE_CTX_get_error(context)
        if good and code == _lib.X509_V_OK:
            return _chain_of(context), None
        return _chain_of(context), Fault.of(
            code or errors.UNSPECIFIED, _lib.X509_STORE_CTX_get_error_depth(context)
        )


def _chain_of(context: Any) -> _Chain:
    """The chain that was built in an X509_STORE_CTX, good or not."""
    stack = _lib.X509_STORE_CTX_get1_chain(context)
    if stack == _ffi.NULL:
        return []
    size = _lib.sk_X509_num(stack)
    chain = [_from_pointer(_lib.sk_X509_value(stack, position)) for position in range(size)]
    _lib.sk_X509_free(stack)
    return chain


def _store_of(trusted: _Chain, *, partial: bool) -> crypto.X509Store:
    """A new store with these certificates. Those that are not self-signed are trust anchors
    only with `partial`."""
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(certificate)
    if partial:
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return store


def _unreadable(depth: int) -> Fault:
    """OpenSSL cannot even parse a certificate that `cryptography` can."""
    _lib.ERR_clear_error()
    return Fault.of(errors.UNSPECIFIED, depth)


def _assert(result: int) -> None:
    if result != 1:
        _lib.ERR_clear_error()
        raise RuntimeError("OpenSSL refused a verification parameter")


@functools.lru_cache(maxsize=512)
def _x509(certificate: Certificate) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate.der)


def _certificate(certificate: crypto.X509) -> Certificate:
    return Certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


@functools.lru_cache(maxsize=7)
def _level(security_level: int | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    if security_level is not None:
        context.set_cipher_list(f"@SECLEVEL={security_level}:ALL".encode())
    return context
