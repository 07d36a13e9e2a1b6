"""What is asked of OpenSSL's library through pyOpenSSL's bindings, which are no public interface.

The only module that touches them. Nothing here changes a trust store that it did not make.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from mitmproxy_aia import errors
from mitmproxy_aia.certificates import Certificate

# Not part of pyOpenSSL's typed interface, and nothing else has these calls.
_lib: Any = SSL._lib  # type: ignore[attr-defined] # has no types
_ffi: Any = SSL._ffi  # type: ignore[attr-defined] # has no types

# OpenSSL's names for what it finds at depth 0 and for the same fault further up.
_OTHER_ABOVE_THE_LEAF = {
    errors.DEPTH_ZERO_SELF_SIGNED_CERT: errors.SELF_SIGNED_CERT_IN_CHAIN,
    errors.EE_KEY_TOO_SMALL: errors.CA_KEY_TOO_SMALL,
}


@functools.lru_cache(maxsize=256)
def error_text(code: int) -> str:
    """OpenSSL's words for a verification error (X509_verify_cert_error_string)."""
    return str(_ffi.string(_lib.X509_verify_cert_error_string(code)).decode())


def reason_of(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's words for why a handshake, or reading a certificate, failed."""
    try:
        return str(error.args[0][0][-1])
    except (LookupError, TypeError):  # none, or what is no list of reasons (SysCallError)
        return ""


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


Chain = list[crypto.X509]
Result = tuple[Chain, Fault | None]
"""The chain that OpenSSL built, target first, and, unless it is good, what is wrong with it."""


def verify(
    store: crypto.X509Store, chain: Sequence[crypto.X509], known: Iterable[crypto.X509] = ()
) -> Result:
    """Has OpenSSL verify chain[0] against `store`, with the rest as untrusted certificates. A
    certificate of the result that is in `known` need not be read again.

    X509_verify_cert(3) by itself: neither the purpose nor the security level of a handshake is
    asked, unless the store has a purpose.
    """
    stack = _ffi.NULL
    if chain[1:]:
        # For the stack that it makes of the untrusted ones; it does not tell the chain it has
        # built if that is not good.
        stack = crypto.X509StoreContext(store, chain[0], list(chain[1:]))._chain
    context = _ffi.gc(_lib.X509_STORE_CTX_new(), _lib.X509_STORE_CTX_free)
    _assert(_lib.X509_STORE_CTX_init(context, store._store, chain[0]._x509, stack))
    try:
        good = _lib.X509_verify_cert(context) == 1
    finally:
        # A failed signature leaves entries in OpenSSL's error queue, and the next operation
        # on whatever connection would be blamed for them (SSL_get_error(3)).
        clear_errors()
    code = _lib.X509_STORE_CTX_get_error(context)
    if good and code == _lib.X509_V_OK:
        return _chain_of(context, known), None
    return _chain_of(context), Fault.of(
        code or errors.UNSPECIFIED, _lib.X509_STORE_CTX_get_error_depth(context)
    )


def _chain_of(context: Any, known: Iterable[crypto.X509] = ()) -> Chain:
    """The chain that was built in an X509_STORE_CTX, good or not. For a certificate that is the
    same in memory as one of `known`, that is taken."""
    stack = _lib.X509_STORE_CTX_get1_chain(context)
    if stack == _ffi.NULL:
        return []
    size = _lib.sk_X509_num(stack)
    # pyOpenSSL makes objects of what OpenSSL gives it; they free it.
    from_pointer: Any = crypto.X509._from_raw_x509_ptr
    objects = {each._x509: each for each in known}
    chain: Chain = []
    for position in range(size):
        pointer = _lib.sk_X509_value(stack, position)
        if (same := objects.get(pointer)) is not None:
            _lib.X509_free(pointer)  # the stack's own reference
            chain.append(same)
        else:
            chain.append(from_pointer(pointer))
    _lib.sk_X509_free(stack)
    return chain


def place_of(certificate: crypto.X509) -> int:
    """Where OpenSSL has it in memory: two objects of the same place are one certificate, as long
    as one of them lives."""
    return int(_ffi.cast("uintptr_t", certificate._x509))


def store_of(
    trusted: Sequence[crypto.X509], *, partial: bool, at: datetime.datetime | None = None
) -> crypto.X509Store:
    """A new store with these certificates. Those that are not self-signed are trust anchors
    only with `partial`. `at` is when they are to be valid, if not now."""
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(certificate)
    if partial:
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if at is not None:
        store.set_time(at.astimezone(datetime.UTC))
    return store


def ask_for_servers(store: crypto.X509Store, parameters: Any = None) -> None:
    """Has all that is verified against `store` be a TLS server's, and what else `parameters` (a
    C X509_VERIFY_PARAM, or None) ask."""
    if parameters is not None:
        _assert(_lib.X509_STORE_set1_param(store._store, parameters))
    _assert(_lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_SERVER))


def parameters_of(connection: SSL.Connection) -> Any:
    """The X509_VERIFY_PARAM of a connection, which belongs to it: host name, flags, depth."""
    return _lib.SSL_get0_param(connection._ssl)


def parameters_for(name: str | None) -> Any:
    """A new X509_VERIFY_PARAM that asks for the certificate of `name`, a host name or an address,
    in the way of mitmproxy's TlsConfig; or of anybody."""
    parameters = _ffi.gc(_lib.X509_VERIFY_PARAM_new(), _lib.X509_VERIFY_PARAM_free)
    if name is not None:
        _ask_for(parameters, name)
    return parameters


