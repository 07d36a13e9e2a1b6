"""The algorithm of a completion, with real certificates and verdicts and sources of its own."""

import asyncio
import datetime
import itertools
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import pytest
from cryptography import x509
from OpenSSL import crypto

from mitmproxy_aia import errors
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import MAX_PATH_LENGTH, Path
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.verification import Verdict, Verifier
from tests.lab import Issued, Options, authority

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
OLD = NOW - datetime.timedelta(days=900), NOW + datetime.timedelta(days=90)
"""Valid, and less likely than what was issued since."""


class Shelf:
    """An issuer source with what a test puts on it.

    `known` is there at once; `fetched` has to be waited for, one attempt per certificate.
    """

    def __init__(self, *, known: Sequence[Issued] = (), fetched: Sequence[Issued] = ()) -> None:
        self.known = [Certificate(item.der) for item in known]
        self.fetched = [Certificate(item.der) for item in fetched]
        self.looked_up: list[Certificate] = []
        self.asked: list[Certificate] = []
        self.kept: list[Certificate] = []
        self.open = 0

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        self.looked_up.append(certificate)
        return [Found(item, "shelf") for item in self.known if item.subject == certificate.issuer]

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        self.asked.append(certificate)
        self.open += 1
        try:
            for item in self.fetched:
                if item.subject == certificate.issuer:
                    yield Attempt("shelf", "had it", (Found(item, "shelf"),))
            yield Attempt("shelf", "is empty")
        finally:
            self.open -= 1

    def keep(self, found: Sequence[Found]) -> None:
        self.kept += [item.certificate for item in found]


def verifier_for(*roots: Issued) -> Verifier:
    store = crypto.X509Store()
    for root in roots:
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, root.der))
    return Verifier(store)


def certificates(*issued: Issued) -> tuple[Certificate, ...]:
    return tuple(Certificate(item.der) for item in issued)


def complete(
    presented: Sequence[Issued],
    root: Issued,
    *shelves: Shelf,
    limits: Limits | None = None,
    more_roots: Sequence[Issued] = (),
) -> Outcome:
    async def main() -> Outcome:
        verifier = verifier_for(root, *more_roots)
        completion = Completion(certificates(*presented), verifier, shelves, limits or Limits())
        outcome = completion.complete_at_once()
        return outcome if outcome.verified else await completion.complete()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


def line(root: Issued, length: int) -> list[Issued]:
    """root -> CA 0 -> CA 1 -> ... -> leaf, from the leaf upwards, without the root."""
    chain = [root]
    for number in range(length):
        chain.insert(0, chain[0].issue(f"CA {number}", ca=True))
    return [chain[0].issue(), *chain[:-1]]


def test_known_issuer_needs_no_waiting(root: Issued) -> None:
    """What a source knows at once is enough for complete_at_once()."""
    leaf, ca = line(root, 1)
    shelf = Shelf(known=[ca])
    outcome = complete([leaf], root, shelf)
    assert outcome.path == certificates(leaf, ca, root)
    assert [found.origin for found in outcome.found] == ["shelf"]
    assert shelf.asked == []
    assert shelf.kept == list(certificates(ca))


def test_nothing_is_looked_up_twice(root: Issued) -> None:
    """Not either if the likeliest path, which is judged before any search, is not good."""
    ca = root.issue("CA", ca=True)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    later = (now, now + datetime.timedelta(days=10))
    likelier = root.issue("CA", ca=True, key=ca, valid=later, path_length=0, signed_by=ca)
    leaf = ca.issue()
    empty, shelf = Shelf(), Shelf(known=[ca, likelier])
    outcome = complete([leaf], root, empty, shelf)
    assert outcome.path == certificates(leaf, ca, root)
    assert empty.looked_up == shelf.looked_up == list(certificates(leaf))


def test_what_was_learned_in_between(root: Issued) -> None:
    """By another completion, while this one waited for its turn to wait."""
    leaf, ca = line(root, 1)

    async def main() -> Outcome:
        shelf, disk = Shelf(), Shelf()
        completion = Completion(certificates(leaf), verifier_for(root), [shelf, disk])
        assert not completion.complete_at_once().verified
        shelf.known = [*certificates(ca)]
        outcome = await completion.complete()
        assert shelf.asked == []
        # What was learned is in the first, so that the others need not be asked again.
        assert len(disk.looked_up) == 1
        return outcome

    outcome = asyncio.run(main())
    assert outcome.path == certificates(leaf, ca, root)
    assert [found.origin for found in outcome.found] == ["shelf"]


