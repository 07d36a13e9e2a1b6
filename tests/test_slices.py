"""Who computes for long does so in turns, and everybody else has his in between."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

import pytest

from mitmproxy_aia import slices
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.slices import Slices, at_once, moment
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued
from tests.test_completion import Shelf, certificates, exploding, verifier_for


class Rounds:
    """Counts those of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self._task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


async def work(name: str, rounds: Rounds, done: list[tuple[int, str]], slices: int) -> None:
    mine = Slices()
    try:
        for _ in range(slices):
            await mine.next()
            done.append((rounds.number, name))
    finally:
        mine.over()


def test_one_in_each_round() -> None:
    """Those who come are first in the order of arrival."""

    async def main() -> list[tuple[int, str]]:
        rounds, done = Rounds(), list[tuple[int, str]]()
        await asyncio.gather(*(work(name, rounds, done, 4) for name in "abc"))
        rounds.stop()
        return done

    for _ in range(2):  # each in an event loop of its own
        done = asyncio.run(main())
        numbers = [number for number, _ in done]
        assert numbers == sorted({*numbers})
        names = "".join(name for _, name in done)
        assert names.startswith("abc")
        assert sorted(names) == [*"aaaabbbbcccc"]


def test_who_has_computed_least_goes_first() -> None:
    """However many compute for others, and for however many."""

    async def compute(name: str, payer: str, seconds: float, done: list[str]) -> None:
        mine = Slices(payer)
        try:
            for _ in range(4):
                await mine.next()
                done.append(name)
                ends = time.thread_time() + seconds
                while time.thread_time() < ends:
                    pass
        finally:
            mine.over()

    async def main(payers: int) -> list[str]:
        done = list[str]()
        many = [
            asyncio.create_task(compute("m", f"{number % payers}", 0.003, done))
            for number in range(8)
        ]
        while len(done) < 12:  # noqa: ASYNC110 -- they compute
            await asyncio.sleep(0)
        await compute("late", "late", 0.0005, done)
        await asyncio.gather(*many)
        return done

    for payers in 1, 8:
        done = asyncio.run(main(payers))
        assert done.count("m") == 32
        # One at most has its turn in between.
        assert len(done) - 1 - done[::-1].index("late") - done.index("late") <= 2 * 3


