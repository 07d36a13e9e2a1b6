"""One path against the trust store of one connection, judged by OpenSSL.

The only module that touches OpenSSL's library. Nothing here ever changes the trust store of
the connection: mitmproxy shares it between connections, and a certificate whose subject is
its issuer would become a trust anchor the moment it is added.

OpenSSL is asked twice, with pyOpenSSL's X509StoreContext:

1. Which trust anchor is above the path's last certificate? The connection's own store
   answers; the candidate is the *target* of that verification, so it cannot vouch for itself.
2. Is the path good up to that anchor? A store that lives for this one question holds that
   anchor alone, and carries the parameters of the connection (host name, flags, depth) and
   the purpose "SSL server", which X509StoreContext would not check by itself. It is given
   the certificates of this one path and no choice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.paths import Path

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

DEFAULT_SECURITY_LEVEL = 2
"""OpenSSL's default since 3.2: at least 112 bits of security, no SHA-1."""

# OpenSSL's include/openssl/x509_vfy.h. pyOpenSSL's bindings have most of these by name, but
# not in all supported versions.
UNABLE_TO_GET_ISSUER_CERT = 2
UNABLE_TO_DECRYPT_CERT_SIGNATURE = 4
UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY = 6
CERT_SIGNATURE_FAILURE = 7
CERT_NOT_YET_VALID = 9
CERT_HAS_EXPIRED = 10
ERROR_IN_CERT_NOT_BEFORE_FIELD = 13
ERROR_IN_CERT_NOT_AFTER_FIELD = 14
DEPTH_ZERO_SELF_SIGNED_CERT = 18
SELF_SIGNED_CERT_IN_CHAIN = 19
UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
UNABLE_TO_VERIFY_LEAF_SIGNATURE = 21
CERT_CHAIN_TOO_LONG = 22
NO_ISSUER_PUBLIC_KEY = 24
PATH_LENGTH_EXCEEDED = 25
INVALID_PURPOSE = 26
KEYUSAGE_NO_CERTSIGN = 32
UNHANDLED_CRITICAL_EXTENSION = 34
INVALID_EXTENSION = 41
INVALID_POLICY_EXTENSION = 42
UNSUPPORTED_EXTENSION_FEATURE = 45
UNNESTED_RESOURCE = 46
PERMITTED_VIOLATION = 47
EXCLUDED_VIOLATION = 48
SUBTREE_MINMAX = 49
UNSUPPORTED_CONSTRAINT_TYPE = 51
UNSUPPORTED_CONSTRAINT_SYNTAX = 52
UNSUPPORTED_NAME_SYNTAX = 53
EE_KEY_TOO_SMALL = 66
CA_KEY_TOO_SMALL = 67
CA_MD_TOO_WEAK = 68
SIGNATURE_ALGORITHM_MISMATCH = 76
UNSUPPORTED_SIGNATURE_ALGORITHM = 78
INVALID_CA = 79

# The fault lies with an issuer, or the choice of it, at whatever depth it is found.
_CURABLE_ANYWHERE = frozenset(
    {
        UNABLE_TO_GET_ISSUER_CERT,
        UNABLE_TO_DECRYPT_CERT_SIGNATURE,
        UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY,
        CERT_SIGNATURE_FAILURE,
        SELF_SIGNED_CERT_IN_CHAIN,
        UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        CERT_CHAIN_TOO_LONG,
        NO_ISSUER_PUBLIC_KEY,
        PERMITTED_VIOLATION,
        EXCLUDED_VIOLATION,
        SUBTREE_MINMAX,
        UNSUPPORTED_CONSTRAINT_TYPE,
        UNSUPPORTED_CONSTRAINT_SYNTAX,
        UNSUPPORTED_NAME_SYNTAX,
        SIGNATURE_ALGORITHM_MISMATCH,
    }
)
# The certificate at that depth is unusable. Another can take an issuer's place; the leaf stays.
_CURABLE_ABOVE_THE_LEAF = frozenset(
    {
        CERT_NOT_YET_VALID,
        CERT_HAS_EXPIRED,
        ERROR_IN_CERT_NOT_BEFORE_FIELD,
        ERROR_IN_CERT_NOT_AFTER_FIELD,
        INVALID_CA,
        UNSUPPORTED_SIGNATURE_ALGORITHM,
        PATH_LENGTH_EXCEEDED,
        INVALID_PURPOSE,
        KEYUSAGE_NO_CERTSIGN,
        UNHANDLED_CRITICAL_EXTENSION,
        INVALID_EXTENSION,
        INVALID_POLICY_EXTENSION,
        UNSUPPORTED_EXTENSION_FEATURE,
        UNNESTED_RESOURCE,
        CA_KEY_TOO_SMALL,
        CA_MD_TOO_WEAK,
    }
)
_OTHER_ABOVE_THE_LEAF = {
    DEPTH_ZERO_SELF_SIGNED_CERT: SELF_SIGNED_CERT_IN_CHAIN,
    EE_KEY_TOO_SMALL: CA_KEY_TOO_SMALL,
}


