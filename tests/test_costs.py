"""What would take OpenSSL too long is not asked, and all that is honest is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from mitmproxy_aia import comparisons, costs
from mitmproxy_aia import der as der_reader
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.loaded import to_openssl
from mitmproxy_aia.openssl import store_of, verify
from mitmproxy_aia.verification import Verifier
from tests.faulty_chains import explicit_curve
from tests.lab import Issued, Proxy, TlsServer, authority, curl, der
from tests.lab.keys import KeyKind, slow_rsa
from tests.lab.rewriting import ISSUER, KEY, UTF8_STRING, encoded_name, rewritten

SLOW = slow_rsa()
SENTENCE = "the server's certificates would take too long to verify"


def line(top: Issued, length: int, **options: object) -> list[Issued]:
    """leaf <- CA <- CA ... <- top, leaf first and without `top`."""
    above: Issued = top
    chain: list[Issued] = []
    for number in range(length):
        above = above.issue(f"CA {number}", ca=True, **options)  # type: ignore[arg-type] # as given
        chain.insert(0, above)
    return [above.issue(), *chain]


def read(chain: list[Issued]) -> tuple[Certificate, ...]:
    return tuple(Certificate.from_der(each.der) for each in chain)


@pytest.mark.parametrize("key", ["rsa2048", "rsa3072", "ec256", "ec384", "ed25519"])
def test_honest_chains(key: KeyKind) -> None:
    """Five certificates are far below the limit, whatever their keys."""
    issuer = authority(key=key)
    assert 0 < costs.milliseconds(read(line(issuer, 4, key=issuer))) < costs.MOST / 2


def test_honest_names() -> None:
    """An intermediate for a hundred domains, and a leaf with a hundred names in them."""
    domains = [f"department-{number}.example" for number in range(100)]
    issuer = authority().issue("CA", ca=True, permitted=domains)
    chain = read([issuer.issue(hosts=[f"www.{each}" for each in domains]), issuer])
    assert not costs.too_much(chain)


def test_names_without_constraints() -> None:
    """There is nothing to compare them with."""
    leaf = authority().issue(hosts=[f"{number}.example" for number in range(4_000)])
    assert not costs.too_much(read([leaf]))


def test_long_exponents() -> None:
    """One such key is no reason to give up, and two are."""
    slow = Certificate.from_der(authority(key=SLOW).der)
    assert costs.MOST / 2 < costs.milliseconds([slow]) < costs.MOST
    assert costs.too_much([slow, slow])


@pytest.mark.parametrize(("names", "constraints"), [(1_500, 1_000), (9_000, 200), (200, 9_000)])
def test_names_and_constraints(names: int, constraints: int) -> None:
    """As many as OpenSSL would still compare, or more, however they are spread."""
    excluded = [f"{number}.x" for number in range(constraints)]
    issuer = authority().issue("CA", ca=True, excluded=excluded)
    leaf = issuer.issue(hosts=[f"{number}.y" for number in range(names)])
    assert costs.too_much(read([leaf, issuer]))


def test_other_keys() -> None:
    """Each has its price."""
    keys: list[CertificatePublicKeyTypes] = [
        ed448.Ed448PrivateKey.generate().public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        dsa.generate_private_key(2048).public_key(),
    ]
    signer = ec.generate_private_key(ec.SECP256R1())
    template = authority().certificate
    for key in keys:
        made = x509.CertificateBuilder(
            issuer_name=template.issuer,
            subject_name=template.subject,
            public_key=key,
            serial_number=1,
            not_valid_before=template.not_valid_before_utc,
            not_valid_after=template.not_valid_after_utc,
        ).sign(signer, template.signature_hash_algorithm)  # type: ignore[arg-type] # SHA-256
        certificate = Certificate.from_der(made.public_bytes(Encoding.DER))
        assert 0.1 < costs.milliseconds([certificate]) < costs.MOST


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x00", b"\x30\x02\x30\x00", b"\x30\x84" * 9])
def test_damaged(data: bytes) -> None:
    """What cannot be read costs as much as there may be in it: a key on the longest curve."""
    marked = data + comparisons._CONSTRAINTS
    assert 5 < costs.milliseconds([Certificate(data), Certificate(marked)]) < costs.MOST


@pytest.mark.parametrize(
    "kind", [ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
)
@pytest.mark.parametrize("value", ["", "30", "300500", "3084ff", "30023005", "3003a00130", "3080"])
def test_damaged_extensions(kind: x509.ObjectIdentifier, value: str) -> None:
    """They keep no good chain from being completed."""
    damaged = x509.Extension(kind, False, x509.UnrecognizedExtension(kind, bytes.fromhex(value)))
    issuer = authority(excluded=["a.example"]).issue("CA", ca=True, extra=[damaged])
    above = authority().issue("Above", ca=True, excluded=["a.example"])
    assert 0 < costs.milliseconds(read([issuer, above])) < 1


@pytest.mark.parametrize("version", [1, 3])
def test_what_only_looks_like_constraints(version: int) -> None:
    """The same bytes in a name, with extensions and without."""
    lookalike = authority().issue("U\x1d\x1e", hosts=["a.example"]).der
    if version == 1:
        tbs, *signed = der.elements(lookalike)
        lookalike = der.encode(
            der.SEQUENCE, der.encode(der.SEQUENCE, *der.elements(tbs)[1:7]), *signed
        )
    assert comparisons._CONSTRAINTS in lookalike
    certificate = Certificate(lookalike)
    assert costs.milliseconds([certificate] * 2) == 2 * costs.milliseconds([certificate])


CONSTRUCTED = 0x20
OCTET_STRING = 0x04
EXTENSIONS = 0xA3


def indefinite(element: bytes, depth: int) -> bytes:
    """The same in BER, with lengths that come at the end, so many levels down."""
    if depth == 0 or not element[0] & CONSTRUCTED:
        return element
    inside = [indefinite(each, depth - 1) for each in der.elements(element)]
    return der.encode_indefinite(element[0], *inside)


def too_long(element: bytes) -> bytes:
    """The same in BER, with a length of more bytes than it takes."""
    inside = b"".join(der.elements(element))
    return element[:1] + b"\x84" + len(inside).to_bytes(4) + inside


def other_tag(element: bytes) -> bytes:
    """The same in BER, with the tag in a byte of its own."""
    return bytes([element[0] | 0x1F, element[0] & 0x1F]) + element[1:]


BER: dict[str, Callable[[bytes], bytes]] = {
    "indefinite": lambda element: indefinite(element, 1),
    "indefinite, all": lambda element: indefinite(element, 3),
    "length": too_long,
    "tag": other_tag,
}


def constraints(number: int, encode: Callable[[bytes], bytes]) -> x509.Extension[Any]:
    """So many of DNS names, encoded in another way."""
    names = [der.encode(0x82, b"%d.excluded.example" % each) for each in range(number)]
    subtrees = der.encode(0xA1, *[der.encode(der.SEQUENCE, name) for name in names])
    kind = ExtensionOID.NAME_CONSTRAINTS
    value = encode(der.encode(der.SEQUENCE, subtrees))
    return x509.Extension(kind, True, x509.UnrecognizedExtension(kind, value))


@pytest.mark.parametrize("encoding", BER)
def test_constraints_in_ber(encoding: str) -> None:
    """OpenSSL reads them, and compares all; to others they would seem to be none."""
    root = authority()
    extra = [constraints(600, BER[encoding])]
    issuer = root.issue("CA", ca=True, extra=extra)
    hosts = [f"{number}.example" for number in range(1_000)]
    leaf = issuer.issue(hosts=hosts, authority_key_identifier=False)
    path = read([leaf, issuer])
    assert costs.too_much(path)
    store = store_of([to_openssl(Certificate(root.der))], partial=False)
    assert verify(store, [*map(to_openssl, path)])[1] is None


def signed_in_ber(issued: Issued, issuer: Issued, change: Callable[[bytes], bytes]) -> bytes:
    """`issued` with another encoding of what is signed."""
    tbs, algorithm, _ = der.elements(issued.der)
    changed = change(tbs)
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    signature = issuer.key.sign(changed, padding.PKCS1v15(), hashes.SHA256())
    return der.encode(
        der.SEQUENCE, changed, algorithm, der.encode(der.BIT_STRING, b"\0", signature)
    )


@pytest.mark.parametrize("encoding", BER)
def test_keys_in_ber(encoding: str) -> None:
    """`cryptography` does not read such certificates, and OpenSSL does."""
    root = authority(key=SLOW)
    chain = line(root, 4, key=SLOW)
    issuers = [*chain[1:], root]
    ders = [
        signed_in_ber(issued, issuer, BER[encoding])
        for issued, issuer in zip(chain, issuers, strict=True)
    ]
    certificates = [*map(Certificate, ders)]
    assert costs.too_much(certificates[1:3])
    store = store_of([to_openssl(Certificate(root.der))], partial=False)
    assert verify(store, [*map(to_openssl, certificates)])[1] is None


def test_key_in_parts() -> None:
    """A BIT STRING may be made of several in BER: what the first begins with is not the key."""
    root = authority(key=SLOW)
    info = der.elements(der.elements(root.der)[0])[KEY]
    algorithm, bits = der.elements(info)
    parts = der.encode(der.BIT_STRING | CONSTRUCTED, bits)
    odd = Certificate(rewritten(root, KEY, der.encode(der.SEQUENCE, algorithm, parts)))
    assert costs.too_much([odd] * 2)
    assert costs.milliseconds([odd]) > costs.MOST / 2


@pytest.mark.parametrize("octets", [b"", b"\4\2\x30\0"], ids=["whole", "after-an-empty-one"])
def test_extension_in_parts(octets: bytes) -> None:
    """The same of an OCTET STRING."""
    root = authority()
    issuer = root.issue("CA", ca=True, extra=[constraints(600, lambda value: value)])
    fields = der.elements(der.elements(issuer.der)[0])
    extensions = der.elements(der.elements(fields[-1])[0])
    changed = []
    for extension in extensions:
        *start, value = der.elements(extension)
        parts = der.encode(OCTET_STRING | CONSTRUCTED, octets, value)
        changed.append(der.encode(der.SEQUENCE, *start, parts))
    wrapped = der.encode(EXTENSIONS, der.encode(der.SEQUENCE, *changed))
    odd = Certificate(rewritten(issuer, len(fields) - 1, wrapped))
    leaf = issuer.issue(hosts=[f"{number}.example" for number in range(1_000)])
    assert costs.too_much([Certificate(leaf.der), odd])


def test_key_at_infinity() -> None:
    """It has one byte on every curve, and anybody can sign for it."""
    algorithm = bytes.fromhex("301006072a8648ce3d020106052b81040027")  # sect571r1
    key = der.encode(der.SEQUENCE, algorithm, der.encode(der.BIT_STRING, bytes(2)))
    certificate = Certificate(rewritten(authority(), KEY, key))
    assert costs.milliseconds([certificate]) > 1.4
    assert costs.too_much([certificate] * 8)


@pytest.mark.parametrize("parameters", ["", "0500"], ids=["absent", "null"])
def test_dsa_key_with_the_parameters_of_its_issuer(parameters: str) -> None:
    """They may be the longest."""
    kind = der.encode(der.SEQUENCE, bytes.fromhex("06072a8648ce380401" + parameters))
    number = der.encode(der.INTEGER, b"\1" * 256)
    key = der.encode(der.SEQUENCE, kind, der.encode(der.BIT_STRING, b"\0", number))
    assert costs.too_much([Certificate(rewritten(authority(), KEY, key))])


@pytest.mark.parametrize(("number", "size"), [(5_000, 0), (300, 50)])
def test_one_long_name(number: int, size: int) -> None:
    """OpenSSL looks for an @ in all of it, for each constraint."""
    subtree = der.encode(der.SEQUENCE, der.encode(0x81, b"x" * size))
    value = der.encode(der.SEQUENCE, der.encode(0xA1, *[subtree] * number))
    kind = ExtensionOID.NAME_CONSTRAINTS
    extra = [x509.Extension(kind, True, x509.UnrecognizedExtension(kind, value))]
    issuer = authority().issue("CA", ca=True, extra=extra)
    names = x509.SubjectAlternativeName([x509.RFC822Name("a" * 64_000 + "@b")])
    leaf = issuer.issue(hosts=[], extra=[x509.Extension(names.oid, False, names)])
    assert costs.too_much(read([leaf, issuer]))


def test_more_extensions_than_are_looked_through() -> None:
    """They are taken for the worst, which costs us nothing either."""
    large = [unknown(number, bytes(200)) for number in range(der_reader.MAX_ELEMENTS)]
    issuer = authority().issue("CA", ca=True, extra=[constraints(100, lambda value: value)])
    assert not costs.too_much(read([issuer.issue(hosts=["a.example"]), issuer]))
    assert costs.too_much(read([issuer.issue(hosts=["a.example"], extra=large), issuer]))


def unknown(number: int, value: bytes) -> x509.Extension[Any]:
    kind = x509.ObjectIdentifier(f"1.2.3.{number}")
    return x509.Extension(kind, False, x509.UnrecognizedExtension(kind, value))


OTHER_NAME, RFC822_NAME, DNS_NAME, URI, IP_ADDRESS = 0xA0, 0x81, 0x82, 0x86, 0x87


def compared(name: bytes, constraint: bytes, number: int = 250) -> float:
    """Milliseconds to compare so many names with as many constraints."""
    subtree = der.encode(der.SEQUENCE, constraint)
    value = der.encode(der.SEQUENCE, der.encode(0xA1, *[subtree] * number))
    kind = ExtensionOID.NAME_CONSTRAINTS
    extra = [x509.Extension(kind, True, x509.UnrecognizedExtension(kind, value))]
    issuer = authority().issue("CA", ca=True, extra=extra)
    names = der.encode(der.SEQUENCE, *[name] * number)
    kind = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    extra = [x509.Extension(kind, False, x509.UnrecognizedExtension(kind, names))]
    return costs.milliseconds(read([issuer.issue(hosts=[], extra=extra), issuer]))


def test_kinds_of_names() -> None:
    """Only names and constraints of one kind are compared, of which some take longer."""
    email, host, uri, address = (
        *(der.encode(RFC822_NAME, b"a@b"), der.encode(DNS_NAME, b"a.b")),
        *(der.encode(URI, b"a:b"), der.encode(IP_ADDRESS, bytes(8))),
    )
    all_alike = [compared(each, each) for each in (email, host, address)]
    assert all(1 < each < 5 for each in all_alike)
    assert compared(uri, uri) > costs.MOST
    for one, other in (email, host), (host, uri), (uri, address), (address, email):
        assert compared(one, other) < 1.5
    assert compared(host, host, 1_000) > costs.MOST


def test_mailboxes() -> None:
    """Names for internationalized mail take a hundred times as long to compare with constraints of
    mail as others."""
    kinds = (der.encode(der.OBJECT_IDENTIFIER, comparisons._MAILBOX_NAME[:-1] + last)
             for last in (b"\x09", b"\x0a"))  # fmt: skip
    mailbox, other = (
        der.encode(OTHER_NAME, kind, der.encode(0xA0, der.encode(0x0C, b"@"))) for kind in kinds
    )
    mail, host = der.encode(RFC822_NAME, b"xn--a.b"), der.encode(DNS_NAME, b"xn--a.b")
    assert compared(mailbox, mail, 30) > costs.MOST / 2
    assert compared(mailbox, host, 30) < 3
    assert compared(other, mail, 30) < 1


def test_mailboxes_in_ber() -> None:
    """A value may be in pieces, and their object identifier with it."""
    issuer = authority().issue("CA", ca=True, extra=[constraints(50, lambda value: value)])
    kind = der.encode(der.OBJECT_IDENTIFIER, comparisons._MAILBOX_NAME)
    mailbox = der.encode(OTHER_NAME, kind, der.encode(0xA0, der.encode(0x0C, b"@")))
    names = der.encode(der.SEQUENCE, *[mailbox] * 2_000)
    oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    extra = x509.Extension(oid, False, x509.UnrecognizedExtension(oid, names))
    leaf = issuer.issue(hosts=[], extra=[extra])
    pieces = [der.encode(OCTET_STRING, names[at : at + 7]) for at in range(0, len(names), 7)]
    in_pieces = der.encode(OCTET_STRING | CONSTRUCTED, *pieces)
    assert comparisons._MAILBOX_NAME not in in_pieces
    tbs, *rest = der.elements(leaf.der)
    *fields, extensions = der.elements(tbs)
    listed = [
        der.encode(der.SEQUENCE, *der.elements(each)[:-1], in_pieces) if names in each else each
        for each in der.elements(der.elements(extensions)[0])
    ]
    extensions = der.encode(EXTENSIONS, der.encode(der.SEQUENCE, *listed))
    tbs = der.encode(der.SEQUENCE, *fields, extensions)
    chain = [Certificate(der.encode(der.SEQUENCE, tbs, *rest)), Certificate(issuer.der)]
    assert to_openssl(chain[0]).get_extension_count() > 0
    assert comparisons._names(chain[0]).mailboxes
    assert costs.too_much(chain)


def test_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every path and step it is asked again, and there may be thousands of names."""
    looked_at = list[Certificate]()
    extension = comparisons.extension

    def counted(certificate: Certificate, kind: bytes) -> bytes:
        looked_at.append(certificate)
        return extension(certificate, kind)

    monkeypatch.setattr(comparisons, "extension", counted)
    issuer = authority().issue("CA", ca=True, extra=[constraints(100, lambda value: value)])
    chain = read([issuer.issue(), issuer])
    assert len({costs.milliseconds(chain) for _ in range(5)}) == 1
    # What constrains, and what is constrained.
    assert looked_at == [chain[1], *chain]


