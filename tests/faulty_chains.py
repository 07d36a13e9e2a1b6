"""Chains with one fault each, for test_errors: what OpenSSL can report in a handshake.

They are root -> CA -> leaf, sometimes with more authorities above the CA, and have a twin
without the fault: the same name and key. Where `cryptography` does not make such a
certificate, it is written in DER.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab import Issued, Options, authority, der, rewriting


@dataclass(frozen=True)
class Case:
    """Two servers of one leaf: what they present (DER, leaf first). The client trusts the
    root, and `trusted` as well."""

    leaf: Issued
    faulty: Sequence[bytes]
    good: Sequence[bytes] = ()
    trusted: Sequence[Issued] = ()


Make = Callable[[Issued], Case]
"""Makes the chains beneath a root."""


def in_the_ca(ca: Options, leaf: Options | None = None) -> Make:
    """root -> CA (fault) -> leaf; or a CA with no fault but that it does not suit the leaf."""

    def case(root: Issued) -> Case:
        twin = root.issue("CA", ca=True)
        faulty = root.issue("CA", **cast(Options, {"ca": True, "key": twin, **ca}))
        server = twin.issue(**(leaf or {}))
        return Case(server, [server.der, faulty.der], [server.der, twin.der])

    return case


def in_an_upper_ca(upper: Options, ca: Options | None = None) -> Make:
    """root -> Upper (fault) -> CA -> leaf, and root -> CA -> leaf."""

    def case(root: Issued) -> Case:
        twin = root.issue("CA", ca=True)
        above = root.issue("Upper", **cast(Options, {"ca": True, **upper}))
        below = above.issue("CA", **cast(Options, {"ca": True, "key": twin, **(ca or {})}))
        server = twin.issue()
        return Case(server, [server.der, below.der, above.der], [server.der, twin.der])

    return case


def in_the_leaf(leaf: Options) -> Make:
    """root -> CA -> leaf (fault)."""

    def case(root: Issued) -> Case:
        ca = root.issue("CA", ca=True)
        server = ca.issue(**leaf)
        return Case(server, [server.der, ca.der])

    return case


VALIDITY, PUBLIC_KEY = 4, 6
"""Their places in a TBSCertificate (RFC 5280 4.1)."""


def rewritten(field: int, contents: Callable[[Issued], bytes], *, leaf: bool = False) -> Make:
    """root -> CA -> leaf, where `field` of the CA's or the leaf's certificate is replaced."""

    def case(root: Issued) -> Case:
        ca = root.issue("CA", ca=True)
        server = ca.issue()
        if leaf:
            return Case(server, [rewriting.rewritten(server, field, contents(server), ca), ca.der])
        faulty = rewriting.rewritten(ca, field, contents(ca), root)
        return Case(server, [server.der, faulty], [server.der, ca.der])

    return case


def dates(not_before: str, not_after: str) -> Callable[[Issued], bytes]:
    utc_time = 0x17
    texts = [der.encode(utc_time, text.encode()) for text in (not_before, not_after)]
    return lambda _: der.encode(der.SEQUENCE, *texts)


def explicit_curve(issued: Issued) -> bytes:
    """A P-256 key that spells its curve out (RFC 3279 2.3.5) where others name it."""
    assert isinstance(issued.key, ec.EllipticCurvePrivateKey)
    octets, p256 = 0x04, 2**256 - 2**224 + 2**192 + 2**96 - 1
    point = issued.key.public_key().public_numbers()
    generator = (
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    parameters = der.encode(
        der.SEQUENCE,
        _integer(1),
        der.encode(
            der.SEQUENCE,
            der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2a8648ce3d0101")),
            _integer(p256),
        ),
        der.encode(
            der.SEQUENCE,
            der.encode(octets, (p256 - 3).to_bytes(32, "big")),
            der.encode(
                octets,
                bytes.fromhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"),
            ),
        ),
        der.encode(octets, bytes.fromhex(generator)),
        _integer(0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
        _integer(1),
    )
    ec_public_key = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2a8648ce3d0201"))
    bits = b"\x04" + point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
    return der.encode(
        der.SEQUENCE,
        der.encode(der.SEQUENCE, ec_public_key, parameters),
        der.encode(der.BIT_STRING, b"\x00", bits),
    )


def _integer(value: int) -> bytes:
    return der.encode(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def extension(oid: str, value: bytes, *, critical: bool = True) -> Options:
    """An extension that `cryptography` does not know, or not with such a value."""
    raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    return {"extra": [x509.Extension(raw.oid, critical, raw)]}


UNKNOWN = extension("1.3.6.1.4.1.55555.1", b"\x05\x00")


def permitted(*subtree: bytes) -> Options:
    """Name constraints with one permitted subtree of these elements."""
    subtrees = der.encode(der.CONTEXT_0, der.encode(der.SEQUENCE, *subtree))
    return extension("2.5.29.30", der.encode(der.SEQUENCE, subtrees))


def subject_alternative_name(*names: x509.GeneralName) -> Options:
    """A leaf for 127.0.0.1 and `names`."""
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    value = x509.SubjectAlternativeName([address, *names])
    return {"hosts": (), "extra": [x509.Extension(value.oid, False, value)]}


RFC822_NAME, IP_ADDRESS, REGISTERED_ID, MAXIMUM = 0x81, 0x87, 0x88, 0x81
LOOPBACK = der.encode(IP_ADDRESS, bytes([127, 0, 0, 0, 255, 0, 0, 0]))
PAST, FUTURE, NO_DATE = "200101000000Z", "401231000000Z", "201399000000Z"

MANY_NAMES = subject_alternative_name(*(x509.DNSName(f"n{n}.example") for n in range(1_100)))
MANY_CONSTRAINTS: Options = {"excluded": [f"c{n}.example" for n in range(1_000)]}
"""Each of them alone is fine. OpenSSL compares at most 2**20 pairs (NAME_CHECK_MAX)."""


def addresses(*families: bytes) -> Options:
    """RFC 3779's IPAddrBlocks."""
    return extension("1.3.6.1.5.5.7.1.7", der.encode(der.SEQUENCE, *families))