@pytest.mark.parametrize(("shared", "rounds_taken"), [(0.0, 12), (60.0, 1)])
def test_moments(shared: float, rounds_taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many in each round as fit into it, be it one; and they wait for nobody who computes."""
    monkeypatch.setattr(slices, "SHARED", shared)

    async def take(rounds: Rounds, done: list[int]) -> None:
        for _ in range(4):
            await moment()
            done.append(rounds.number)

    async def main() -> list[int]:
        rounds, done = Rounds(), list[int]()
        computing = Slices()
        await computing.next()  # and for long
        await asyncio.gather(*(take(rounds, done) for _ in range(3)))
        computing.over()
        rounds.stop()
        return done

    for _ in range(2):  # each in an event loop of its own
        numbers = asyncio.run(main())
        assert len(numbers) == 12
        assert len({*numbers}) == rounds_taken


def test_others_have_as_much_time_as_moments() -> None:
    """When those of a round have taken all that is for them. Before that there is no pause."""

    async def main() -> None:
        for used in 0.0, slices.SHARED, 0.05:
            await moment()
            ends = time.thread_time() + used
            while time.thread_time() < ends:
                pass
            over = time.monotonic()
            rounds = Rounds()
            await moment()
            paused = time.monotonic() - over
            assert paused > used - 0.001
            assert bool(rounds.number) == bool(used)
            rounds.stop()

    asyncio.run(main())


def test_moments_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has his second one before all who wait have had their first."""
    monkeypatch.setattr(slices, "SHARED", 0.0)

    async def take(name: str, done: list[str]) -> None:
        for _ in range(3):
            await moment()
            done.append(name)
            await asyncio.sleep(0)

    async def main() -> str:
        done: list[str] = []
        await asyncio.gather(*(take(name, done) for name in "abc"))
        return "".join(done)

    assert asyncio.run(main()) == "abc" * 3


def test_others_have_as_much_time() -> None:
    """A slice that took long is followed by a pause as long, also if nobody else computes. Before
    the first slice there is none, nor after the last."""

    async def main() -> None:
        mine = Slices()
        for used in (0.02, 0.001, 0.05):
            await mine.next()
            ends = time.thread_time() + used
            while time.thread_time() < ends:
                pass
            over = time.monotonic()
            await mine.next()
            # To the resolution of the event loop's clock.
            assert time.monotonic() - over > used - 0.001
        mine.over()
        rounds = Rounds()
        await asyncio.sleep(0)
        before = rounds.number
        await Slices().next()
        assert rounds.number == before + 1
        rounds.stop()

    asyncio.run(main())


@pytest.mark.parametrize("when", range(4))
def test_who_is_cancelled_keeps_nobody(when: int) -> None:
    """Waiting for a turn, or in one."""

    async def main() -> list[str]:
        rounds, done = Rounds(), list[tuple[int, str]]()
        tasks = [asyncio.create_task(work(name, rounds, done, 3)) for name in "abc"]
        for _ in range(when):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        rounds.stop()
        return [name for _, name in done if name != "a"]

    assert sorted(asyncio.run(main())) == [*"bbbccc"]


def test_many_completions_at_once(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """All together they do one slice in a round."""
    chains: Sequence[Sequence[Issued]] = [exploding(6) for _ in range(4)]
    worked: dict[int, set[int]] = defaultdict(set)
    step = Verifier.step

    async def main() -> None:
        rounds = Rounds()
        completions = [
            Completion(certificates(*chain), verifier_for(root), [], Limits(slice=0))
            for chain in chains
        ]
        owners = {id(each._search._verifier): number for number, each in enumerate(completions)}

        def counted(self: Verifier, certificate: Certificate, issuer: Certificate) -> Fault | None:
            worked[rounds.number].add(owners[id(self)])
            return step(self, certificate, issuer)

        monkeypatch.setattr(Verifier, "step", counted)
        await asyncio.gather(*(each.complete() for each in completions))
        rounds.stop()

    asyncio.run(main())
    assert {*range(len(chains))} == set.union(*worked.values())
    assert len(worked) > 20
    assert {len(owners) for owners in worked.values()} == {1}


def test_what_is_done_at_once() -> None:
    """All who do something in one round of the event loop share their time, and in the next it is
    there again."""

    def use(seconds: float) -> float:
        began = time.thread_time()
        with at_once(60.0) as ends:
            left = ends - time.thread_time()
            while time.thread_time() < began + seconds:
                pass
        return left

    async def main() -> None:
        for _ in range(2):
            first, second, third = use(0.02), use(0.02), use(0.0)
            assert 60.0 > first > second + 0.015 > third + 0.03 > 59.0
            await asyncio.sleep(0)

    asyncio.run(main())
    assert use(0.02) == pytest.approx(use(0.0), abs=0.01)


def use_up(seconds: float) -> None:
    with at_once(seconds) as ends:
        while time.thread_time() < ends:
            pass
        raise ZeroDivisionError


def test_it_is_used_up() -> None:
    """Then a crumb is left, and nothing is owed. An error does not change that."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            use_up(0.02)
        for _ in range(2):
            now = time.thread_time()
            with at_once(0.02) as ends:
                assert now <= ends - slices.CRUMB <= time.thread_time()

    asyncio.run(main())


def test_chains_that_come_at_the_same_moment(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one has taken long, the others wait for their turn, and do at once what takes next to
    nothing. In the next round of the event loop there is time again."""
    monkeypatch.setattr(slices, "CRUMB", 0.0)
    issuer = root.issue("CA", ca=True)
    chain = certificates(issuer.issue(), issuer.issue(), issuer)
    alone, limits = chain[:1], Limits(slice=0.2)

    def verified_at_once(chain: Sequence[Certificate], *known: Issued) -> bool:
        sources = [Shelf(known=known)]
        completion = Completion(chain, verifier_for(root), sources, limits)
        return completion.complete_at_once().verified

    async def main() -> None:
        assert verified_at_once(chain)
        with pytest.raises(ZeroDivisionError):
            use_up(0.2)
        assert not verified_at_once(chain)
        assert verified_at_once(alone, issuer)
        await asyncio.sleep(0)
        assert verified_at_once(chain)

    asyncio.run(main())


def test_cancelled_when_it_is_its_turn() -> None:
    """The turn is not lost, and neither is that of the next one who waits."""

    async def main() -> None:
        first = Slices()
        await first.next()
        waiting = [asyncio.create_task(Slices(payer).next()) for payer in (1, 1, 2)]
        last = Slices(1)
        waiting.append(asyncio.create_task(last.next()))
        for _ in range(3):
            await asyncio.sleep(0)
        waiting[1].cancel()
        first.over()
        waiting[0].cancel()  # when it has just become its turn
        waiting[2].cancel()
        assert [*map(type, await asyncio.gather(*waiting, return_exceptions=True))] == [
            *[asyncio.CancelledError] * 3,
            type(None),
        ]
        last.over()
        await Slices().next()

    asyncio.run(main())


def test_many_payers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of them is bounded."""
    monkeypatch.setattr(slices, "MAX_PAYERS", 3)
    known = list[int]()

    async def compute(payer: int) -> None:
        mine = Slices(payer)
        try:
            for _ in range(3):
                await mine.next()
                known.append(len(mine._turns._used))
        finally:
            mine.over()

    async def main() -> None:
        await asyncio.gather(*map(compute, range(10)))

    asyncio.run(main())
    assert len(known) == 30
    assert max(known) == 3


def test_what_arrives_is_taken_up_in_slices(root: Issued) -> None:
    """A download may hold a thousand certificates: the event loop gets its turn after each that
    took as long as a slice."""
    issuer = root.issue("CA", ca=True)
    arriving = [*(root.issue("CA", ca=True) for _ in range(50)), issuer]

    class Bundle(Shelf):
        """All in one attempt."""

        async def fetch_issuers(
            self, certificate: Certificate, budget: Budget
        ) -> AsyncGenerator[Attempt, None]:
            found = tuple(Found(Certificate(each.der), "http://a/") for each in arriving)
            yield Attempt("http://a/", "gave them", found)

    async def main() -> int:
        leaf = Certificate(issuer.issue().der)
        completion = Completion([leaf], verifier_for(root), [Bundle()], Limits(slice=0.0))
        assert not completion.complete_at_once().verified
        rounds = Rounds()
        outcome = await completion.complete()
        rounds.stop()
        assert outcome.verified
        return rounds.number

    assert asyncio.run(main()) > len(arriving)


def test_nobody_begins_while_another_computes(root: Issued) -> None:
    """Many may have waited for one download, and all go on when it is there."""
    issuer = root.issue("CA", ca=True)

    async def main() -> None:
        leaf = Certificate(issuer.issue().der)
        other = Slices()
        await other.next()
        completion = Completion([leaf], verifier_for(root), [Shelf(known=[issuer])])
        completing = asyncio.create_task(completion.complete())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not completing.done()
        other.over()
        assert (await completing).verified

    asyncio.run(main())