def test_key_by_another_name() -> None:
    """OpenSSL knows RSA by more than one."""
    slow = authority(key=SLOW).der
    usual, other = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d01010b")
    certificate = Certificate(slow.replace(usual, other))
    assert costs.too_much([certificate] * 2)


def spelt_out(issued: Issued, *, generator: bytes, key: bytes) -> Certificate:
    """With a curve that is spelt out. The points are written as they are, or in a short form that
    begins with these bytes."""
    algorithm, bits = der.elements(explicit_curve(issued))
    kind, parameters = der.elements(algorithm)
    fields = der.elements(parameters)
    points = [fields[3][2:], bits[3:]]
    for number, form in enumerate([generator, key]):
        if form:
            points[number] = form + points[number][1:33]
    fields[3] = der.encode(4, points[0])
    algorithm = der.encode(der.SEQUENCE, kind, der.encode(der.SEQUENCE, *fields))
    info = der.encode(der.SEQUENCE, algorithm, der.encode(der.BIT_STRING, b"\x00", points[1]))
    return Certificate.from_der(rewritten(issued, KEY, info))


@pytest.mark.parametrize("generator", [b"", b"\x02", b"\x03"])
@pytest.mark.parametrize("key", [b"", b"\x02", b"\x03"])
def test_curves_that_are_spelt_out(generator: bytes, key: bytes) -> None:
    """Others have the curve that makes it hard to tell the rest of a point in short form. To read
    such a key takes long, so that OpenSSL is not even asked what is above it."""
    root = authority()
    certificate = spelt_out(root.issue("CA", ca=True), generator=generator, key=key)
    short = bool(generator or key)
    assert costs.too_much([certificate]) == short
    verifier = Verifier(store_of([to_openssl(Certificate(root.der))], partial=False))
    fault = verifier.fault_above(certificate)
    assert fault is not None
    assert (fault.text == "certificates that would take too long to verify") == short
    assert verifier.signatures == (not short)


