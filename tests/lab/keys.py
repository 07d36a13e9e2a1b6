"""Private keys of every strength, and signatures that `cryptography` refuses to make."""

import math
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.lab import der

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KeyKind = Literal["ec192", "ec224", "ec256", "ec384", "rsa1024", "rsa2048", "rsa3072", "ed25519"]
Digest = Literal["md5", "sha1", "sha256", "sha384", "sha512"]

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ec192": ec.SECP192R1,
    "ec224": ec.SECP224R1,
    "ec256": ec.SECP256R1,
    "ec384": ec.SECP384R1,
}
_DIGESTS: dict[Digest, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
# AlgorithmIdentifier of RFC 3279 section 2.2: RSA has a NULL parameter, ECDSA has none.
_LEGACY_ALGORITHMS: dict[tuple[type[PrivateKey], Digest], bytes] = {
    (rsa.RSAPrivateKey, "md5"): bytes.fromhex("300d06092a864886f70d0101040500"),
    (rsa.RSAPrivateKey, "sha1"): bytes.fromhex("300d06092a864886f70d0101050500"),
    (ec.EllipticCurvePrivateKey, "sha1"): bytes.fromhex("300906072a8648ce3d0401"),
}


def generate(kind: KeyKind) -> PrivateKey:
    """A fresh key. Elliptic curves take microseconds, RSA 2048 about 60 ms."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))
    return ec.generate_private_key(_CURVES[kind]())


def slow_rsa() -> rsa.RSAPrivateKey:
    """RSA 3072 with an exponent as long as the modulus: a signature takes 7 ms to verify, and
    OpenSSL does it. For longer moduli it refuses such an exponent."""
    usual = rsa.generate_private_key(public_exponent=65537, key_size=3072).private_numbers()
    p, q, n = usual.p, usual.q, usual.public_numbers.n
    e = next(e for e in range(n - 2, 0, -2) if math.gcd(e, (p - 1) * (q - 1)) == 1)
    d = rsa.rsa_recover_private_exponent(e, p, q)
    dmp1, dmq1 = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, usual.iqmp, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM, for servers that read files."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def sign(builder: x509.CertificateBuilder, key: PrivateKey, digest: Digest) -> x509.Certificate:
    """The certificate that `builder` describes, signed with `key`."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None)
    if digest in ("md5", "sha1"):
        return _resign(builder.sign(key, hashes.SHA256()), key, digest)
    algorithm = _DIGESTS[digest]()
    assert isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)
    return builder.sign(key, algorithm)


def _resign(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    digest: Digest,
) -> x509.Certificate:
    """The same certificate under a digest the builder is too careful to use."""
    kind = rsa.RSAPrivateKey if isinstance(key, rsa.RSAPrivateKey) else ec.EllipticCurvePrivateKey
    algorithm = _LEGACY_ALGORITHMS[kind, digest]
    version, serial, _sha256, *rest = der.elements(certificate.tbs_certificate_bytes)
    tbs = der.encode(der.SEQUENCE, version, serial, algorithm, *rest)
    legacy = _DIGESTS[digest]()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(tbs, padding.PKCS1v15(), legacy)
    else:
        signature = key.sign(tbs, ec.ECDSA(legacy))
    return x509.load_der_x509_certificate(
        der.encode(der.SEQUENCE, tbs, algorithm, der.encode(der.BIT_STRING, b"\x00", signature))
    )
