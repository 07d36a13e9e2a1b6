"""OpenSSL's verification errors, and which of them another path could cure."""

from __future__ import annotations

# OpenSSL's include/openssl/x509_vfy.h. pyOpenSSL's bindings have most of these by name, but
# not all, and not in all supported versions.
UNSPECIFIED = 1
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
CERT_REJECTED = 28
KEYUSAGE_NO_CERTSIGN = 32
UNHANDLED_CRITICAL_EXTENSION = 34
INVALID_NON_CA = 37
PROXY_PATH_LENGTH_EXCEEDED = 38
KEYUSAGE_NO_DIGITAL_SIGNATURE = 39
PROXY_CERTIFICATES_NOT_ALLOWED = 40
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
PROXY_SUBJECT_NAME_VIOLATION = 72
UNSUPPORTED_SIGNATURE_ALGORITHM = 76
SIGNATURE_ALGORITHM_MISMATCH = 77
INVALID_CA = 79
EC_KEY_EXPLICIT_PARAMS = 94
DUPLICATE_EXTENSION = 104  # since OpenSSL 4.1

# The fault lies with an issuer, or the choice of it, at whatever depth it is found. Name
# constraints are an issuer's, but the depth is that of the certificate whose names they meet;
# "unspecified" is what OpenSSL says where there are too many of both to compare.
_CURABLE_ANYWHERE = frozenset(
    {
        UNSPECIFIED,
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
        INVALID_NON_CA,
        PROXY_PATH_LENGTH_EXCEEDED,
        KEYUSAGE_NO_DIGITAL_SIGNATURE,
        PROXY_CERTIFICATES_NOT_ALLOWED,
        PROXY_SUBJECT_NAME_VIOLATION,
        INVALID_EXTENSION,
        INVALID_POLICY_EXTENSION,
        UNSUPPORTED_EXTENSION_FEATURE,
        UNNESTED_RESOURCE,
        CA_KEY_TOO_SMALL,
        EC_KEY_EXPLICIT_PARAMS,
        DUPLICATE_EXTENSION,
        CA_MD_TOO_WEAK,
    }
)

_NOT_THE_ISSUER = frozenset(
    {
        UNABLE_TO_GET_ISSUER_CERT,
        UNABLE_TO_DECRYPT_CERT_SIGNATURE,
        UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY,
        CERT_SIGNATURE_FAILURE,
        UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        NO_ISSUER_PUBLIC_KEY,
        SIGNATURE_ALGORITHM_MISMATCH,
    }
)


def curable(code: int, depth: int) -> bool:
    """Whether another path could cure OpenSSL's verification error `code` at `depth` (0 is
    the leaf). Everything else (host name, the leaf's dates, revocation, ...) is final; so are
    the errors that OpenSSL has for flags which mitmproxy does not set (X509_STRICT, ...)."""
    return code in _CURABLE_ANYWHERE or (depth > 0 and code in _CURABLE_ABOVE_THE_LEAF)


def not_the_issuer(code: int) -> bool:
    """Whether it is what OpenSSL says of a step to a certificate that only has the right name. That
    tells a person nothing, unless the key identifier says that this should be the issuer."""
    return code in _NOT_THE_ISSUER
