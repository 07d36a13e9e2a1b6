"""What targets are made of: certificates of the lab, each made once in a process."""

import functools

from cryptography import x509

from tests.lab import Issued, authority, pkcs7_der

URL = "http://ca.example/{}"


@functools.cache
def root() -> Issued:
    return authority("Root")


@functools.cache
def chain() -> tuple[Issued, ...]:
    """The leaf first and the root last."""
    upper = root().issue("Upper", ca=True, aia=[URL.format("root")])
    lower = upper.issue("Lower", ca=True, aia=[URL.format("upper")], path_length=0)
    return lower.issue(aia=[URL.format("lower")]), lower, upper, root()


@functools.cache
def templates() -> tuple[bytes, ...]:
    """DER with much in it that can be changed."""
    leaf, lower, upper, _ = chain()
    odd = lower.issue(
        x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE"),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Ö & Söhne"),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "first"),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "second"),
            ]
        ),
        aia=[
            URL.format("a"),
            x509.DirectoryName(x509.Name([])),
            x509.RFC822Name("ca@example.com"),
            x509.DNSName("ca.example"),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
            URL.format("b"),
        ],
        ocsp=["http://ocsp.example/"],
    )
    limited = upper.issue("Limited", ca=True, permitted=["example.com", "127.0.0.0/8"])
    rsa = root().issue("RSA", ca=True, key="rsa2048")
    edwards = root().issue("Edwards", key="ed25519")
    issued = (leaf, lower, odd, limited, rsa, edwards)
    return (*(each.der for each in issued), pkcs7_der(leaf, lower, upper))
