"""Whether OpenSSL's verdicts are what they have to be, tried on a chain of our own.

What a handshake asks has been asked in another way before, and then a new OpenSSL did not
answer all of it any more. Nobody would notice: bad chains would be accepted.
"""

from __future__ import annotations

import base64

from mitmproxy_aia import errors, loaded, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.rehearsal import at_level, rehearse


def _certificate(text: str) -> Certificate:
    return Certificate(base64.b64decode(text))


# To make them takes longer than to try them. Their keys are of P-384 and nobody has them, their
# signatures are with SHA-256, and they are valid from 1970 to the end of 9999.
_ROOT = _certificate(
    "MIIBcTCB+KADAgECAhQYNXM2IrdLKR42xDFjL47HZd9dkTAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARSb290MCAXDTcw"
    "MDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAPMQ0wCwYDVQQDDARSb290MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE"
    "uzErbp+Ao/hfSR22H0yH7uySIYgifLyW2Jcp1pis+cDJIbH95an4FnBniwWjCj14uclToCT2lmLchhrDbf1Epkaq97y0"
    "x5vD/p7c7kp1phsUgtDtiw9eARp45qWzVDuXoxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA2gAMGUCMQDs"
    "UiAJvMRcxVmYqBFE7eunJjEyHiz/XoJlbSC2Jc8o/6dNLxyCwj0Z20VfGjscQnECMDnIgp2pjCrEZ9XhfrgBFcX4V0ZZ"
    "ovsJMJCgqB2fHFp7ssVwyimNAFct4tFBYGQkUw=="
)
_LEAF = _certificate(
    "MIIBbTCB9aADAgECAhQgaw4bF77NCJK83a2IORsFARN0SzAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARSb290MCAXDTcw"
    "MDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAPMQ0wCwYDVQQDDARMZWFmMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE"
    "nBYZCinWi1dRsXVxge1d97p644A3IZTF8KTjnpEfdXOwmBALazaMh0DS2riJdgo7e/A8L7JeY1ed7tip4NZOwbviDsHx"
    "VeLBvdHAZNp0Q+eDmJ++YC1Ab46z97Awn381oxAwDjAMBgNVHRMBAf8EAjAAMAoGCCqGSM49BAMCA2cAMGQCMEWcA0RO"
    "m+S7QZLbBQcxk1hYlcdourcEwNlhl9ZArGZiZjWg74WENInfkF/oiUVflAIwB5eHXNGu+ZphrkFOfH+7bQIdV4/YiQtm"
    "+e1VYQC6+O+XPbZ3D+/nMzqfiKO4MNg8"
)
_STRANGER = _certificate(
    "MIIBcTCB+KADAgECAhQNDVpufuIJfrdguOfdTKUipzr7dTAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARSb290MCAXDTcw"
    "MDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5WjAPMQ0wCwYDVQQDDARSb290MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE"
    "q0TPuU+YJgAN6hy63Ob2yfYDD/xma+skw/MlaTgNRAX2dzaeom5hLxRcEGQtqZ4meJyDzgtCe4Y4pt+PmiRuE8DULywW"
    "uiSnIdICc9fLnY8upr7TI+aesft/mrdfMa9AoxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA2gAMGUCMDvw"
    "Di2yftSPrl9HYuY95aZwUPfiQRlEH2Aus8SFOxmRQZN9tUTfgnKs0CbW+TFUGAIxAL2YUHk0pLS4pqkHnHyrmQr6P32f"
    "FZSOLjPzYoPfLdX6C/a1UrMlqXQWCHYBEEwXMg=="
)


def wrong_verdict() -> str | None:
    """Words for a verdict that is not what it has to be, or None. Takes some 3 ms."""
    leaf, anchors = loaded.to_openssl(_LEAF), [loaded.to_openssl(_ROOT)]
    for level, trusted, code in (
        (3, anchors, 0),
        # 192 bits of strength: the keys have them, the signature has 128.
        (4, anchors, errors.CA_MD_TOO_WEAK),
        (5, anchors, errors.EE_KEY_TOO_SMALL),
        (3, [], errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY),
    ):
        _, fault = rehearse(openssl.store_of(trusted, partial=False), [leaf], at_level(level))
        if (fault.code if fault else 0) != code:
            said = fault.text if fault else "ok"
            return (
                f'OpenSSL says "{said}" of a chain at security level {level}, '
                f'and should say "{openssl.error_text(code)}"'
            )
    return None


def leaf_and_stranger() -> tuple[Certificate, Certificate]:
    """A leaf, and a root which has not issued it, but has the name of the one that has."""
    return _LEAF, _STRANGER
