"""What OpenSSL reports in a handshake for each fault a chain can have, and which of these
errors another path cures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL, crypto

from mitmproxy_aia import errors
from mitmproxy_aia.errors import curable
from mitmproxy_aia.openssl import error_text
from tests.differential.brute_force import shake_hands
from tests.faulty_chains import (
    FUTURE,
    INHERIT,
    IP_ADDRESS,
    LOOPBACK,
    MANY_CONSTRAINTS,
    MANY_NAMES,
    MAXIMUM,
    NET_10,
    NO_DATE,
    NOT_SORTED,
    PAST,
    PROXY,
    PROXY_OF_NO_MORE,
    PUBLIC_KEY,
    REGISTERED_ID,
    RFC822_NAME,
    UNKNOWN,
    VALIDITY,
    Make,
    addresses,
    another_key,
    dates,
    explicit_curve,
    family,
    in_an_upper_ca,
    in_the_ca,
    in_the_leaf,
    leaf_only,
    long_chain,
    permitted,
    rewritten,
    self_signed_leaf,
    subject_alternative_name,
    trusted_intermediate,
    unknown_root,
)
from tests.lab import Issued, authority, der, keys
from tests.lab.presenting import openssl_key
from tests.test_verification import connection_for, context_with

_lib: Any = SSL._lib  # type: ignore[attr-defined]

Reported = list[tuple[int, int]]
"""Errors as the verify callback gets them: code and depth."""


def handshake(
    folder: Path, trusted: Sequence[Issued], chain: Sequence[bytes], key: keys.PrivateKey
) -> Reported:
    """What is reported in a handshake at 127.0.0.1, in memory, with a client as mitmproxy
    makes it. It goes on after every error."""
    reported: Reported = []

    def callback(_c: SSL.Connection, _x: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if not ok:
            reported.append((code, depth))
        return True

    client = connection_for(context_with(*trusted))
    client.set_verify(SSL.VERIFY_PEER, callback)

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    # From a file: what is in memory has to be something that `cryptography` can parse.
    file = folder / "chain.pem"
    file.write_bytes(b"".join(map(_pem, chain)))
    context.use_certificate_chain_file(str(file))
    context.use_privatekey(openssl_key(key))
    server = SSL.Connection(context)

    client.set_connect_state()
    server.set_accept_state()
    assert shake_hands(client, server)
    return reported


def _pem(certificate: bytes) -> bytes:
    return crypto.dump_certificate(
        crypto.FILETYPE_PEM, crypto.load_certificate(crypto.FILETYPE_ASN1, certificate)
    )


# What the fault of an issuer, or of the choice of it, makes OpenSSL report.
CURABLE: dict[str, tuple[Reported, Make]] = {
    "too many names": ([(1, 0)], in_the_ca(MANY_CONSTRAINTS, MANY_NAMES)),
    "no issuer in the trust store": ([(2, 2)], trusted_intermediate),
    "another key": ([(7, 0)], another_key),
    "not yet valid": ([(9, 1)], in_the_ca({"not_yet_valid": True})),
    "expired": ([(10, 1)], in_the_ca({"expired": True})),
    "no date to begin with": ([(13, 1)], rewritten(VALIDITY, dates(NO_DATE, FUTURE))),
    "no date to end with": ([(14, 1)], rewritten(VALIDITY, dates(PAST, NO_DATE))),
    "unknown root": ([(19, 2)], unknown_root),
    "leaf only": ([(20, 0), (21, 0)], leaf_only),
    "chain too long": ([(22, 101), (20, 101)], long_chain),
    "path length": ([(25, 2)], in_an_upper_ca({"path_length": 0})),
    "purpose": ([(26, 1)], in_the_ca({"extended_key_usage": ["clientAuth"]})),
    "key usage": ([(79, 1), (26, 1), (32, 1)], in_the_ca({"key_usage": ["crl_sign"]})),
    "unknown critical extension": ([(34, 1)], in_the_ca(UNKNOWN)),
    "proxy certificate": (
        [(40, 1), (79, 1), (26, 1), (37, 2), (26, 2), (39, 2), (32, 1), (72, 1)],
        in_the_ca(PROXY),
    ),
    "proxy path length": (
        [
            *[(40, 1), (79, 1), (26, 1), (40, 2), (38, 2)],
            *[(37, 3), (26, 3), (39, 3), (32, 1), (72, 2), (72, 1)],
        ],
        in_an_upper_ca(PROXY_OF_NO_MORE, ca=PROXY),
    ),
    "resources not sorted": ([(41, 1)], in_the_ca(NOT_SORTED, addresses(family(1, INHERIT)))),
    "resources of nobody": (
        [(46, 2)],
        in_the_ca(addresses(family(1, NET_10)), addresses(family(1, INHERIT))),
    ),
    "not permitted": ([(47, 0)], in_the_ca({"permitted": ["10.0.0.0/8"]})),
    "excluded": ([(48, 0)], in_the_ca({"excluded": ["127.0.0.0/8"]})),
    "maximum": ([(49, 0)], in_the_ca(permitted(LOOPBACK, der.encode(MAXIMUM, b"\x05")))),
    "constraint of an unsupported type": (
        [(51, 0)],
        in_the_ca(
            permitted(der.encode(REGISTERED_ID, b"\x2a\x03")),
            subject_alternative_name(x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))),
        ),
    ),
    "constraint that is no network": (
        [(53, 0)],
        in_the_ca(permitted(der.encode(IP_ADDRESS, b"\x7f\x00\x00"))),
    ),
    "constrained name that is no address": (
        [(53, 0)],
        in_the_ca(
            permitted(der.encode(RFC822_NAME, b"example")),
            subject_alternative_name(x509.RFC822Name("nobody")),
        ),
    ),
    "weak key": ([(67, 2)], in_an_upper_ca({"key": "rsa1024"})),
    "weak digest": ([(68, 1)], in_the_ca({"digest": "sha1"})),
    "no CA": ([(79, 1), (26, 1), (32, 1)], in_the_ca({"ca": False})),
    "explicit curve": ([(94, 1)], rewritten(PUBLIC_KEY, explicit_curve)),
}

# What the leaf's own fault makes it report. Whatever comes after the first is of no interest.
FINAL: dict[str, tuple[tuple[int, int], Make]] = {
    "not yet valid": ((9, 0), in_the_leaf({"not_yet_valid": True})),
    "expired": ((10, 0), in_the_leaf({"expired": True})),
    "no date to begin with": ((13, 0), rewritten(VALIDITY, dates(NO_DATE, FUTURE), leaf=True)),
    "no date to end with": ((14, 0), rewritten(VALIDITY, dates(PAST, NO_DATE), leaf=True)),
    "self-signed": ((18, 0), self_signed_leaf),
    "purpose": ((26, 0), in_the_leaf({"extended_key_usage": ["clientAuth"]})),
    "unknown critical extension": ((34, 0), in_the_leaf(UNKNOWN)),
    "proxy certificate": ((40, 0), in_the_leaf(PROXY)),
    "resources not sorted": ((41, 0), in_the_leaf(NOT_SORTED)),
    "another host": ((64, 0), in_the_leaf({"hosts": ["127.0.0.2"]})),
    "weak key": ((66, 0), in_the_leaf({"key": "rsa1024"})),
    "weak digest": ((68, 0), in_the_leaf({"digest": "sha1"})),
    "explicit curve": ((94, 0), rewritten(PUBLIC_KEY, explicit_curve, leaf=True)),
}

# What OpenSSL 3 and 4 have a number for, and no handshake of mitmproxy's can report.
_NEVER_THE_ISSUER = "a certificate of which this can be said is not taken for the issuer"
NOT_REPORTED = {
    "UNABLE_TO_DECRYPT_CERT_SIGNATURE": "unused: it is a CERT_SIGNATURE_FAILURE",
    "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY": _NEVER_THE_ISSUER,
    "NO_ISSUER_PUBLIC_KEY": _NEVER_THE_ISSUER,
    "SIGNATURE_ALGORITHM_MISMATCH": _NEVER_THE_ISSUER,
    "UNSUPPORTED_SIGNATURE_ALGORITHM": _NEVER_THE_ISSUER,
    "INVALID_POLICY_EXTENSION": "policies are not looked at without X509_V_FLAG_POLICY_CHECK",
    "UNSUPPORTED_EXTENSION_FEATURE": "unused",
    "UNSUPPORTED_CONSTRAINT_SYNTAX": "unused: it is an UNSUPPORTED_NAME_SYNTAX",
    "DUPLICATE_EXTENSION": "OpenSSL 4.1 has it, and no version that we test with",
}
NOT_REPORTED_BUT_CURABLE = [
    *[(4, 0), (4, 1), (6, 0), (6, 1), (24, 0), (24, 1), (77, 0), (77, 1), (52, 0), (52, 1)],
    *[(76, 1), (42, 1), (45, 1), (104, 1)],
]
NOT_REPORTED_AND_FINAL = [(76, 0), (42, 0), (45, 0), (104, 0)]

# Those of OpenSSL's that are not in errors.py, and why.
ALWAYS_FINAL = {
    0: "no error",
    17: "out of memory; says nothing of the chain",
    69: "an invalid call; says nothing of the chain",
    70: "the trust store cannot be read; says nothing of the chain",
    27: "unused",
    28: "the owner of the trust store has rejected this authority",
    43: "no policy: only with X509_V_FLAG_EXPLICIT_POLICY",
    50: "for applications",
    55: "unused",
    62: "the host name",
    63: "the email address",
    64: "the IP address",
    65: "DANE",
    71: "certificate transparency",
    95: "raw public keys",
    **dict.fromkeys([3, 5, 8, 11, 12, 15, 16, 23, 33, 35, 36, 44, 54], "revocation: CRLs"),
    **dict.fromkeys([73, 74, 75, 96, 97, 98, 99, 100], "revocation: OCSP"),
    **dict.fromkeys([29, 30, 31], "tells only that a candidate is not the issuer"),
    **dict.fromkeys(range(56, 62), "only with the flags of Suite B"),
    **dict.fromkeys([78, *range(80, 94), 102, 103], "only with X509_V_FLAG_X509_STRICT"),
}

# A few of OpenSSL's words for each code, which a wrong number would not have.
WORDS = {
    "UNSPECIFIED": "unspecified certificate verification error",
    "UNABLE_TO_GET_ISSUER_CERT": "unable to get issuer certificate",
    "UNABLE_TO_DECRYPT_CERT_SIGNATURE": "unable to decrypt certificate's signature",
    "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY": "unable to decode issuer public key",
    "CERT_SIGNATURE_FAILURE": "certificate signature failure",
    "CERT_NOT_YET_VALID": "certificate is not yet valid",
    "CERT_HAS_EXPIRED": "certificate has expired",
    "ERROR_IN_CERT_NOT_BEFORE_FIELD": "format error in certificate's notBefore field",
    "ERROR_IN_CERT_NOT_AFTER_FIELD": "format error in certificate's notAfter field",
    "DEPTH_ZERO_SELF_SIGNED_CERT": "self-signed certificate",
    "SELF_SIGNED_CERT_IN_CHAIN": "self-signed certificate in certificate chain",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": "unable to get local issuer certificate",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": "unable to verify the first certificate",
    "CERT_CHAIN_TOO_LONG": "certificate chain too long",
    "NO_ISSUER_PUBLIC_KEY": "issuer certificate doesn't have a public key",
    "PATH_LENGTH_EXCEEDED": "path length constraint exceeded",
    "CERT_REJECTED": "certificate rejected",
    "INVALID_PURPOSE": "purpose",
    "KEYUSAGE_NO_CERTSIGN": "key usage does not include certificate signing",
    "UNHANDLED_CRITICAL_EXTENSION": "unhandled critical extension",
    "INVALID_NON_CA": "invalid non-CA certificate",
    "PROXY_PATH_LENGTH_EXCEEDED": "proxy path length constraint exceeded",
    "KEYUSAGE_NO_DIGITAL_SIGNATURE": "key usage does not include digital signature",
    "PROXY_CERTIFICATES_NOT_ALLOWED": "proxy certificates not allowed",
    "INVALID_EXTENSION": "invalid or inconsistent certificate extension",
    "INVALID_POLICY_EXTENSION": "invalid or inconsistent certificate policy extension",
    "UNSUPPORTED_EXTENSION_FEATURE": "unsupported extension feature",
    "UNNESTED_RESOURCE": "resource not subset of parent's resources",
    "PERMITTED_VIOLATION": "permitted subtree violation",
    "EXCLUDED_VIOLATION": "excluded subtree violation",
    "SUBTREE_MINMAX": "name constraints minimum and maximum not supported",
    "UNSUPPORTED_CONSTRAINT_TYPE": "unsupported name constraint type",
    "UNSUPPORTED_CONSTRAINT_SYNTAX": "unsupported or invalid name constraint syntax",
    "UNSUPPORTED_NAME_SYNTAX": "unsupported or invalid name syntax",
    "EE_KEY_TOO_SMALL": "EE certificate key too weak",
    "CA_KEY_TOO_SMALL": "CA certificate key too weak",
    "CA_MD_TOO_WEAK": "CA signature digest algorithm too weak",
    "PROXY_SUBJECT_NAME_VIOLATION": "proxy subject name violation",
    "UNSUPPORTED_SIGNATURE_ALGORITHM": "Cannot find certificate signature algorithm",
    "SIGNATURE_ALGORITHM_MISMATCH": "signature algorithm and issuer public key algorithm mismatch",
    "INVALID_CA": "invalid CA certificate",
    "EC_KEY_EXPLICIT_PARAMS": "explicit ECC parameters",
    "DUPLICATE_EXTENSION": "",  # OpenSSL 4.0 has no words for it yet.
}

CODES = {name: value for name, value in vars(errors).items() if name.isupper() and name[0] != "_"}


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


@pytest.mark.parametrize("name", CURABLE)
def test_fault_of_an_issuer(root: Issued, tmp_path: Path, name: str) -> None:
    """All that is reported can be cured, and with a twin that has no fault nothing is."""
    reported, make = CURABLE[name]
    case = make(root)
    trusted = [root, *case.trusted]
    assert handshake(tmp_path, trusted, case.faulty, case.leaf.key) == reported
    assert [error for error in reported if not curable(*error)] == []
    assert handshake(tmp_path, trusted, case.good, case.leaf.key) == []


@pytest.mark.parametrize("name", FINAL)
def test_fault_of_the_leaf(root: Issued, tmp_path: Path, name: str) -> None:
    """The first thing that is reported is final: the handshake ends there, as without us."""
    reported, make = FINAL[name]
    case = make(root)
    assert handshake(tmp_path, [root], case.faulty, case.leaf.key)[0] == reported
    assert not curable(*reported)


def test_errors_that_are_not_reported() -> None:
    """They are classified all the same: another version of OpenSSL may report them."""
    assert [error for error in NOT_REPORTED_BUT_CURABLE if not curable(*error)] == []
    assert [error for error in NOT_REPORTED_AND_FINAL if curable(*error)] == []
    unchecked = [*NOT_REPORTED_BUT_CURABLE, *NOT_REPORTED_AND_FINAL]
    assert {code for code, _ in unchecked} == {CODES[name] for name in NOT_REPORTED}


@pytest.mark.parametrize("code", ALWAYS_FINAL)
def test_errors_that_no_path_cures(code: int) -> None:
    """They say nothing of the issuers, or are those of checks that mitmproxy does not ask for."""
    assert not any(curable(code, depth) for depth in range(4))


def test_every_error_of_openssl_is_accounted_for() -> None:
    """Every code that this version of OpenSSL has words for is in one of the tables above."""
    reported = {code for reported, _ in CURABLE.values() for code, _ in reported}
    reported |= {code for (code, _), _ in FINAL.values()}
    tables = reported, {CODES[name] for name in NOT_REPORTED}, ALWAYS_FINAL.keys() - {64}
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert reported - set(CODES.values()) == {64}
    known = {code for code in range(200) if not error_text(code).startswith("unknown")}
    assert known <= set().union(*tables)


@pytest.mark.parametrize("name", CODES)
def test_number(name: str) -> None:
    """Our numbers are OpenSSL's, by name where the bindings have it, and by their text."""
    assert CODES[name] == getattr(_lib, f"X509_V_ERR_{name}", CODES[name])
    assert WORDS[name] in error_text(CODES[name])


def test_numbers_the_bindings_have() -> None:
    """They still have most of them by name, so that the test above compares something."""
    assert sum(hasattr(_lib, f"X509_V_ERR_{name}") for name in CODES) >= 25