def test_curves_that_are_spelt_out_in_ber() -> None:
    """What cannot be read may be in short form."""
    issued = authority()
    algorithm, bits = der.elements(explicit_curve(issued))
    for encode in BER.values():
        info = der.encode(der.SEQUENCE, encode(algorithm), bits)
        assert costs.too_much([Certificate(rewritten(issued, KEY, info))])


FULL_NAME, RELATIVE_NAME, CRL_ISSUER = 0xA0, 0xA1, 0xA2


def with_points(
    number: int, *parts: bytes, encode: Callable[[bytes], bytes] = bytes
) -> Certificate:
    """A CA with so many distribution points of CRLs, whose issuer has a long name."""
    point = der.encode(der.SEQUENCE, *parts)
    oid = ExtensionOID.CRL_DISTRIBUTION_POINTS
    value = encode(der.encode(der.SEQUENCE, *[point] * number))
    extra = [x509.Extension(oid, False, x509.UnrecognizedExtension(oid, value))]
    long = encoded_name(UTF8_STRING, bytes(1_000))
    return Certificate(rewritten(authority().issue("CA", ca=True, extra=extra), ISSUER, long))


def test_distribution_points() -> None:
    """A name that is relative to the issuer's is a copy of that for OpenSSL. There may be
    thousands of them, and it takes seconds before anything is verified."""
    relative = der.encode(0xA0, der.encode(RELATIVE_NAME))
    url = der.encode(URI, b"http://ca.example/a.crl")
    full = der.encode(0xA0, der.encode(FULL_NAME, url))
    assert costs.milliseconds([with_points(500, full)]) < 1
    assert costs.milliseconds([with_points(2, relative)]) < 1
    assert costs.too_much([with_points(500, relative)])
    issuer = der.encode(CRL_ISSUER, der.encode(0xA4, der.encode(der.SEQUENCE, bytes(2_000))))
    assert costs.too_much([with_points(120, relative, issuer)])
    for encode in BER.values():
        certificate = with_points(500, relative, encode=encode)
        assert costs.too_much([certificate])
        verifier = Verifier(store_of([], partial=False))
        fault = verifier.fault_above(certificate)
        assert fault is not None
        assert fault.text == "certificates that would take too long to verify"
        assert verifier.signatures == 0


