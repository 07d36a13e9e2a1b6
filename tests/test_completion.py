"""The algorithm of a completion, with real certificates and verdicts and sources of its own."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from OpenSSL import crypto

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Limits, Outcome
from mitmproxy_aia.paths import MAX_PATH_LENGTH, Path
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.verification import Verdict, Verifier
from tests.lab import Issued, authority


class Shelf:
    """An issuer source with what a test puts on it.

    `known` is there at once; `fetched` has to be waited for, one attempt per certificate.
    """

    def __init__(self, *, known: Sequence[Issued] = (), fetched: Sequence[Issued] = ()) -> None:
        self.known = [Certificate(item.der) for item in known]
        self.fetched = [Certificate(item.der) for item in fetched]
        self.asked: list[Certificate] = []
        self.kept: list[Certificate] = []
        self.open = 0

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
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
) -> Outcome:
    async def main() -> Outcome:
        completion = Completion(
            certificates(*presented), verifier_for(root), shelves, limits or Limits()
        )
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
    assert not complete([leaf], root, shelf, limits=Limits(nesting=7)).verified
    assert len(shelf.asked) == 7
    assert complete([leaf], root, Shelf(fetched=cas), limits=Limits(nesting=8)).verified


def test_candidates_are_limited(root: Issued) -> None:
    """A server that presents a hundred certificates is not looked at without end."""
    leaf, ca = line(root, 1)
    strangers = [root.issue(f"Stranger {number}", ca=True) for number in range(100)]
    outcome = complete([leaf, *strangers, ca], root, Shelf(), limits=Limits(candidates=50))
    assert not outcome.verified
    assert "only 50 certificates were looked at" in outcome.reason
    assert complete([leaf, *strangers, ca], root, limits=Limits(candidates=102)).verified


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


def test_paths_are_limited(root: Issued) -> None:
    """A hundred cross-certificates among CAs of one name end with a clear error."""
    outcome = complete(exploding(10), root, limits=Limits(paths=40))
    assert not outcome.verified
    assert "(given up after 40 paths)" in outcome.reason


def test_signatures_are_limited(root: Issued) -> None:
    """The same chain, counted in signature checks."""
    outcome = complete(exploding(10), root, limits=Limits(signatures=30))
    assert not outcome.verified
    assert "given up after" in outcome.reason
    leaf, ca = line(root, 1)
    assert complete([leaf, ca], root, limits=Limits(signatures=10)).verified


@pytest.mark.parametrize("certificates", [MAX_PATH_LENGTH, MAX_PATH_LENGTH + 1, 100])
def test_length_is_limited(root: Issued, certificates: int) -> None:
    """A line of a hundred certificates; the trust anchor does not count."""
    outcome = complete(line(root, certificates - 1), root)
    assert outcome.verified == (certificates == MAX_PATH_LENGTH)
    if not outcome.verified:
        assert "no path of more than 32 certificates was followed" in outcome.reason


def test_certificates_that_certify_each_other(root: Issued) -> None:
    """Ten strangers, each certified by all others: a million paths, none of them good."""
    cas = [authority(f"CA {number}") for number in range(10)]
    mesh = [one.issue(other.name, key=other, ca=True) for one in cas for other in cas]
    outcome = complete([cas[0].issue(), *mesh], root)
    assert not outcome.verified
    assert "given up after 250 paths" in outcome.reason


def test_judging_leaves_the_event_loop_alone(root: Issued) -> None:
    """However many paths there are, others get their turn in between."""

    class Clock:
        turns = 0

    async def others() -> None:
        while True:
            Clock.turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(others())
        presented = certificates(*exploding(10))
        completion = Completion(presented, verifier_for(root), [], Limits(slice=0))
        assert not completion.complete_at_once().verified
        assert Clock.turns == 0
        await completion.complete()
        task.cancel()

    asyncio.run(main())
    assert Clock.turns > 50


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
        def judge(self, path: Path) -> Verdict:
            judged.append(path)
            return real.judge(path)

    leaf, *cas = line(root, 3)

    async def main() -> Outcome:
        return await Completion(certificates(leaf), Recorder(), [Shelf(fetched=cas)]).complete()

    assert asyncio.run(main()).verified
    assert len(judged) == len(set(judged)) == 4


def test_seconds(root: Issued) -> None:
    """The time that a completion took is measured from its beginning."""
    leaf, ca = line(root, 1)
    before = time.monotonic()
    outcome = complete([leaf], root, Shelf(fetched=[ca]))
    assert 0 < outcome.seconds <= time.monotonic() - before


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
