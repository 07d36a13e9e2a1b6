"""A handshake with OpenSSL as the client and us as a server, up to the certificates.

What a handshake asks of a chain is more than X509_verify_cert(3) asks by itself: the strength
of every key and signature that the security level wants, and whatever else libssl adds. None
of that can be set through pyOpenSSL. But in TLS 1.2 a client verifies the server's chain as
soon as it has the Certificate message, before the server has to prove anything: two messages
in the clear, a ServerHello and a Certificate (RFC 5246 section 7.4), are all that it takes to
have libssl itself give its verdict on any chain, against a trust store of ours.

(To ask SSL_CTX_use_certificate(3) was not enough: since 2026 it does not look at signatures
any more, https://github.com/openssl/openssl/pull/31271.)
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace

from OpenSSL import SSL, crypto

from mitmproxy_aia import errors, loaded, openssl
from mitmproxy_aia.openssl import Chain, Fault, Result

# TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 is good enough for every security level. That it may
# not suit the leaf's key is found only after the verification.
_CIPHER = "ECDHE-ECDSA-AES256-GCM-SHA384"
_SIGNATURE_ALGORITHMS = "ECDSA+SHA512:ECDSA+SHA384:ECDSA+SHA256"
"""Without one for it the cipher would not be offered. The chain's signatures need not be among
them."""
_CIPHER_CODE = b"\xc0\x2c"
_NOT_SUITE_B = "ECDHE-RSA-AES256-GCM-SHA384"
_TLS_1_2 = b"\x03\x03"
_HANDSHAKE_RECORD = b"\x16"
_SERVER_HELLO, _CERTIFICATE = 2, 11
_MAX_RECORD = 16_384
# renegotiation_info, empty: OpenSSL talks to no server that lacks it (RFC 5746).
_EXTENSIONS = b"\xff\x01\x00\x01\x00"

_QUIET, _TELLING, _FORGIVING = "quiet", "telling", "forgiving"
_WANTS_MORE = "wants more"
_BEYOND_THE_CHAIN = (_WANTS_MORE, "wrong certificate type")
"""How a handshake ends in which libssl has asked for a good chain and got one: it waits for the
next message, or only now finds (tls_process_server_certificate) that `_CIPHER` does not suit the
leaf's key. Should that be called otherwise one day, libssl is asked a second time, no more."""


def rehearse(store: crypto.X509Store, chain: Chain, ciphers: str) -> Result:
    """Has libssl verify chain[0] as a server's certificate, with the rest of `chain` as what
    the server sends besides, against `store` and its parameters.

    `ciphers` is the list of the connection (openssl-ciphers(1)). libssl takes its security level
    from there (SSL_CTX_set_security_level(3)), in its own way: behind a cipher that it does not
    know it sees no @SECLEVEL. Without any it takes the level from its configuration. The result
    is the chain that libssl has built, and the first fault that it finds.
    """
    # Most often it is good, and then there is nothing that libssl would have to tell.
    built, code, _, end = _perform(store, chain, ciphers, _QUIET)
    if end in _BEYOND_THE_CHAIN and code == 0 and built:
        return built, None
    built, code, seen, end = _perform(store, chain, ciphers, _TELLING)
    # The last thing that OpenSSL says of a good chain is that its target is good.
    if seen[-1:] == [(0, 0, True)] and code == 0 and built:
        return built, None
    depth = next((depth for depth, found, _ in seen if found), len(chain) - 1)
    fault = Fault.of(code or errors.UNSPECIFIED, depth)
    if not seen:
        # It did not come to the chain, which may be too large to be taken at all.
        fault = replace(fault, text=f"{fault.text} ({end or 'no certificate was looked at'})")
    return built, fault


def objections(
    store: crypto.X509Store, chain: Chain, ciphers: str
) -> tuple[Chain, tuple[Fault, ...]]:
    """The same, but all that libssl finds wrong with the chain: with a person who wants to know,
    it goes on after each fault. A chain is good only if there is none."""
    built, fault = rehearse(store, chain, ciphers)
    if fault is None:
        return built, ()
    built, _, seen, _ = _perform(store, chain, ciphers, _FORGIVING)
    found = dict.fromkeys(Fault.of(code, depth) for depth, code, good in seen if not good)
    return built, tuple(found) or (fault,)