def test_known_issuers_of_all_sources_come_before_waiting(root: Issued) -> None:
    """The second source's memory is asked before the first one is waited for."""
    leaf, lower, upper = line(root, 2)
    first, second = Shelf(known=[lower], fetched=[upper]), Shelf(known=[upper])
    assert complete([leaf], root, first, second).verified
    assert first.asked == []


def test_fetched_one_after_the_other(root: Issued) -> None:
    """Each fetched certificate is asked for its issuer in turn."""
    leaf, *cas = line(root, 3)
    shelf = Shelf(fetched=cas)
    outcome = complete([leaf], root, shelf)
    assert outcome.path == certificates(leaf, *cas, root)
    assert shelf.asked == list(certificates(leaf, *cas[:-1]))
    assert [str(attempt) for attempt in outcome.attempts] == ["shelf had it"] * 3


def test_top_of_the_presented_chain_is_asked_first(root: Issued) -> None:
    """root -> [upper] -> lower -> leaf: not the leaf but the presented lower is asked."""
    leaf, lower, upper = line(root, 2)
    shelf = Shelf(fetched=[upper, lower])
    assert complete([leaf, lower], root, shelf).verified
    assert shelf.asked == list(certificates(lower))


def test_goes_back_to_the_leaf(root: Issued) -> None:
    """A presented intermediate that leads nowhere does not keep the leaf from being asked."""
    leaf, ca = line(root, 1)
    dead_end = authority("Gone").issue(ca.name, key=ca, ca=True)
    shelf = Shelf(fetched=[ca])
    assert complete([leaf, dead_end], root, shelf).verified
    assert shelf.asked == list(certificates(dead_end, leaf))


def test_presented_certificates_are_not_reported_as_found(root: Issued) -> None:
    """`found` is what the server did not send; only that is kept."""
    leaf, lower, upper = line(root, 2)
    shelf = Shelf(known=[lower, upper])
    outcome = complete([leaf, lower], root, shelf)
    assert [found.certificate for found in outcome.found] == list(certificates(upper))
    assert shelf.kept == list(certificates(upper))


def test_nothing_is_kept_of_a_refused_chain(root: Issued) -> None:
    """Not what was presented, not what was known and not what was fetched."""
    leaf, lower, upper = line(authority("Stranger"), 2)
    shelf = Shelf(fetched=[lower, upper])
    outcome = complete([leaf, lower], root, shelf)
    assert not outcome.verified
    assert outcome.path == ()
    assert shelf.kept == []


def test_only_the_verified_path_is_kept(root: Issued) -> None:
    """What came along in the same download, and is not on the path, is not kept."""
    leaf, ca = line(root, 1)
    twin = root.issue(ca.name, ca=True)
    shelf = Shelf(known=[twin, ca, *line(root, 2)])
    assert complete([leaf], root, shelf).verified
    assert shelf.kept == list(certificates(ca))


def test_reason(root: Issued) -> None:
    """OpenSSL's text first, then in brackets what was tried."""
    leaf, _ = line(root, 1)
    reason = complete([leaf], root, Shelf()).reason
    assert reason == "unable to get local issuer certificate (AIA: shelf is empty)"
    assert complete([leaf], root).reason == "unable to get local issuer certificate"
    assert Outcome().reason == ""


def test_reason_of_the_path_that_got_furthest(root: Issued) -> None:
    """An expired intermediate tells more than a missing one."""
    ca = root.issue("CA", ca=True, expired=True)
    outcome = complete([ca.issue(), root], root, Shelf(fetched=[ca]))
    assert outcome.fault is not None
    assert (outcome.fault.text, outcome.fault.depth) == ("certificate has expired", 1)


def test_reason_of_the_path_that_reached_an_anchor(root: Issued) -> None:
    """Rather than that of a longer one which leads nowhere."""
    constrained = root.issue("CA", ca=True, excluded=["127.0.0.0/8"])
    stranger = authority("Stranger")
    dead = stranger.issue("CA", key=constrained, ca=True)
    outcome = complete([constrained.issue(), constrained, dead, stranger], root)
    assert outcome.fault == Fault.of(errors.EXCLUDED_VIOLATION, 0)


def test_a_namesake_is_no_step(root: Issued) -> None:
    """That the signature is not that of a certificate of the right name tells nobody anything,
    even if that one is below a trust anchor."""
    leaf = authority("Missing").issue(authority_key_identifier=False)
    namesake = root.issue("Missing", ca=True)
    assert complete([leaf, namesake], root).reason == "unable to get local issuer certificate"