def test_distribution_points_that_cannot_be_found() -> None:
    """There may be as many as bytes with which one can begin."""
    hidden = b"\x30\x80" + costs._DISTRIBUTION_POINTS + b"\xa1\x00" * 1_000
    assert costs._distribution_points(Certificate(hidden)) > costs.MOST
    assert costs._distribution_points(Certificate(hidden[:20])) < 1


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.BrainpoolP256R1(), ec.SECP256K1()])
def test_unusual_curves(curve: ec.EllipticCurve) -> None:
    """A chain of them is good, and dozens take longer than their size says."""
    info = (
        ec.generate_private_key(curve)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    made = [Certificate(rewritten(authority(), KEY, info)) for _ in range(12)]
    assert not costs.too_much(made[:6])
    assert costs.too_much(made)


def test_judged_without_asking_openssl() -> None:
    """Neither as a whole path nor step by step."""
    root = authority()
    chain = read(line(root, 3, key=SLOW))
    verifier = Verifier(store_of([to_openssl(Certificate(root.der))], partial=False))
    verdict = verifier.judge(chain)
    assert verdict.verified is None
    assert verdict.fault is not None
    assert verdict.fault.text == "certificates that would take too long to verify"
    assert verifier.step(chain[1], chain[2]) == replace(verdict.fault, depth=1)
    assert verifier.signatures == 0


def test_explained_without_looking_at_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key identifier says who the issuer is, and the signature is not looked at for that."""
    root = authority(key=SLOW)
    issuer = root.issue("CA", ca=True, key=SLOW, subject_key_identifier=False)
    below = issuer.issue(key=SLOW, authority_key_identifier=False)
    looked_at: list[Certificate] = []
    monkeypatch.setattr(Certificate, "is_signed_by", lambda _, other: looked_at.append(other))
    verifier = Verifier(store_of([to_openssl(Certificate(root.der))], partial=False))
    outcome = Completion(read([below, issuer]), verifier, []).complete_at_once()
    assert not outcome.verified
    assert looked_at == []


@pytest.mark.parametrize(("mode", "more"), [("complete", f" ({SENTENCE})"), ("audit", "")])
def test_handshake_ends_at_once(root: Issued, mode: str, more: str) -> None:
    """leaf <- 28 slow ones <- unknown: as with stock mitmproxy, the first fault is the last."""
    chain = line(authority("Unknown", key=SLOW), 28, key=SLOW)
    with (
        TlsServer(*chain) as server,
        Proxy(trust=[root], options={"aia_mode": mode}) as proxy,
    ):
        reply = curl(server.url(), proxy=proxy)
    assert reply.status == 502
    text = "Certificate verify failed: unable to get local issuer certificate"
    assert reply.error_text == text + more


def test_handshake_with_constraints_in_ber(root: Issued) -> None:
    """leaf with many names <- constrained CA <- unknown: OpenSSL is not let to compare them."""
    issuer = authority("Unknown").issue("CA", ca=True, extra=[constraints(600, BER["indefinite"])])
    hosts = ["127.0.0.1", *(f"{number}.example" for number in range(1_000))]
    leaf = issuer.issue(hosts=hosts, authority_key_identifier=False)
    with TlsServer(leaf, issuer) as server, Proxy(trust=[root]) as proxy:
        reply = curl(server.url(), proxy=proxy)
    assert reply.status == 502
    assert reply.error_text.endswith(f"unable to get local issuer certificate ({SENTENCE})")


def test_strangers_cost_nothing(root: Issued, tmp_path: Path) -> None:
    """What a server sends besides its chain is not verified, and does not keep the chain from
    being completed."""
    issuer = root.issue("CA", ca=True)
    (tmp_path / "ca.crt").write_bytes(issuer.der)
    strangers = line(authority("Unknown", key=SLOW), 28, key=SLOW)
    with (
        TlsServer(issuer.issue(), *strangers) as server,
        Proxy(trust=[root], options={"aia_intermediates": f"{tmp_path}"}) as proxy,
    ):
        assert curl(server.url(), proxy=proxy).status == 200
