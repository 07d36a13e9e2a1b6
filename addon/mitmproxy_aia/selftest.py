"""Whether OpenSSL's verdicts are what they have to be, tried on a chain made on the spot.

What a handshake asks has been asked in another way before, and then a new OpenSSL did not
answer all of it any more. Nobody would notice: bad chains would be accepted.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mitmproxy_aia import errors, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.rehearsal import rehearse


def wrong_verdict() -> str | None:
    """Words for a verdict that is not what it has to be, or None. Takes some 3 ms."""
    root_key, leaf_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    root = _certificate("Root", root_key, root_key)
    leaf = openssl.to_openssl(_certificate("Leaf", leaf_key, root_key))
    anchors = [openssl.to_openssl(root)]
    for level, trusted, code in (
        (3, anchors, 0),
        # 192 bits of strength: the keys have them, the signature has 128.
        (4, anchors, errors.CA_MD_TOO_WEAK),
        (5, anchors, errors.EE_KEY_TOO_SMALL),
        (3, [], errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY),
    ):
        _, fault = rehearse(openssl.store_of(trusted, partial=False), [leaf], level)
        if (fault.code if fault else 0) != code:
            said = fault.text if fault else "ok"
            return (
                f'OpenSSL says "{said}" of a chain at security level {level}, '
                f'and should say "{openssl.error_text(code)}"'
            )
    return None


def leaf_and_stranger() -> tuple[Certificate, Certificate]:
    """A leaf, and a root which has not issued it."""
    leaf_key, issuer_key, root_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    return _certificate("Leaf", leaf_key, issuer_key), _certificate("Root", root_key, root_key)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Certificate:
    """A certificate of `name` and `key`, issued by "Root"."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Root", name)]
    builder = x509.CertificateBuilder(
        issuer_name=names[0],
        subject_name=names[1],
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - day,
        not_valid_after=now + day,
    ).add_extension(x509.BasicConstraints(ca=name == "Root", path_length=None), critical=True)
    made = builder.sign(signer, hashes.SHA256())
    return Certificate(made.public_bytes(Encoding.DER))
