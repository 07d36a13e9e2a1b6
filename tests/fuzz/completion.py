"""The whole completion against a network that lies."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterator, Sequence

from mitmproxy_aia.addresses import Space
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import ATTEMPTS_TOLD, GRACE, Completion, Outcome
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.paths import MAX_PATH_LENGTH
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.memory import MemorySource
from tests.fuzz.choices import Choices
from tests.fuzz.der_tree import damaged
from tests.fuzz.fake_time import Loop, fake_time
from tests.fuzz.network import (
    PRIVATE_URL,
    SERVERS,
    Network,
    Shelf,
    leaves,
    openssl_accepts,
    pool,
    roots,
    verifier,
)
from tests.fuzz.promises import bounded, one_line, promise
from tests.lab import Issued

_SMALL = Limits(seconds=1, downloads=2, nesting=1, candidates=5, paths=3, steps=20, signatures=30)
_WORK = 200_000
"""Bytes that a completion handles at most, to give it the CPU time of."""
_MOST_REASON = (ATTEMPTS_TOLD + 4) * 5_000


class _Server:
    """What is presented: `leaf`, and `others` as the fuzzer chose and perhaps damaged them."""

    def __init__(self, choices: Choices) -> None:
        self.leaf: Issued = choices.pick(leaves())
        chosen = [each.der for each in choices.several(pool(), 6)]
        self.others = [self._readable(each, choices) for each in chosen]
        self.server = choices.pick(SERVERS)

    def chain(self) -> tuple[Certificate, ...]:
        return (Certificate(self.leaf.der), *self.others)

    @staticmethod
    def _readable(der: bytes, choices: Choices) -> Certificate:
        """The handshake takes only what `cryptography` can parse, and so does this."""
        if choices.rarely():
            try:
                return Certificate.from_der(damaged(der, choices))
            except ValueError:
                pass
        return Certificate(der)


class _World:
    """The sources that several completions share, one after the other or at once."""

    def __init__(self, choices: Choices) -> None:
        self.memory, self.shelf = MemorySource(choices.pick((2_000, 2_000, 2, 1))), Shelf(choices)
        self.network = Network(choices)
        self.aia = AiaSource(self.network.download)
        self.kept: set[Certificate] = set()

    @property
    def sources(self) -> Sequence[IssuerSource]:
        return (self.memory, self.shelf, self.aia)

    def allow(self, outcome: Outcome) -> None:
        """From now on these may be kept."""
        self.kept |= {item.certificate for item in outcome.found}

    def promise_kept(self) -> None:
        kept = {entry.certificate for entry in self.memory.entries()} | {*self.shelf.kept}
        promise(kept <= self.kept, "something was kept that is in no verified path")


def completion(data: bytes) -> None:
    """Whatever is presented, known and answered: no path that OpenSSL refuses, none too late."""
    choices = Choices(data)
    servers = [_Server(choices) for _ in range(1 + choices.below(3))]
    limits = choices.pick((Limits(), Limits(), _SMALL, Limits(frozen="it is frozen")))
    cancelled_after = choices.pick((None, None, None, 0.0, 0.3, 5.0))
    world = _World(choices)
    with bounded(len(servers) * _WORK), fake_time() as loop:
        loop.run_until_complete(_run(loop, world, servers, limits, cancelled_after))
        promise(not loop.complaints, f"nobody has caught {loop.complaints}")


async def _run(
    loop: Loop,
    world: _World,
    servers: Sequence[_Server],
    limits: Limits,
    cancelled_after: float | None,
) -> None:
    tasks = [asyncio.ensure_future(_complete(loop, world, each, limits)) for each in servers]
    if cancelled_after is not None:
        loop.call_later(cancelled_after, tasks[0].cancel)
    await asyncio.wait(tasks)
    for number, task in enumerate(tasks):
        if task.cancelled():
            promise(number == 0 and cancelled_after is not None, "nobody has cancelled this")
        else:
            task.result()
    world.promise_kept()
    promise(world.shelf.open == 0, "an asynchronous generator is left open")
    world.aia.close()
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    promise(not left, f"tasks are left: {left}")


async def _complete(loop: Loop, world: _World, server: _Server, limits: Limits) -> None:
    started, chain = loop.time(), server.chain()
    one = Completion(chain, verifier(), world.sources, limits, lambda: server.server)
    outcome = one.complete_at_once()
    promise(loop.time() == started, "complete_at_once has waited")
    if not outcome.verified:
        promise(not outcome.found, "found without a path")
        world.promise_kept()
        outcome = await one.complete()
    spent = loop.time() - started
    promise(spent <= limits.seconds + GRACE + 0.001, f"{spent} s")
    world.allow(outcome)
    _promise_outcome(outcome, server, limits)
    if outcome.verified and limits == Limits():
        # Nothing is downloaded twice while memory holds it.
        unhurried = dataclasses.replace(limits, slice=math.inf)
        other = Completion(chain, verifier(), world.sources, unhurried, lambda: server.server)
        again = other.complete_at_once()
        forgotten = len(outcome.found) > len(world.memory)
        promise(again.verified or forgotten, f"not verified again: {again.reason}")
        world.allow(again)
        _promise_outcome(again, server, limits)


def _promise_outcome(outcome: Outcome, server: _Server, limits: Limits) -> None:
    one_line(outcome.reason, _MOST_REASON)
    promise(outcome.verified == (outcome.fault is None), "neither verified nor a fault")
    promise({item.certificate for item in outcome.found} <= {*outcome.path}, "found is elsewhere")
    downloads = [each for each in outcome.attempts if each.found]
    promise(len(downloads) <= 100, "more answers than there may be")
    if server.server.permits is Space.PUBLIC:
        theirs = [each for each in downloads if each.where == PRIVATE_URL]
        promise(not theirs, "has got what was downloaded for a server in the private network")
    stock = openssl_accepts(server.leaf, tuple(each.der for each in server.others))
    if not outcome.verified:
        promise(not stock or limits == _SMALL, f"stock accepts, and we do not: {outcome.reason}")
        promise(not outcome.found, "found without a path")
        return
    path = outcome.path
    promise(path[0].der == server.leaf.der, "another leaf")
    promise(path[-1].der == roots()[0].der, "not up to the trust anchor")
    promise(len(set(path)) == len(path) <= MAX_PATH_LENGTH, "a path with a loop or without end")
    ders = tuple(each.der for each in path[1:])
    promise(openssl_accepts(server.leaf, ders), f"OpenSSL refuses {path}")


def seeds() -> Iterator[bytes]:
    yield b""
    yield bytes(range(256))
    numbers, last = range(len(pool())), len(leaves()) - 1
    # One in the private network and one in public want the same URL at the same time.
    tail = bytes([0, 11, 58, 0, 1, 26, 0, 0, 11, 6, 0, 7, 0, 11, 5, 0, 7])
    yield _seed([(0, ()), (last, (58,)), (1, ())]) + tail
    for leaf in range(len(leaves())):
        yield _seed([(leaf, ())], answers=[6, 5])
    for number in numbers:
        yield _seed([(0, (number,))], answers=[5, 6])
        yield _seed([(0, ())], known=(number, 5))
        yield _seed([(0, ())], later=(number, 5))
        yield _seed([(0, ())], answers=[number, 5, 5])
        yield _seed([(0, ()), (last, (number,)), (1, ())], answers=[number, 6, 5])


def _seed(
    servers: Sequence[tuple[int, Sequence[int]]],
    known: Sequence[int] = (),
    later: Sequence[int] = (),
    answers: Sequence[int] = (),
) -> bytes:
    """Leaf and what is presented for each server; what is known, and what URLs answer in turn.
    Certificates are numbers in `pool`."""
    data = [len(servers) - 1]
    for place, (leaf, presented) in enumerate(servers, 1):
        data += [leaf, len(presented), *presented, *bytes(len(presented)), place]
    data += [0, 0, 0, len(known), *known, len(later), *later, 0, 0]
    for answer in answers:
        data += [0, 11, answer, 0, 7]
    return bytes(data)
