"""How hypothesis draws PKIs: small, mostly connected, with faults here and there."""

from hypothesis import strategies as st

from tests.differential.pki import CA_FAULTS, LEAF_FAULTS, Edge, Entity, Pki

PRESENTED, KNOWN, FETCHED = 1, 2, 4

# `cryptography.x509.verification` has the profile of the Web PKI and of the CA/Browser Forum,
# OpenSSL takes what is in use. Where they differ, found by trying:
#
# - "no basic constraints": OpenSSL takes a trust anchor that has a key usage instead.
# - "false identifier": to OpenSSL an authority key identifier that differs from the subject key
#   identifier of an issuer rules it out (X509_check_issued). cryptography does not compare them.
# - A leaf's RSA 1024 key: cryptography looks at the keys of authorities only.
# - No key identifiers: cryptography requires a leaf to name its issuer's key. In OpenSSL only
#   they tell two authorities of one name apart: without, it takes the trusted one, even if it
#   is given the right path (as in leaf <- CA 0 <- CA 1 <- CA 0 with another key).
# - Self-issued certificates, whose issuer has the same name and another key: they do not count
#   for a path length in RFC 5280 (4.2.1.9) and in OpenSSL. cryptography counts them.
_OUTSIDE_THE_PROFILE = {"no basic constraints", "false identifier"}
WELL_FORMED_FAULTS = tuple(fault for fault in CA_FAULTS if fault not in _OUTSIDE_THE_PROFILE)
WELL_FORMED_LEAF_FAULTS = tuple(fault for fault in LEAF_FAULTS if fault != "RSA 1024")


def one_in(number: int) -> st.SearchStrategy[bool]:
    """True in one of `number` draws."""
    return st.sampled_from([*[False] * (number - 1), True])


def faults(names: tuple[str, ...], number: int) -> st.SearchStrategy[str | None]:
    """One of `names` in one of `number` draws, else None."""
    nothing = [None] * (number - 1) * len(names)
    return st.sampled_from([*nothing, *names])


@st.composite
def pkis(draw: st.DrawFn, *, well_formed: bool = False) -> Pki:
    """2 to 6 entities. With `well_formed` only what `cryptography` judges as OpenSSL does."""
    ca_faults = faults(WELL_FORMED_FAULTS if well_formed else tuple(CA_FAULTS), 3)
    leaf_faults = faults(WELL_FORMED_LEAF_FAULTS if well_formed else tuple(LEAF_FAULTS), 10)
    anchors = draw(st.integers(1, 2))
    entities = draw(_entities(anchors))
    identifiers = st.just(True) if well_formed else one_in(4).map(lambda missing: not missing)

    edges: list[Edge] = []

    def edge(subject: Entity, issuer: Entity) -> None:
        if well_formed and subject.name == issuer.name and subject != issuer:
            return
        fault = draw(ca_faults)
        edges.append(Edge(subject, issuer, fault, draw(identifiers), len(edges)))
        if fault and subject != issuer and draw(st.booleans()):
            edges.append(Edge(subject, issuer, None, draw(identifiers), len(edges)))

    for entity in entities[:anchors]:
        edge(entity, entity)
    # So that there is a way up from most of them; the rest is chance.
    for number in range(anchors, len(entities)):
        below = [number - 1] * 2 + [*range(number)]
        edge(entities[number], entities[draw(st.sampled_from(below))])
    for _ in range(draw(st.integers(0, 5))):
        edge(draw(st.sampled_from(entities)), draw(st.sampled_from(entities)))
    # The leaf under a root would need no path to be built.
    leaf_issuer = draw(st.sampled_from([*reversed(entities[1:]), entities[-1], entities[0]]))
    leaf = Edge(None, leaf_issuer, draw(leaf_faults), draw(identifiers))

    # Bit by bit: presented, known, to be fetched. A trusted root may also be nowhere else.
    somewhere = st.sampled_from((PRESENTED, KNOWN, FETCHED, KNOWN, FETCHED, *range(1, 8)))
    anywhere = st.one_of(st.just(0), somewhere)
    places = [draw(anywhere if n < anchors else somewhere) for n in range(len(edges))]
    presented = [number for number, place in enumerate(places) if place & PRESENTED]
    if draw(one_in(4)):
        presented += presented[:1]
    order = draw(st.permutations(presented))
    return Pki(
        tuple(entities),
        leaf,
        tuple(edges),
        trusted=tuple(range(anchors)),
        presented=tuple(order),
        known=tuple(number for number, place in enumerate(places) if place & KNOWN),
        fetched=tuple(number for number, place in enumerate(places) if place & FETCHED),
    )


# Trusted roots have different names: see test_trusted_roots_of_one_name.
@st.composite
def _entities(draw: st.DrawFn, anchors: int) -> list[Entity]:
    entities: list[Entity] = []
    for number in range(draw(st.integers(2, 6))):
        name = f"CA {number}"
        if number >= anchors and draw(one_in(4)):
            name = draw(st.sampled_from(entities)).name
        weak = draw(one_in(16))
        entities.append(Entity(number, name, "rsa1024" if weak else "ec256"))
    return entities