def _perform(
    store: crypto.X509Store, chain: Chain, ciphers: str, manner: str
) -> tuple[Chain, int, _Seen, str]:
    """The chain that libssl has built, its verification error, what it said on the way, and how
    the handshake ended, if libssl has indeed verified."""
    context, seen = _stage(ciphers, threading.get_ident(), manner)
    openssl.use_store(context, store)
    seen.clear()
    connection = SSL.Connection(context)
    connection.set_connect_state()
    connection.bio_write(_flight([*map(loaded.der_of, chain)]))
    end = ""
    # It ends in one way or another: at the chain, at a cipher that does not suit it, or
    # because we have no more to say. What libssl thinks of the chain is known by then.
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        end = _WANTS_MORE
    except SSL.Error as error:
        end = openssl.reason_of(error)
    finally:
        openssl.clear_errors()
    if connection.get_verify_mode() != SSL.VERIFY_PEER:
        end = ""
    built = connection.get_verified_chain() or []
    return built, openssl.verify_result(connection), seen, end


def at_level(security_level: int) -> str:
    """Ciphers that go with this level, 0 to 5 (SSL_CTX_set_security_level(3))."""
    return f"ALL:@SECLEVEL={security_level}"


def obstacle() -> str | None:
    """What there is in OpenSSL's configuration (openssl.cnf, see config(5)) that keeps libssl from
    a rehearsal, or None. It holds for every context, and cannot be undone in one."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if openssl.options_of(context) & SSL.OP_NO_TLSv1_2:
        return "it forbids TLS 1.2 (Protocol), in which chains are judged"
    context.set_cipher_list(_NOT_SUITE_B.encode())
    if _NOT_SUITE_B not in SSL.Connection(context).get_cipher_list():
        return "it asks for Suite B (CipherString), which binds keys and signatures as well"
    return None


_Seen = list[tuple[int, int, bool]]
"""What OpenSSL has said of the certificates: depth, error code, whether it is good."""


# A context takes as long to make as a chain to verify. It holds the store of the question that
# is being asked, so threads must not share one.
@functools.lru_cache(maxsize=16)
def _stage(ciphers: str, _thread: int, manner: str) -> tuple[SSL.Context, _Seen]:
    seen: _Seen = []

    def callback(
        _connection: SSL.Connection, _certificate: crypto.X509, code: int, depth: int, good: int
    ) -> bool:
        seen.append((depth, code, bool(good)))
        return bool(good) or manner == _FORGIVING

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    # The level stays.
    context.set_cipher_list(_CIPHER.encode())
    openssl.use_signature_algorithms(context, _SIGNATURE_ALGORITHMS)
    # To call Python for each certificate is a tenth of it all.
    context.set_verify(SSL.VERIFY_PEER, None if manner == _QUIET else callback)
    return context, seen


def _flight(certificates: list[bytes]) -> bytes:
    """The server's first messages, in records; `certificates` are DER, leaf first."""
    no_session, no_compression = b"\x00", b"\x00"
    hello = _TLS_1_2 + bytes(32) + no_session + _CIPHER_CODE + no_compression
    messages = _message(_SERVER_HELLO, hello + _sized(_EXTENSIONS, 2))
    messages += _message(_CERTIFICATE, _sized(b"".join(_sized(der, 3) for der in certificates), 3))
    return b"".join(
        _HANDSHAKE_RECORD + _TLS_1_2 + _sized(messages[start : start + _MAX_RECORD], 2)
        for start in range(0, len(messages), _MAX_RECORD)
    )


def _message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _sized(body, 3)


def _sized(data: bytes, width: int) -> bytes:
    """`data` with its length in bytes before it, as a number of `width` bytes."""
    return len(data).to_bytes(width, "big") + data