@pytest.mark.parametrize("fault", ["expired", "no CA"])
def test_a_faulty_namesake_is_no_step_either(root: Issued, fault: str) -> None:
    """OpenSSL tells what is wrong with it before it looks at the signature below."""
    ca = authority("Unknown").issue("CA", ca=True, subject_key_identifier=False)
    namesake = root.issue("CA", ca=fault == "expired", expired=fault == "expired")
    leaf = ca.issue()
    outcome = complete([leaf, ca, namesake], root)
    assert outcome.fault == Fault.of(errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 1)


def test_the_likeliest_candidate_is_looked_at_first(root: Issued) -> None:
    """In the climb and among paths of one length; with one candidate left it decides."""
    ca = root.issue("CA", ca=True)
    twins = [root.issue("CA", ca=True, key=ca, valid=OLD) for _ in range(3)]
    outcome = complete([ca.issue(), *twins, ca], root, limits=Limits(candidates=1, paths=1))
    assert outcome.path[1] == certificates(ca)[0]


CONSTRAINED: Options = {"ca": True, "excluded": ["127.0.0.0/8"]}


def test_cross_certificate_of_a_constrained_root() -> None:
    """Its path has no fault of its own: whoever is on top is asked for another issuer."""
    constrained, other = authority("R1", **CONSTRAINED), authority("R2")
    cross = other.issue("R1", key=constrained, ca=True)
    ca = constrained.issue("CA", ca=True)
    shelf = Shelf(fetched=[cross])
    leaf = ca.issue()
    outcome = complete([leaf, ca], constrained, shelf, more_roots=[other])
    assert outcome.path == certificates(leaf, ca, cross, other)


def test_who_is_not_asked(root: Issued) -> None:
    """Not a self-signed certificate, above which there is nothing, and not one to which every
    path has a fault of its own. The leaf is, for another issuer."""
    stranger = authority("Stranger")
    leaf = stranger.issue()
    shelf = Shelf()
    complete([leaf, stranger], root, shelf)
    assert shelf.asked == list(certificates(leaf))
    constrained = root.issue("Constrained", **CONSTRAINED)
    lower = constrained.issue("CA", ca=True)
    leaf = lower.issue()
    shelf = Shelf()
    complete([leaf, lower, constrained], root, shelf)
    assert shelf.asked == list(certificates(lower, leaf))


def test_reasons_of_paths_that_reach_an_anchor(root: Issued) -> None:
    """The longest; that of a leaf alone; and what is wrong with the trust store above."""
    outcome = complete([root.issue(extended_key_usage=["clientAuth"])], root)
    assert outcome.fault == Fault.of(errors.INVALID_PURPOSE, 0)
    expired = authority("Expired", expired=True)
    ca = expired.issue("CA", ca=True)
    stranger = authority("Stranger")
    dead = stranger.issue("CA", ca=True, key=ca)
    outcome = complete([ca.issue(), ca, dead, stranger], expired)
    assert outcome.fault == Fault.of(errors.CERT_HAS_EXPIRED, 2)


def test_reason_of_the_longest_path_to_an_anchor(root: Issued) -> None:
    """With a constraint far up, on a way that was not the first to be reached."""
    constrained = root.issue("Constrained", **CONSTRAINED)
    short = constrained.issue("CA", ca=True)
    long = [constrained.issue("Upper", ca=True)]
    long.insert(0, long[0].issue("CA", ca=True, key=short, path_length=0, valid=OLD))
    outcome = complete([short.issue(), short, *long, constrained], root)
    assert outcome.fault is not None
    assert outcome.fault.code == errors.EXCLUDED_VIOLATION


def test_reason_of_an_unusable_issuer_below_an_anchor(root: Issued) -> None:
    """It comes before a longer way that leads nowhere."""
    expired = root.issue("CA", ca=True, expired=True)
    stranger = authority("Stranger")
    upper = stranger.issue("Upper", ca=True)
    dead = upper.issue("CA", ca=True, key=expired)
    outcome = complete([expired.issue(), expired, dead, upper, stranger], root)
    assert outcome.fault == Fault.of(errors.CERT_HAS_EXPIRED, 1)


def test_depth_of_an_unusable_issuer(root: Issued) -> None:
    """It is counted from the leaf."""
    upper = authority("Stranger").issue("Upper", ca=True, expired=True)
    lower = upper.issue("Lower", ca=True)
    outcome = complete([lower.issue(), lower, upper], root)
    assert outcome.fault == Fault.of(errors.CERT_HAS_EXPIRED, 2)