def family(number: int, choice: bytes) -> bytes:
    octets = der.encode(0x04, bytes([0, number]))
    return der.encode(der.SEQUENCE, octets, choice)


INHERIT = b"\x05\x00"
NET_10 = der.encode(der.SEQUENCE, der.encode(der.BIT_STRING, b"\x00\x0a"))
NOT_SORTED = addresses(family(2, INHERIT), family(1, INHERIT))


def proxy(*path_length: bytes) -> Options:
    """RFC 3820's proxy certificate, which inherits all that its issuer may do."""
    inherit_all = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010505071501"))
    information = der.encode(der.SEQUENCE, *path_length, der.encode(der.SEQUENCE, inherit_all))
    return {"ca": False, "hosts": (), **extension("1.3.6.1.5.5.7.1.14", information)}


PROXY, PROXY_OF_NO_MORE = proxy(), proxy(_integer(0))


def another_key(root: Issued) -> Case:
    """root -> CA -> leaf, and another CA of the same name: only the signature tells them apart."""
    ca = root.issue("CA", ca=True)
    impostor = root.issue("CA", ca=True)
    server = ca.issue(authority_key_identifier=False)
    return Case(server, [server.der, impostor.der], [server.der, ca.der])


def unknown_root(root: Issued) -> Case:
    """Unknown -> CA -> leaf, presented whole."""
    unknown = authority("Unknown")
    twin = root.issue("CA", ca=True)
    ca = unknown.issue("CA", ca=True, key=twin)
    server = ca.issue()
    return Case(server, [server.der, ca.der, unknown.der], [server.der, twin.der])


def leaf_only(root: Issued) -> Case:
    """root -> [CA] -> leaf."""
    ca = root.issue("CA", ca=True)
    server = ca.issue()
    return Case(server, [server.der], [server.der, ca.der])


def trusted_intermediate(root: Issued) -> Case:
    """Unknown -> CA -> leaf, and the trust store has this CA, which makes it no trust anchor."""
    unknown = authority("Unknown")
    lower_twin = root.issue("Lower", ca=True)
    ca = unknown.issue("CA", ca=True)
    lower = ca.issue("Lower", ca=True, key=lower_twin)
    server = lower.issue()
    return Case(server, [server.der, lower.der], [server.der, lower_twin.der], trusted=[ca])


def long_chain(root: Issued) -> Case:
    """root -> CA 101 -> ... -> CA 1 -> leaf. OpenSSL's limit is 100 intermediates."""
    chain: list[Issued] = []
    above = root
    for number in range(101, 0, -1):
        above = above.issue(f"CA {number}", ca=True)
        chain.insert(0, above)
    server = above.issue()
    twin = root.issue("CA 1", ca=True, key=above)
    return Case(server, [server.der, *(ca.der for ca in chain)], [server.der, twin.der])


def self_signed_leaf(_: Issued) -> Case:
    """leaf -> leaf."""
    server = authority("Leaf", ca=False)
    return Case(server, [server.der])