def curable(code: int, depth: int) -> bool:
    """Whether another path could cure OpenSSL's verification error `code` at `depth` (0 is
    the leaf). Everything else (host name, the leaf's dates, revocation, ...) is final."""
    return code in _CURABLE_ANYWHERE or (depth > 0 and code in _CURABLE_ABOVE_THE_LEAF)


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
    it may still lead to a trust anchor. `signatures` is how many signature checks it has
    taken at most.
    """

    verified: Path | None
    fault: Fault | None
    growable: bool
    signatures: int = 0


_Chain = list[crypto.X509]


class Verifier:
    """Judges paths as the handshake of one connection would.

    `store` is the connection's trust store; it is only read. `parameters` is a C
    X509_VERIFY_PARAM with what the connection asks (host name, flags), or None. `owner` is
    kept alive as long as the verifier, since the two before belong to it.
    `security_level` is OpenSSL's, 0 to 5 (SSL_CTX_set_security_level(3)).
    """

    def __init__(
        self,
        store: crypto.X509Store,
        *,
        parameters: Any = None,
        owner: object = None,
        security_level: int = DEFAULT_SECURITY_LEVEL,
    ) -> None:
        self._store = store
        self._parameters = parameters
        self._owner = owner
        self._security_level = security_level
        self._signatures = 0
        self._above: dict[Certificate, _Chain | Fault] = {}
        self._links: dict[tuple[Certificate, Certificate], Fault | None] = {}

    @classmethod
    def for_connection(cls, connection: SSL.Connection, security_level: int) -> Verifier:
        """A verifier that asks what `connection` asks of its server."""
        store = connection.get_context().get_cert_store()
        if store is None:
            raise ValueError("the connection has no trust store")
        return cls(
            store,
            parameters=_lib.SSL_get0_param(connection._ssl),
            owner=connection,
            security_level=security_level,
        )

    def judge(self, path: Path) -> Verdict:
        """A verdict on the path that begins with `path` and goes on to a trust anchor."""
        before = self._signatures
        verified, fault, growable = self._judge(path)
        return Verdict(verified, fault, growable, self._signatures - before)

    def _judge(self, path: Path) -> tuple[Path | None, Fault | None, bool]:
        top = len(path) - 1
        if top > 0 and (fault := self._link_fault(path[-2], path[-1])):
            return None, fault.raised_by(top - 1), False
        above = self._chain_above(path[-1])
        if isinstance(above, Fault):
            # Above a self-signed certificate there is nothing, for OpenSSL and for us.
            return None, above.raised_by(top), above.code != DEPTH_ZERO_SELF_SIGNED_CERT
        whole = [*map(_x509, path[:-1]), *above]
        fault = self._fault(whole)
        if fault is None:
            return (*path[:-1], *map(_certificate, above)), None, False
        # Is the fault in the path, or only in what the trust store has above it?
        own_fault = self._fault(whole[: top + 1], partial=True)
        return None, fault, own_fault is None

    def _chain_above(self, certificate: Certificate) -> _Chain | Fault:
        """`certificate` and what the connection's trust store has above it, up to a trust
        anchor. Only the trust store is asked: there are no untrusted certificates."""
        if certificate not in self._above:
            self._above[certificate] = self._verify(self._store, [_x509(certificate)])
        return self._above[certificate]

    def _link_fault(self, certificate: Certificate, issuer: Certificate) -> Fault | None:
        """What is wrong with one step of a path, by itself: the signature, dates, whether
        the issuer is a CA, strength. Depth 0 is `certificate`.

        This decides nothing but what need not be looked at further. It costs one signature
        check for each pair, however many paths the pair is part of.
        """
        link = certificate, issuer
        if link not in self._links:
            pair = [_x509(certificate), _x509(issuer)]
            result = self._verify(_store_of(pair[1], partial=True), pair[:1])
            self._links[link] = result if isinstance(result, Fault) else self._weakness(pair)
        return self._links[link]

    def _fault(self, chain: _Chain, *, partial: bool = False) -> Fault | None:
        """What OpenSSL finds wrong with exactly this chain if its last certificate, and no
        other, is a trust anchor. None: nothing, it is good."""
        store = _store_of(chain[-1], partial=partial)
        if self._parameters is not None:
            _assert(_lib.X509_STORE_set1_param(store._store, self._parameters))
        _assert(_lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_SERVER))
        result = self._verify(store, chain[:-1] or chain)
        return result if isinstance(result, Fault) else self._weakness(chain)

    def _weakness(self, chain: _Chain) -> Fault | None:
        """What in `chain` is below the security level: the key of every certificate and the
        signature of every one that is not self-signed, as check_auth_level() in OpenSSL's
        crypto/x509/x509_vfy.c asks in a handshake. X509StoreContext does not ask it.
        """
        if self._security_level <= 0:
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
                    return Fault.of(CA_MD_TOO_WEAK, depth)
            return Fault.of(CA_KEY_TOO_SMALL if depth else EE_KEY_TOO_SMALL, depth)
        return None

    def _verify(self, store: crypto.X509Store, chain: _Chain) -> _Chain | Fault:
        """Has OpenSSL verify chain[0] against `store`, with the rest as untrusted certificates.
        Returns the chain it verified, target first and trust anchor last."""
        self._signatures += len(chain)
        try:
            return crypto.X509StoreContext(store, chain[0], chain[1:]).get_verified_chain()
        except crypto.X509StoreContextError as error:
            code, depth, text = error.errors
            return Fault(code, depth, text)
        finally:
            # A failed signature leaves entries in OpenSSL's error queue, and the next operation
            # on whatever connection would be blamed for them (SSL_get_error(3)).
            _lib.ERR_clear_error()


def _store_of(anchor: crypto.X509, *, partial: bool) -> crypto.X509Store:
    """A new store that trusts `anchor` alone; with `partial` also if it is not self-signed."""
    store = crypto.X509Store()
    store.add_cert(anchor)
    if partial:
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return store


def _assert(result: int) -> None:
    if result != 1:
        _lib.ERR_clear_error()
        raise RuntimeError("OpenSSL refused a verification parameter")


@functools.lru_cache(maxsize=512)
def _x509(certificate: Certificate) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate.der)


def _certificate(certificate: crypto.X509) -> Certificate:
    return Certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


@functools.lru_cache(maxsize=6)
def _level(security_level: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(f"@SECLEVEL={security_level}:ALL".encode())
    return context