def _ask_for(parameters: Any, name: str) -> None:
    flags = _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    _lib.X509_VERIFY_PARAM_set_hostflags(parameters, flags)
    if (address := _address(name)) is not None:
        _assert(_lib.X509_VERIFY_PARAM_set1_ip(parameters, address, len(address)))
    else:
        host = name.encode("idna")
        if _lib.X509_VERIFY_PARAM_set1_host(parameters, host, len(host)) != 1:
            clear_errors()
            raise ValueError(f"OpenSSL does not take the host name {name!r}")


def _address(name: str) -> bytes | None:
    try:
        return ipaddress.ip_address(name).packed
    except ValueError:
        return None


def presented_to(connection: SSL.Connection) -> Iterator[bytes]:
    """The certificates that the server of `connection` sent, in DER, leaf first."""
    for certificate in connection.get_peer_cert_chain() or ():
        yield crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def verified_intermediates(connection: SSL.Connection) -> tuple[Certificate, ...]:
    """What OpenSSL has verified between the leaf and the trust anchor of `connection`."""
    return intermediates(connection.get_verified_chain() or [])


def intermediates(chain: Sequence[crypto.X509]) -> tuple[Certificate, ...]:
    """What is between the leaf and the trust anchor; nothing if only OpenSSL can read one of
    them, as path building could do nothing with it."""
    try:
        return tuple(
            Certificate.from_der(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
            for certificate in chain[1:-1]
        )
    except ValueError:
        return ()


def expect_name(connection: SSL.Connection, name: str) -> None:
    """Has `connection` ask for the certificate of `name`, a host name (in ASCII) or an address,
    and say so to the server (SNI), in the way of mitmproxy's TlsConfig."""
    _ask_for(parameters_of(connection), name)
    if _address(name) is None:
        # No literal addresses in SNI (RFC 6066 section 3).
        connection.set_tlsext_host_name(name.encode("ascii"))


def use_store(context: SSL.Context, store: crypto.X509Store) -> None:
    """Has connections of `context` verify against `store`, in place of any that it had."""
    _assert(_lib.X509_STORE_up_ref(store._store))
    # It takes over the reference. pyOpenSSL has no such call in its oldest version.
    _lib.SSL_CTX_set_cert_store(context._context, store._store)


def use_signature_algorithms(context: SSL.Context, names: str) -> None:
    """Whatever openssl.cnf has for them (SSL_CTX_set1_sigalgs_list(3))."""
    _assert(_lib.SSL_CTX_set1_sigalgs_list(context._context, names.encode()))


def options_of(context: SSL.Context) -> int:
    """SSL.OP_... (SSL_CTX_get_options(3))."""
    return int(_lib.SSL_CTX_get_options(context._context))


Built = Callable[[], Chain]
"""The chain that OpenSSL has built of what was presented and what is trusted."""
Forgive = Callable[[int, int, Built], bool]
"""Whether OpenSSL shall go on after a verification error (its code) at a depth, and so verify
what is left of the chain. Raises nothing."""


def forgive(connection: SSL.Connection, decide: Forgive) -> None:
    """Has the bound method `decide` be asked about each error in the verification of the other
    side's chain, for as long as its object lives.

    As SSL.Connection.set_verify, which makes a C function for each connection and calls Python
    with each certificate, good or not.
    """
    _forgiving[connection] = weakref.WeakMethod(decide)
    _lib.SSL_set_verify(connection._ssl, SSL.VERIFY_PEER, _on_verify)


def is_forgiving(connection: SSL.Connection) -> bool:
    """Whether nobody else has begun to judge since `forgive` (SSL.Connection.set_verify)."""
    # pyOpenSSL keeps a callback in there, and first that of the context.
    callback, stock = (
        getattr(owner, "_verify_helper", None) for owner in (connection, connection.get_context())
    )
    return callback is stock and _lib.SSL_get_verify_mode(connection._ssl) == SSL.VERIFY_PEER


_forgiving: weakref.WeakKeyDictionary[SSL.Connection, weakref.WeakMethod[Forgive]]
_forgiving = weakref.WeakKeyDictionary()


def _verified(good: int, context: Any) -> int:
    """See SSL_set_verify(3)."""
    if good:
        return 1
    index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
    ssl = _lib.X509_STORE_CTX_get_ex_data(context, index)
    connections: Any = SSL.Connection._reverse_mapping
    connection = connections.get(ssl)
    method = _forgiving.get(connection) if connection is not None else None
    decide = method() if method is not None else None
    code = _lib.X509_STORE_CTX_get_error(context)
    depth = _lib.X509_STORE_CTX_get_error_depth(context)
    if decide is None or not decide(code, depth, lambda: _chain_of(context)):
        return 0
    _lib.X509_STORE_CTX_set_error(context, _lib.X509_V_OK)
    return 1


# An exception would be a refusal.
_on_verify = _ffi.callback("int (*)(int, X509_STORE_CTX *)", _verified, error=0)


def verify_result(connection: SSL.Connection) -> int:
    """The verification error of a connection's handshake; X509_V_OK, which is 0, also if there
    was no certificate (SSL_get_verify_result(3))."""
    return int(_lib.SSL_get_verify_result(connection._ssl))


def clear_errors() -> None:
    _lib.ERR_clear_error()


def unreadable(depth: int) -> Fault:
    """OpenSSL cannot even parse a certificate that `cryptography` can."""
    clear_errors()
    return Fault.of(errors.UNSPECIFIED, depth)


def _assert(result: int) -> None:
    if result != 1:
        clear_errors()
        raise RuntimeError("OpenSSL refused a verification parameter")
