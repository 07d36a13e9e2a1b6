"""Our verdicts on small random PKIs against those of two others: a brute-force search in
which every path is put to a real handshake, and `cryptography.x509.verification`.

A few hundred PKIs, always the same; HYPOTHESIS_PROFILE=many draws thousands of new ones. A
disagreement is printed as Python that rebuilds the smallest PKI with it.
"""

import asyncio
import ipaddress
import os

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import HealthCheck, Phase, event, given, settings
from OpenSSL import SSL, crypto

from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.errors import curable
from mitmproxy_aia.openssl import error_text
from tests.differential import brute_force
from tests.differential.pki import CA_FAULTS, CA_LIMITS, LEAF_FAULTS, Built, Edge, Entity, Pki
from tests.differential.strategies import pkis
from tests.lab import Issued, authority
from tests.test_completion import Shelf, certificates
from tests.test_verification import verifier_for

settings.register_profile(
    "ci",
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("many", settings.get_profile("ci"), max_examples=5_000, derandomize=False)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def complete(built: Built) -> Outcome:
    """Our verdict, with some of the certificates presented, known or to be waited for."""
    shelf = Shelf(known=built.known, fetched=built.fetched)

    async def main() -> Outcome:
        presented = certificates(built.leaf, *built.presented)
        completion = Completion(presented, verifier_for(*built.trusted), [shelf])
        outcome = completion.complete_at_once()
        return outcome if outcome.verified else await completion.complete()

    return asyncio.run(main())


def final_errors(built: Built) -> list[str]:
    """The errors of the handshake that keep us from even beginning a completion."""
    errors: list[str] = []

    def callback(
        _connection: SSL.Connection, _certificate: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        if not ok and not curable(code, depth):
            errors.append(f"{error_text(code)} at depth {depth}")
        return True

    brute_force.accepts(built.trusted, [built.leaf, *built.presented], callback)
    return errors


@pytest.mark.no_cover  # It would take half as long again.
@PROFILE
@given(pkis())
def test_brute_force(pki: Pki) -> None:
    """We accept where there is a valid path and nowhere else; where stock does, too."""
    built = pki.build()
    outcome = complete(built)
    valid = brute_force.valid_path(pki, built)
    stock = brute_force.accepts(built.trusted, [built.leaf, *built.presented])
    event(f"valid path: {valid is not None}, accepted by stock: {stock}")

    if outcome.verified:
        assert outcome.path[-1] in certificates(*built.trusted)
        ours = [Issued(certificate.x509, built.leaf.key) for certificate in outcome.path]
        assert brute_force.is_valid(ours), "OpenSSL refuses the path that we accept"
    if valid:
        assert outcome.verified, f"we miss {valid}: {outcome.reason}"
        assert final_errors(built) == [], f"there is a path, {valid}, and we do not look for it"
    assert outcome.verified or not stock, f"stock accepts, and we do not: {outcome.reason}"


@pytest.mark.no_cover  # It would take half as long again.
@PROFILE
@given(pkis(well_formed=True))
def test_cryptography(pki: Pki) -> None:
    """Within its profile we accept exactly what `cryptography` accepts."""
    built = pki.build()
    outcome = complete(built)
    theirs = verdict_of_cryptography(built)
    event(f"accepted: {outcome.verified}, cryptography: {theirs.partition(' (')[0] or 'accepted'}")
    assert outcome.verified == (not theirs), f"ours: {outcome.reason!r}, theirs: {theirs!r}"


def verdict_of_cryptography(built: Built) -> str:
    """Why not; empty if the server is accepted. It is given every certificate there is."""
    # Others than OpenSSL take whatever is in the trust store for an anchor.
    anchors = [issued.certificate for issued in built.trusted]
    store = Store([anchor for anchor in anchors if anchor.subject == anchor.issuer])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    verifier = PolicyBuilder().store(store).build_server_verifier(address)
    try:
        verifier.verify(built.leaf.certificate, [edge.certificate for edge in built.edges])
    except VerificationError as error:
        return str(error)
    return ""


def line(*, ca_fault: str | None = None, leaf_fault: str | None = None) -> Pki:
    """root -> upper -> lower -> leaf, of which only upper and the leaf may have a fault."""
    root, upper, lower = entities = tuple(
        Entity(number, name) for number, name in enumerate(["Root", "Upper", "Lower"])
    )
    edges = Edge(root, root), Edge(upper, root, ca_fault), Edge(lower, upper)
    leaf = Edge(None, lower, leaf_fault)
    return Pki(entities, leaf, edges, trusted=(0,), presented=(2,), known=(1,))


@pytest.mark.parametrize("fault", CA_FAULTS)
def test_faults_of_authorities_are_faults(fault: str) -> None:
    """What hypothesis plays with: each fault alone makes the brute-force search fail."""
    good, bad = line(), line(ca_fault=fault)
    path = brute_force.valid_path(good, good.build())
    assert path is not None
    assert [issued.name for issued in path] == ["Leaf", "Lower", "Upper", "Root"]
    assert brute_force.valid_path(bad, bad.build()) is None


@pytest.mark.parametrize("limit", CA_LIMITS)
def test_limits_of_authorities_are_no_faults(limit: str) -> None:
    """Alone they harm no path as short as this."""
    pki = line(ca_fault=limit)
    assert brute_force.valid_path(pki, pki.build()) is not None


@pytest.mark.parametrize("fault", LEAF_FAULTS)
def test_faults_of_leaves_are_faults(fault: str) -> None:
    """The same for the leaf."""
    pki = line(leaf_fault=fault)
    assert brute_force.valid_path(pki, pki.build()) is None


def test_representation() -> None:
    """What is printed of a PKI is Python that makes it again."""
    pki = line(ca_fault="wrong key", leaf_fault="RSA 1024")
    rebuilt: dict[str, list[Issued]] = {}
    exec(repr(pki), rebuilt)  # noqa: S102
    built = pki.build()
    for name in "trusted", "presented", "known", "fetched":
        assert list(map(repr, rebuilt[name])) == list(map(repr, getattr(built, name)))
    assert str(pki).splitlines()[-7:] == [
        "c1 = e0.issue('Upper', key=e1, ca=True, signed_by=stranger)",
        "c2 = e1.issue('Lower', key=e2, ca=True)",
        "leaf = e2.issue('Leaf', key='rsa1024')",
        "trusted = [c0]",
        "presented = [c2]",
        "known = [c1]",
        "fetched = []",
    ]


def test_trusted_roots_of_one_name() -> None:
    """A limit, and why no PKI above has such roots: of two with the same name OpenSSL takes
    the first, unless a key identifier or a date rules it out. Stock mitmproxy fails as well."""
    trusted = authority("Root"), authority("Root")
    verdicts = set()
    for root in trusted:
        leaf = root.issue(authority_key_identifier=False)
        ours = complete(Built(leaf, trusted, trusted))
        assert ours.verified == brute_force.accepts(trusted, [leaf])
        verdicts.add(ours.verified)
    assert verdicts == {True, False}
