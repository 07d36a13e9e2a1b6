"""Certificates for every fault a chain can have, made at run time.

    root = authority("Lab Root")
    intermediate = root.issue("Lab Intermediate", ca=True, aia=[root_url])
    leaf = intermediate.issue("server", aia=[intermediate_url])

The defaults are a chain that every verifier accepts; each option introduces one deviation.
trustme is the model. It makes neither AIA extensions nor certificates with faults.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.lab import extensions, keys


class Options(TypedDict, total=False):
    """What `authority` and `Issued.issue` may be told. Nothing is required."""

    key: "keys.KeyKind | keys.PrivateKey | Issued"
    """A kind to generate ("ec256"), or a key to reuse: cross-signing is the same name and
    the same key under another issuer."""
    digest: keys.Digest
    """The signature's digest: "sha256"."""
    signed_by: "keys.PrivateKey | Issued"
    """Sign with this key while naming the issuer all the same."""
    issuer_name: x509.Name
    """Put this into the issuer field, where the issuer's subject would have stood."""
    serial: int

    valid: tuple[datetime.datetime, datetime.datetime]
    """Not before, not after: since yesterday, for 90 days (an authority: ten years)."""
    expired: bool
    not_yet_valid: bool

    ca: bool
    path_length: int | None
    basic_constraints: bool
    """False leaves the extension out."""
    hosts: Sequence[str]
    """DNS names and IP addresses of the SAN. A leaf has 127.0.0.1 and localhost."""
    aia: Sequence[str | x509.GeneralName]
    """caIssuers URLs, in this order."""
    ocsp: Sequence[str]
    """OCSP responder URLs, which stand in the same extension."""
    key_usage: Literal["default"] | Sequence[str] | None
    """Names as in `x509.KeyUsage`, for example ["crl_sign"]; None leaves it out."""
    extended_key_usage: Sequence[str | x509.ObjectIdentifier] | None
    """For example ["clientAuth"]. A leaf has serverAuth; None leaves it out."""
    permitted: Sequence[str]
    """Name constraints: DNS names and networks."""
    excluded: Sequence[str]
    subject_key_identifier: bool | bytes
    """False leaves it out, bytes put a false one in."""
    authority_key_identifier: bool | bytes
    extra: Sequence[x509.Extension[x509.ExtensionType]]
    """More extensions, for example an unknown critical one."""


@dataclass(frozen=True)
class Issued:
    """A certificate together with its private key."""

    certificate: x509.Certificate
    key: keys.PrivateKey

    def issue(self, subject: str | x509.Name = "Lab Leaf", **options: Unpack[Options]) -> "Issued":
        """A certificate for `subject`, issued by this one whether or not it may issue."""
        return _make(subject, self, options)

    @property
    def name(self) -> str:
        """The subject's common name."""
        value = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return value if isinstance(value, str) else value.decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return keys.pem(self.key)

    def __repr__(self) -> str:
        issuer = self.certificate.issuer.rfc4514_string()
        return f"<{self.certificate.subject.rfc4514_string()} issued by {issuer}>"


def authority(subject: str | x509.Name = "Lab Root", **options: Unpack[Options]) -> Issued:
    """A self-signed CA certificate: a trust anchor for whoever trusts it."""
    years = (_now() - datetime.timedelta(days=365), _now() + datetime.timedelta(days=3650))
    defaults: Options = {"ca": True, "valid": years}
    return _make(subject, None, defaults | options)


def common_name(text: str, kind: Literal["utf8", "printable"] = "utf8") -> x509.Name:
    """A name of one CN in a chosen string type: equal text, different bytes."""
    # cryptography has no public way to choose the string type of an attribute.
    type_ = x509.name._ASN1Type
    chosen = type_.UTF8String if kind == "utf8" else type_.PrintableString
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, chosen)])


def _make(subject: str | x509.Name, issuer: Issued | None, options: Options) -> Issued:
    chosen = options.get("key", "ec256")
    key = keys.generate(chosen) if isinstance(chosen, str) else _key_of(chosen)
    name = subject if isinstance(subject, x509.Name) else common_name(subject)
    issuer_name = options.get("issuer_name", issuer.certificate.subject if issuer else name)
    signer = options.get("signed_by", issuer or key)
    not_before, not_after = _validity(options)
    builder = x509.CertificateBuilder(
        issuer_name=issuer_name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=options.get("serial", x509.random_serial_number()),
        not_valid_before=not_before,
        not_valid_after=not_after,
    )
    for extension in extensions.build(options, key.public_key(), issuer):
        builder = builder.add_extension(extension.value, extension.critical)
    digest = options.get("digest", "sha256")
    return Issued(keys.sign(builder, _key_of(signer), digest), key)


def _key_of(source: keys.PrivateKey | Issued) -> keys.PrivateKey:
    return source.key if isinstance(source, Issued) else source


def _validity(options: Options) -> tuple[datetime.datetime, datetime.datetime]:
    now, day = _now(), datetime.timedelta(days=1)
    if options.get("expired"):
        return now - 90 * day, now - day
    if options.get("not_yet_valid"):
        return now + day, now + 90 * day
    return options.get("valid", (now - day, now + 90 * day))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
