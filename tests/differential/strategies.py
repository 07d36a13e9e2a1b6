"""How hypothesis draws PKIs: small, mostly connected, with faults here and there."""

import dataclasses

from hypothesis import strategies as st

from tests.differential.pki import CA_FAULTS, CA_LIMITS, LEAF_FAULTS, Edge, Entity, Pki

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
# - Meshes: cryptography follows every way through them, which may take minutes.
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
    """2 to 6 entities, and sometimes a mesh of others. With `well_formed` only what
    `cryptography` judges as OpenSSL does."""
    ca_faults = faults(WELL_FORMED_FAULTS if well_formed else tuple(CA_FAULTS), 3)
    limits = faults(tuple(CA_LIMITS), 3)
    leaf_faults = faults(WELL_FORMED_LEAF_FAULTS if well_formed else tuple(LEAF_FAULTS), 10)
    anchors = draw(st.integers(1, 2))
    entities = draw(_entities(anchors))
    identifiers = st.just(True) if well_formed else one_in(4).map(lambda missing: not missing)

    edges: list[Edge] = []

    def edge(subject: Entity, issuer: Entity) -> None:
        if well_formed and subject.name == issuer.name and subject != issuer:
            return
        fault = draw(ca_faults) or draw(limits)
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
    if not well_formed and draw(one_in(8)):
        mesh, leaf = draw(_mesh(entities, leaf))
        edges += mesh
        places += [draw(somewhere)] * len(mesh)
    presented = [number for number, place in enumerate(places) if place & PRESENTED]
    if draw(one_in(4)):
        presented += presented[:1]
    order = draw(st.permutations(presented))
    trusted = [*range(anchors)]
    if draw(one_in(3)):
        trusted += draw(_trusted_intermediate(edges, trusted))
    return Pki(
        tuple(entities),
        leaf,
        tuple(edges),
        trusted=tuple(trusted),
        presented=tuple(order),
        known=tuple(number for number, place in enumerate(places) if place & KNOWN),
        fetched=tuple(number for number, place in enumerate(places) if place & FETCHED),
    )


@st.composite
def _mesh(draw: st.DrawFn, entities: list[Entity], leaf: Edge) -> tuple[list[Edge], Edge]:
    """Strangers, added to `entities`, who have all certified each other, once or twice: there
    are hundreds of ways through them, and no trust anchor is above them.

    Either they have certified the issuer of the leaf as well, so that its other certificates
    have twins which lead nowhere. Or one of them issues the leaf, and that issuer certifies
    another, with a twin of its certificate that is of no use. Returns the new certificates
    and the leaf.
    """
    first, below = len(entities), leaf.issuer
    strangers = [Entity(n, f"CA {n}") for n in range(first, first + draw(st.integers(3, 5)))]
    entities += strangers
    edges = [
        Edge(subject, issuer, copy=copy)
        for copy in range(draw(st.integers(1, 2)))
        for subject in strangers
        for issuer in strangers
        if subject != issuer
    ]
    if draw(st.booleans()):
        edges += [Edge(below, stranger) for stranger in strangers]
        return edges, leaf
    edges += [Edge(strangers[-1], below, "expired"), Edge(strangers[-1], below)]
    return edges, dataclasses.replace(leaf, issuer=strangers[0])


# As an anchor OpenSSL takes it only with X509_V_FLAG_PARTIAL_CHAIN, which mitmproxy does not
# set: all that it is good for is being in the way, or being the same as one from elsewhere.
def _trusted_intermediate(edges: list[Edge], anchors: list[int]) -> st.SearchStrategy[list[int]]:
    """One more certificate for the trust store, if there is a suitable one."""
    names = {edges[number].name for number in anchors}
    suitable = [number for number, edge in enumerate(edges) if edge.name not in names]
    return st.sampled_from(suitable).map(lambda number: [number]) if suitable else st.just([])


# Trusted certificates have different names: see test_trusted_roots_of_one_name.
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
