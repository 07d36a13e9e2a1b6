"""The extensions of a lab certificate: options in, `x509.Extension` objects out."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

if TYPE_CHECKING:
    from tests.lab.certificates import Issued, Options

_LOCAL_HOSTS = ("127.0.0.1", "localhost")
_PURPOSES = {
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "codeSigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def build(
    options: "Options",
    public_key: CertificateIssuerPublicKeyTypes,
    issuer: "Issued | None",
) -> Iterator[x509.Extension[x509.ExtensionType]]:
    """Every extension that `options` ask for. `issuer` is None for a self-signed one."""
    ca = options.get("ca", False)
    if options.get("basic_constraints", True):
        constraints = x509.BasicConstraints(ca, options.get("path_length"))
        yield _extension(constraints, critical=True)
    usages = options.get("key_usage", "default")
    if usages == "default":
        usages = ("key_cert_sign", "crl_sign") if ca else ("digital_signature", "key_encipherment")
    if usages is not None:
        yield _extension(_key_usage(usages), critical=True)
    purposes = options.get("extended_key_usage", None if ca else ["serverAuth"])
    if purposes:
        oids = [_PURPOSES[each] if isinstance(each, str) else each for each in purposes]
        yield _extension(x509.ExtendedKeyUsage(oids))
    hosts = options.get("hosts", () if ca else _LOCAL_HOSTS)
    if hosts:
        yield _extension(x509.SubjectAlternativeName(_host(each) for each in hosts))
    permitted, excluded = options.get("permitted", ()), options.get("excluded", ())
    if permitted or excluded:
        yield _extension(_name_constraints(permitted, excluded), critical=True)
    access = [*_access(options)]
    if access:
        yield _extension(x509.AuthorityInformationAccess(access))
    yield from _key_identifiers(options, public_key, issuer)
    yield from options.get("extra", ())


def _extension(
    value: x509.ExtensionType, *, critical: bool = False
) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _key_usage(names: Iterable[str]) -> x509.KeyUsage:
    chosen = set(names)
    unknown = chosen.difference(_KEY_USAGES)
    if unknown:
        raise ValueError(f"no such key usage: {', '.join(sorted(unknown))}")
    return x509.KeyUsage(**{name: name in chosen for name in _KEY_USAGES})


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _subtree(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(text))
    except ValueError:
        return x509.DNSName(text)


def _name_constraints(permitted: Sequence[str], excluded: Sequence[str]) -> x509.NameConstraints:
    return x509.NameConstraints(
        [_subtree(each) for each in permitted] or None,
        [_subtree(each) for each in excluded] or None,
    )


def _access(options: "Options") -> Iterator[x509.AccessDescription]:
    for url in options.get("ocsp", ()):
        location = x509.UniformResourceIdentifier(url)
        yield x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
    for each in options.get("aia", ()):
        name = x509.UniformResourceIdentifier(each) if isinstance(each, str) else each
        yield x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, name)


def _key_identifiers(
    options: "Options",
    public_key: CertificateIssuerPublicKeyTypes,
    issuer: "Issued | None",
) -> Iterator[x509.Extension[x509.ExtensionType]]:
    own = options.get("subject_key_identifier", True)
    if own is True:
        yield _extension(x509.SubjectKeyIdentifier.from_public_key(public_key))
    elif own is not False:
        yield _extension(x509.SubjectKeyIdentifier(own))
    issuers = options.get("authority_key_identifier", True)
    if issuers is True:
        yield _extension(_identifier_of(issuer, public_key))
    elif issuers is not False:
        yield _extension(x509.AuthorityKeyIdentifier(issuers, None, None))


def _identifier_of(
    issuer: "Issued | None", public_key: CertificateIssuerPublicKeyTypes
) -> x509.AuthorityKeyIdentifier:
    """The issuer's own identifier where it has one: RFC 5280 4.2.1.1 wants them equal."""
    if issuer is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    try:
        extensions = issuer.certificate.extensions
        identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