def test_who_was_asked_is_heard_out(root: Issued) -> None:
    """All URLs of the certificate on top come before those of the leaf, and the leaf before
    other strangers."""

    class Talkative(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            for number in range(2):
                self.asked.append(certificate)
                yield Attempt(f"shelf {number}", "is empty")

    intermediate, (dead, *mesh) = stranger_mesh(2)
    leaf = intermediate.issue()
    shelf = Talkative()
    complete([leaf, dead, *mesh], root, shelf)
    (end,) = certificates(leaf)
    top = shelf.asked[0]
    assert top != end
    assert shelf.asked[:4] == [top, top, end, end]


def test_an_unusable_issuer_tells_more_than_a_missing_one(root: Issued) -> None:
    """At the same height; and an issuer that is missing further up tells more than both."""
    expired = authority("Stranger").issue("CA", ca=True, expired=True)
    leaf = expired.issue()
    outcome = complete([leaf, expired], root)
    assert outcome.fault == Fault.of(errors.CERT_HAS_EXPIRED, 1)
    good = authority("Other stranger").issue("CA", ca=True, key=expired)
    outcome = complete([leaf, expired, good], root)
    assert outcome.fault == Fault.of(errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 1)


def test_equal_attempts_are_told_once(root: Issued) -> None:
    """With their number."""

    class Empty(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            yield Attempt("CN=I", "names no caIssuers URL")

    intermediate, mesh = stranger_mesh(3)
    reason = complete([intermediate.issue(), *mesh], root, Empty()).reason
    assert reason.endswith("(AIA: CN=I names no caIssuers URL (8 times))")


def test_reason_is_bounded(root: Issued) -> None:
    """However much is tried, a server cannot flood a log with it."""

    class Talkative(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            budget.overdrawn = True
            for number in range(100):
                yield Attempt(f"shelf {number}", "is empty")

    leaf, _ = line(root, 1)
    reason = complete([leaf], root, Talkative()).reason
    assert "shelf 11 is empty; and 88 more; no more than 10 downloads are made" in reason
    assert "shelf 12" not in reason


def test_downloaded_anchor_is_not_kept(root: Issued) -> None:
    """The trust anchor is in the trust store; what AIA gave under its name is not remembered."""
    leaf, ca = line(root, 1)
    cross = authority("Other").issue(root.name, key=root, ca=True)
    shelf = Shelf(fetched=[ca, root, cross])
    outcome = complete([leaf], root, shelf)
    assert [found.certificate for found in outcome.found] == list(certificates(ca))
    assert shelf.kept == list(certificates(ca))
    known = Shelf(known=[ca, root])
    assert complete([leaf], root, known).verified
    assert known.kept == list(certificates(ca))


def test_nesting_is_limited(root: Issued) -> None:
    """A chain of downloads, each of which names the next."""
    leaf, *cas = line(root, 8)
    shelf = Shelf(fetched=cas)
    outcome = complete([leaf], root, shelf, limits=Limits(nesting=7))
    assert not outcome.verified
    assert outcome.reason.endswith("; nothing was asked beyond 7 downloads in a row)")
    assert len(shelf.asked) == 7
    assert complete([leaf], root, Shelf(fetched=cas), limits=Limits(nesting=8)).verified


def test_nesting_is_that_of_the_shortest_way() -> None:
    """A certificate that a detour of six downloads brings first is two downloads away, too.

    Found by tests/test_differential.py.
    """
    key = [authority(f"CA {number}") for number in range(9)]

    def crossed(issuer: int, subject: int) -> Issued:
        return key[issuer].issue(f"CA {subject}", key=key[subject], ca=True)

    presented = [key[6].issue(), crossed(0, 1)]
    steps = [(1, 2), (7, 6), (8, 6), (6, 7), (8, 7), (7, 8), (2, 8)]
    shelf = Shelf(fetched=[crossed(*step) for step in steps])
    assert complete(presented, key[0], shelf).verified


def test_candidates_are_limited(root: Issued) -> None:
    """A hundred certificates that have the right name are not looked at without end."""
    ca = root.issue("CA", ca=True, valid=OLD)
    twins = [root.issue(ca.name, ca=True) for _ in range(60)]
    leaf = ca.issue(authority_key_identifier=False)
    presented = [leaf, *twins, ca]
    outcome = complete(presented, root, Shelf(), limits=Limits(candidates=50))
    assert not outcome.verified
    assert "given up after 50 candidates, " in outcome.reason
    assert complete(presented, root, limits=Limits(candidates=61)).verified


def test_strangers_are_not_looked_at(root: Issued) -> None:
    """What no certificate asks for by name costs nothing of the budget."""
    leaf, ca = line(root, 1)
    strangers = [root.issue(f"Stranger {number}", ca=True) for number in range(60)]
    outcome = complete([leaf, *strangers, ca], root, limits=Limits(candidates=2, signatures=20))
    assert outcome.path == certificates(leaf, ca, root)


def test_what_is_not_presented_is_always_looked_at(root: Issued) -> None:
    """Whatever the server presents to use up the budget first."""
    leaf, ca = line(root, 1)
    leaf = ca.issue(authority_key_identifier=False)
    twins = [root.issue(ca.name, ca=True) for _ in range(60)]
    for limits in Limits(candidates=5), Limits(paths=5), Limits(signatures=5):
        for shelf in Shelf(fetched=[ca]), Shelf(known=[ca]):
            outcome = complete([leaf, *twins], root, shelf, limits=limits)
            assert outcome.path == certificates(leaf, ca, root)


def exploding(number: int) -> list[Issued]:
    """A leaf under many CAs of one name, each of which certifies all the others."""
    cas = [authority("Twin") for _ in range(number)]
    crossed = [
        issuer.issue("Twin", key=subject, ca=True, authority_key_identifier=False)
        for issuer in cas
        for subject in cas
        if issuer is not subject
    ]
    return [cas[0].issue(authority_key_identifier=False), *crossed]


@pytest.mark.parametrize("presented", ["first", "last", "not"])
def test_namesakes_do_not_hide_what_a_source_has(root: Issued, presented: str) -> None:
    """Three hundred likelier ones, and the good one among them or not: what a certificate has
    asked a source for is looked at, at every height."""
    upper = root.issue("Upper", ca=True, valid=OLD)
    ca = upper.issue("CA", ca=True, valid=OLD)
    leaf = ca.issue()
    namesakes = {
        issuer.name: [
            authority("Stranger").issue(
                issuer.name,
                ca=True,
                subject_key_identifier=x509.SubjectKeyIdentifier.from_public_key(
                    issuer.key.public_key()
                ).digest,
            )
            for _ in range(130)
        ]
        for issuer in (ca, upper)
    }
    junk = [*namesakes["CA"], *namesakes["Upper"]]
    sent = {"first": [ca, upper, *junk], "last": [*junk, ca, upper], "not": junk}[presented]
    expected = certificates(leaf, ca, upper, root)
    limits = Limits(candidates=100)
    for shelf in Shelf(known=[ca, upper]), Shelf(fetched=[ca, upper]):
        assert complete([leaf, *sent], root, shelf, limits=limits).path == expected


@pytest.mark.parametrize("number", [5, 12, 14])
def test_strangers_do_not_hide_what_is_above_what_a_source_has(root: Issued, number: int) -> None:
    """root -> Top -> U -> I -> leaf, with Top and U presented among strangers."""
    intermediate, mesh = stranger_mesh(number)
    top = root.issue("Top", ca=True)
    upper = top.issue("U", ca=True)
    good = upper.issue("I", key=intermediate, ca=True, valid=OLD)
    leaf = intermediate.issue()
    expected = certificates(leaf, good, upper, top, root)
    presented = [leaf, *mesh, upper, top]
    for shelf in Shelf(known=[good]), Shelf(fetched=[good]), Shelf(known=[good, upper, top]):
        assert complete(presented, root, shelf).path == expected


@pytest.mark.parametrize("length", [27, 28, 29, 30, 31, 32])
def test_a_detour_does_not_count(root: Issued, length: int) -> None:
    """A presented line of strangers up to Upper, at any height, and a short way that a source
    has: root -> Top -> Upper -> CA -> leaf."""
    top = root.issue("Top", ca=True)
    upper = top.issue("Upper", ca=True)
    detour = [upper.issue("D 0", ca=True)]
    for each in range(1, length - 2):
        detour.insert(0, detour[0].issue(f"D {each}", ca=True))
    dead = detour[0].issue("CA", ca=True, extended_key_usage=["clientAuth"])
    ca = upper.issue("CA", key=dead, ca=True, valid=OLD)
    leaf = ca.issue()
    for shelf in Shelf(known=[ca, top]), Shelf(fetched=[ca, top]):
        outcome = complete([leaf, dead, *detour, upper], root, shelf, limits=Limits(nesting=3))
        assert outcome.path == certificates(leaf, ca, upper, top, root)


def trusted_mesh(root: Issued, number: int) -> list[Issued]:
    """CAs that all certify each other and whose root is trusted. The leaf below is faulty."""
    cas = [authority(f"CA {each}", excluded=["127.0.0.0/8"]) for each in range(number)]
    crossed = [a.issue(b.name, key=b, ca=True) for a, b in itertools.permutations(cas, 2)]
    anchored = [root.issue(ca.name, key=ca, ca=True, excluded=["127.0.0.0/8"]) for ca in cas]
    return [cas[0].issue(), *crossed, *anchored]


def test_paths_are_limited(root: Issued) -> None:
    """A hundred paths that all lead to a trust anchor and are all refused."""
    outcome = complete(trusted_mesh(root, 5), root, limits=Limits(paths=40))
    assert not outcome.verified
    assert re.fullmatch(
        r"excluded subtree violation \(given up after \d+ candidates, 40 paths and .*\)",
        outcome.reason,
    )


def test_steps_are_limited(root: Issued) -> None:
    """The same, counted in steps on the way to these paths."""
    outcome = complete(trusted_mesh(root, 5), root, limits=Limits(steps=30))
    assert "given up after 30 steps" in outcome.reason


def test_signatures_are_limited(root: Issued) -> None:
    """A hundred cross-certificates among CAs of one name, counted in signature checks."""
    outcome = complete(exploding(10), root, limits=Limits(signatures=30))
    assert not outcome.verified
    assert "given up after 15 candidates, 0 paths and 31 signature checks" in outcome.reason
    leaf, ca = line(root, 1)
    assert complete([leaf, ca], root, limits=Limits(signatures=10)).verified


@pytest.mark.parametrize("certificates", [MAX_PATH_LENGTH, MAX_PATH_LENGTH + 1, 100])
def test_length_is_limited(root: Issued, certificates: int) -> None:
    """A line of a hundred certificates; the trust anchor does not count."""
    outcome = complete(line(root, certificates - 1), root)
    assert outcome.verified == (certificates == MAX_PATH_LENGTH)
    if not outcome.verified:
        assert "no path of more than 32 certificates was followed" in outcome.reason


def stranger_mesh(number: int) -> tuple[Issued, list[Issued]]:
    """An intermediate, and its twin below CAs that nobody trusts and that all certify each
    other: a thousand ways, all of good steps, that lead nowhere."""
    intermediate, stranger = authority("I"), authority("Stranger")
    mesh = [stranger.issue(f"M{each}", ca=True) for each in range(number)]
    crossed = [a.issue(b.name, key=b, ca=True) for a, b in itertools.permutations(mesh, 2)]
    return intermediate, [mesh[0].issue("I", key=intermediate, ca=True), *crossed]


@pytest.mark.parametrize("number", [5, 10])
def test_strangers_who_certify_each_other(root: Issued, number: int) -> None:
    """They do not hide a good path, be it presented, known or fetched."""
    intermediate, mesh = stranger_mesh(number)
    good = root.issue("I", key=intermediate, ca=True, valid=OLD)
    leaf = intermediate.issue()
    expected = certificates(leaf, good, root)
    assert complete([leaf, *mesh, good], root).path == expected
    assert complete([leaf, *mesh], root, Shelf(known=[good])).path == expected
    assert complete([leaf, *mesh], root, Shelf(fetched=[good])).path == expected
    outcome = complete([leaf, *mesh], root)
    assert outcome.reason == "unable to get local issuer certificate"


def test_a_download_is_kept_for_the_leaf(root: Issued) -> None:
    """Strangers with dead URLs cannot use up all downloads before the leaf is asked."""

    class Web(Shelf):
        """Ten dead URLs in each certificate, and a good one in the leaf."""

        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            for _ in range(10):
                if budget.downloads:
                    budget.downloads -= 1
                    self.asked.append(certificate)
                    found = (Found(Certificate(good.der), "web"),) if certificate == end else ()
                    yield Attempt("web", "answered", found)

    intermediate, mesh = stranger_mesh(2)
    good = root.issue("I", key=intermediate, ca=True, valid=OLD)
    leaf = intermediate.issue()
    (end,) = certificates(leaf)
    web = Web()
    assert complete([leaf, *mesh], root, web).path == certificates(leaf, good, root)
    assert web.asked.count(end) == 1
    assert len(web.asked) == 8


def longest_stretch(
    monkeypatch: pytest.MonkeyPatch, presented: Sequence[Issued], root: Issued, *shelves: Shelf
) -> float:
    """Milliseconds that the event loop was kept at most at a stretch by a completion, if a
    signature check took one millisecond, and parsing a certificate as well."""
    stretches: list[int] = []
    verifier = verifier_for(root)
    parsed: list[Certificate] = []

    def clock() -> int:
        return verifier.signatures + len(parsed)

    def parse() -> Iterator[Certificate]:
        for certificate in certificates(*presented):
            parsed.append(certificate)
            yield certificate

    class Loop(asyncio.SelectorEventLoop):
        """Its clock is read before and after it runs what is ready."""

        def _run_once(self) -> None:
            started = clock()
            super()._run_once()  # type: ignore[misc]
            stretches.append(clock() - started)

    async def main() -> None:
        completion = Completion(parse(), verifier, shelves)
        completion.complete_at_once()
        await asyncio.sleep(0)
        await completion.complete()

    monkeypatch.setattr(time, "thread_time", lambda: clock() / 1000)
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert clock() > 90
    return max(stretches)


def test_computing_is_limited(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each signature check took a tenth of a second, there would be some ten of them; and
    then nobody is asked any more."""
    verifier, shelf = verifier_for(root), Shelf(fetched=exploding(2))
    monkeypatch.setattr(time, "thread_time", lambda: verifier.signatures / 10)
    completion = Completion(certificates(*exploding(14)), verifier, [shelf])
    completion.complete_at_once()
    before = verifier.signatures
    outcome = asyncio.run(completion.complete())
    assert 10 <= verifier.signatures - before <= 12
    assert outcome.notes == ("given up after 1 s of computing",)
    assert shelf.asked == []
    assert outcome.fault is not None


@pytest.mark.parametrize("case", ["strangers", "twins", "trusted", "line", "duplicates"])
def test_the_event_loop_gets_its_turn(
    root: Issued, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ten milliseconds, whatever is presented. (Real ones are for scripts/bench.)"""
    intermediate, mesh = stranger_mesh(12)
    leaf = intermediate.issue()
    cases = {
        "strangers": [leaf, *mesh],
        "twins": exploding(14),
        "trusted": trusted_mesh(root, 8),
        "line": line(root, 99),
        "duplicates": [leaf] * 100,
    }
    shelf = Shelf(fetched=[item for item in mesh[:20] for _ in range(10)])
    # A slice, and what was begun before its end: the longest path takes 32 checks, twice.
    assert longest_stretch(monkeypatch, cases[case], root, shelf) <= 10 + 2 * MAX_PATH_LENGTH + 2


def test_presented_certificates_are_parsed_when_they_are_needed(root: Issued) -> None:
    """And the time this takes counts: a hundred certificates are not parsed in one go."""
    leaf, ca = line(root, 1)
    taken: list[Certificate] = []

    def presented() -> Iterator[Certificate]:
        for certificate in certificates(leaf, *[ca] * 50):
            taken.append(certificate)
            yield certificate

    completion = Completion(presented(), verifier_for(root), [], Limits(slice=0))
    assert len(taken) == 1
    completion.complete_at_once()
    assert len(taken) == 2
    assert asyncio.run(completion.complete()).verified
    assert len(taken) == 51


class Slow(Shelf):
    """A source that never comes back, whatever its budget says."""

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        self.open += 1
        try:
            yield Attempt("slow", "is thinking")
            await asyncio.Event().wait()
        finally:
            self.open -= 1


def test_deadline_for_a_source_that_has_none(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that hangs is given up, and what was learned before is told."""
    monkeypatch.setattr("mitmproxy_aia.completion.GRACE", 0.01)
    leaf, _ = line(root, 1)
    shelf = Slow()
    outcome = complete([leaf], root, shelf, limits=Limits(seconds=0.02))
    assert not outcome.verified
    assert outcome.reason.endswith(" (AIA: slow is thinking; given up after 0.02 s)")
    assert shelf.open == 0


@pytest.mark.parametrize("good", [True, False])
def test_sources_are_closed(root: Issued, good: bool) -> None:
    """No source is left with an open question, and not for the garbage collector to find."""
    leaf, ca = line(root, 1)
    shelf = Shelf(fetched=[ca] if good else [])

    async def main() -> None:
        completion = Completion(certificates(leaf), verifier_for(root), [shelf])
        outcome = await completion.complete()
        assert (outcome.verified, shelf.open) == (good, 0)

    asyncio.run(main())


def test_cancelled(root: Issued) -> None:
    """A cancelled completion has no verdict, and its sources are closed."""
    leaf, _ = line(root, 1)
    shelf = Slow()

    async def main() -> None:
        completion = Completion(certificates(leaf), verifier_for(root), [shelf])
        task = asyncio.create_task(completion.complete())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not completion.complete_at_once().verified

    asyncio.run(main())
    assert shelf.open == 0


def test_each_path_is_judged_once(root: Issued) -> None:
    """However often the candidates change."""
    judged: list[Path] = []
    real = verifier_for(root)

    class Recorder:
        signatures = 0
        fault_above = staticmethod(real.fault_above)
        step = staticmethod(real.step)

        def judge(self, path: Path) -> Verdict:
            judged.append(path)
            return real.judge(path)

    cas = [authority(f"CA {each}", excluded=["127.0.0.0/8"]) for each in range(3)]
    crossed = [a.issue(b.name, key=b, ca=True) for a, b in itertools.permutations(cas, 2)]
    anchored = [root.issue(ca.name, key=ca, ca=True, excluded=["127.0.0.0/8"]) for ca in cas]
    leaf = cas[0].issue()

    async def main() -> Outcome:
        shelf = Shelf(fetched=[*anchored, *crossed])
        return await Completion(certificates(leaf), Recorder(), [shelf]).complete()

    assert not asyncio.run(main()).verified
    assert len(judged) == len(set(judged)) == 5


def test_shorter_paths_are_judged_first(root: Issued) -> None:
    """And the likelier ones among those of one length; whoever has little left finds it."""
    cas = [authority(f"CA {each}") for each in range(4)]
    mesh = [a.issue(b.name, key=b, ca=True) for a, b in itertools.permutations(cas, 2)]
    anchored = [root.issue(ca.name, key=ca, ca=True, excluded=["127.0.0.0/8"]) for ca in cas[1:]]
    good = root.issue("CA 3", key=cas[3], ca=True, valid=OLD)
    outcome = complete([cas[0].issue(), *mesh, *anchored, good], root, limits=Limits(paths=8))
    assert len(outcome.path) == 4


def test_seconds(root: Issued) -> None:
    """The time that a completion took is measured from its beginning."""
    leaf, ca = line(root, 1)
    before = time.monotonic()
    outcome = complete([leaf], root, Shelf(fetched=[ca]))
    assert 0 < outcome.seconds <= time.monotonic() - before


def test_callbacks_are_called_when_all_is_done(root: Issued) -> None:
    """After what was found has been kept, and also when nothing was."""
    events: list[str] = []

    class Leasing(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            budget.when_done.append(lambda: events.append("done"))
            async for attempt in super().fetch_issuers(certificate, budget):
                yield attempt

        def keep(self, found: Sequence[Found]) -> None:
            events.append("kept")

    leaf, ca = line(root, 1)
    assert complete([leaf], root, Leasing(fetched=[ca])).verified
    assert events == ["kept", "done"]
    events.clear()
    assert not complete([leaf], root, Leasing()).verified
    assert events == ["done"]


def test_frozen(root: Issued) -> None:
    """Sources are told that nothing may be downloaded, and why."""

    class Curious(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            yield Attempt(f"{budget.downloads} downloads", f"for {budget.frozen}")

    leaf, _ = line(root, 1)
    reason = complete([leaf], root, Curious(), limits=Limits(frozen="a reason")).reason
    assert reason.endswith("(AIA: 0 downloads for a reason)")


def test_frozen_with_a_known_issuer(root: Issued) -> None:
    """What is missing is above that, and nothing is said of a download in its place."""

    class Curious(Shelf):
        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            yield Attempt(certificate.name, "was asked for")

    ca = authority("Stranger").issue("CA", ca=True)
    source = Curious(known=[ca])
    frozen, thawed = (
        complete([ca.issue()], root, source, limits=Limits(frozen=why)).reason
        for why in ("a reason", "")
    )
    missing = "unable to get local issuer certificate"
    assert frozen == f"{missing} (AIA: CN=CA was asked for)"
    assert thawed == f"{missing} (AIA: CN=CA was asked for; CN=Lab Leaf was asked for)"


def test_what_lies_in_a_file_is_not_kept(root: Issued) -> None:
    """The user has named the file, and may take it away again."""
    leaf, lower, upper = line(root, 2)

    class File(Shelf):
        def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
            found = super().known_issuers(certificate)
            return [Found(item.certificate, "ca.pem", at_hand=True) for item in found]

    memory = Shelf(known=[upper])
    outcome = complete([leaf], root, File(known=[lower]), memory)
    assert [found.place for found in outcome.found] == ["in ca.pem", "at shelf"]
    assert memory.kept == list(certificates(upper))


FAULTS: dict[str, Callable[[Issued], Issued]] = {
    "expired": lambda root: root.issue("CA", ca=True, expired=True),
    "no CA": lambda root: root.issue("CA"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_twin_is_passed_over(root: Issued, fault: str) -> None:
    """A presented intermediate with a fault, and a good one of the same key elsewhere."""
    bad = FAULTS[fault](root)
    good = root.issue("CA", key=bad, ca=True)
    leaf = good.issue()
    for shelf in Shelf(known=[good]), Shelf(fetched=[good]):
        assert complete([leaf, bad], root, shelf).path == certificates(leaf, good, root)
