"""Issuers shared through a real Redis: nodes find what another kept, and wait for it."""

import asyncio
import datetime
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from mitmproxy_aia.sources import Attempt, Found
from mitmproxy_aia.sources.redis import RedisSource
from mitmproxy_aia.sources.redis_records import WRITE
from tests.lab.redis_server import RedisServer
from tests.redis_nodes import (
    ROOT,
    URL,
    budget,
    certificate,
    done,
    evaluations,
    fetch,
    held,
    key_of,
    lease_of,
    nodes,
    run,
    until,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(password="opensesame") as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator["redis.Redis"]:
    """Looks into the server from outside. It is empty at first."""
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
        yield client


def test_one_keeps_and_the_other_finds(server: RedisServer, client: "redis.Redis") -> None:
    """With its first origin, and with Redis as the place where it was found."""
    issuer = ROOT.issue("Shared", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2) as (one, other):
            assert list(one.known_issuers(certificate(leaf))) == []
            one.keep([Found(certificate(issuer), URL)])
            await until(lambda: client.exists(key_of(issuer)))
            (attempt,) = await fetch(other, leaf, budget())
            name = f"redis://127.0.0.1:{server.port}/0"
            assert str(attempt) == f"{name} had CN=Shared"
            assert attempt.found == (Found(certificate(issuer), URL, cache="Redis"),)
            assert attempt.found[0].place == "in Redis"
            assert not held(client, issuer)

    run(test)


def test_others_wait_for_the_one_who_downloads(server: RedisServer, client: "redis.Redis") -> None:
    """The first one gets a lease and is told nothing; the others get what it keeps, and the
    lease ends after that has been written."""
    issuer = ROOT.issue("Awaited", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 3) as (one, two, three):
            first = budget()
            assert await fetch(one, leaf, first) == []
            assert held(client, issuer)
            waiting = [asyncio.create_task(fetch(each, leaf, budget())) for each in (two, three)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            one.keep([Found(certificate(issuer), URL)])
            done(first)
            for task in waiting:
                (attempt,) = await task
                assert [item.origin for item in attempt.found] == [URL]
            await until(lambda: not held(client, issuer))

    run(test)


def test_a_lease_given_back_without_result(server: RedisServer, client: "redis.Redis") -> None:
    """When the first one has failed, who waits takes over at once and downloads itself."""
    issuer = ROOT.issue("Failed", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2, lease=30.0) as (one, other):
            first, second = budget(), budget(seconds=60)
            assert await fetch(one, leaf, first) == []
            waiting = asyncio.create_task(fetch(other, leaf, second))
            await asyncio.sleep(0.2)
            done(first)
            assert await asyncio.wait_for(waiting, 10) == []
            assert second.when_done, "it did not take the lease"
            assert held(client, issuer)
            done(second)
            await until(lambda: not held(client, issuer))

    run(test)


def test_a_node_that_dies_with_a_lease(server: RedisServer, client: "redis.Redis") -> None:
    """Its lease expires, and who waited goes on."""
    issuer = ROOT.issue("Orphan", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2, lease=0.4) as (dead, other):
            assert await fetch(dead, leaf, budget()) == []
            assert held(client, issuer)
            dead.close()
            assert await fetch(other, leaf, budget()) == []
            await until(lambda: not held(client, issuer))
            spend = budget()
            assert await fetch(other, leaf, spend) == []
            assert spend.when_done, "it did not take the lease"

    run(test)


def test_waiting_leaves_time_for_a_download(server: RedisServer, client: "redis.Redis") -> None:
    """Nobody waits longer than half of what is left, however long the lease."""
    issuer = ROOT.issue("Slow", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2, lease=60.0) as (one, other):
            assert await fetch(one, leaf, budget()) == []
            spend = budget(seconds=1.0)
            assert await fetch(other, leaf, spend) == []
            assert time.monotonic() < spend.deadline
            assert not spend.when_done

    run(test)


def test_a_lease_outlasts_a_slow_write(
    server: RedisServer, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given back when the others can find what it was taken for, and not before."""
    issuer = ROOT.issue("Slowly written", ca=True)

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            ask = one._link.ask

            async def slowly(script: str, *arguments: Any) -> object:
                if script == WRITE:
                    await asyncio.sleep(0.3)
                return await ask(script, *arguments)

            monkeypatch.setattr(one._link, "ask", slowly)
            spend = budget()
            assert await fetch(one, issuer.issue(aia=[URL]), spend) == []
            one.keep([Found(certificate(issuer), URL)])
            done(spend)
            await until(lambda: not held(client, issuer))
            assert client.exists(key_of(issuer))

    run(test)


def test_a_lease_that_comes_too_late(server: RedisServer, client: "redis.Redis") -> None:
    """Nobody waits for it any more: it is given back."""
    issuer = ROOT.issue("Too late", ca=True)

    async def test() -> None:
        async with nodes(server.url, 1, lease=60.0) as (one,):
            spend = budget(seconds=0)
            assert await fetch(one, issuer.issue(aia=[URL]), spend) == []
            assert not spend.when_done
            await until(lambda: not one._lookups)
            await until(lambda: not one._tasks)
            assert evaluations(client) >= 2
            assert not held(client, issuer)

    run(test)


def test_a_late_release_leaves_the_next_lease(server: RedisServer, client: "redis.Redis") -> None:
    """Only who holds a lease can end it."""
    issuer = ROOT.issue("Late", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            spend = budget()
            assert await fetch(one, leaf, spend) == []
            client.set(lease_of(issuer), "of another")
            done(spend)
            await until(lambda: not one._tasks)
            assert held(client, issuer)

    run(test)


@pytest.mark.parametrize("why", ["frozen", "no downloads left", "no URL"])
def test_no_lease_without_a_download(server: RedisServer, client: "redis.Redis", why: str) -> None:
    """Who cannot download asks once, takes no lease and waits for none."""
    issuer = ROOT.issue("Frozen", ca=True)
    aia = ["ldap://ca.example/"] if why == "no URL" else [URL]
    leaf = issuer.issue(aia=aia)

    async def test() -> None:
        async with nodes(server.url, 1, lease=60.0) as (one,):
            spend = budget(downloads=0 if why == "no downloads left" else 10, seconds=300)
            spend.frozen = "aia_mode=frozen" if why == "frozen" else ""
            assert await fetch(one, leaf, spend) == []
            assert client.dbsize() == 0
            assert not spend.when_done
            client.set(lease_of(issuer), "of another")
            assert await asyncio.wait_for(fetch(one, leaf, spend), 20) == []

    run(test)


def test_only_equal_questions_wait(server: RedisServer, client: "redis.Redis") -> None:
    """A certificate that names the same issuer and another URL holds nobody up, on its own node
    as little as on others; but who waits is told what anybody has found."""
    issuer = ROOT.issue("Named by a stranger", ca=True)
    hangs = issuer.issue(aia=["http://stranger.example/hangs", URL])
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 3, lease=60.0) as (one, other, third):
            stranger = budget(seconds=300)
            assert await fetch(one, hangs, stranger) == []
            assert stranger.when_done
            assert not held(client, issuer)
            for node in (one, other):
                spend = budget(seconds=300)
                assert await asyncio.wait_for(fetch(node, leaf, spend), 20) == []
                assert spend.when_done, "it did not take the lease"
                done(spend)
                await until(lambda: not held(client, issuer))
            waiting = asyncio.create_task(fetch(third, hangs, budget(seconds=300)))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            other.keep([Found(certificate(issuer), URL)])
            (attempt,) = await asyncio.wait_for(waiting, 20)
            assert attempt.found

    run(test)


def test_a_lookup_that_is_done_may_be_followed_at_once(
    server: RedisServer, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one that asks before the end of the first has been heard of everywhere."""
    leaf = ROOT.issue("Gate", ca=True).issue(aia=["ldap://ca.example/"])

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            gate, second, asked = asyncio.Event(), asyncio.Event(), 0

            async def ask(*_: object) -> object:
                nonlocal asked
                asked += 1
                await (gate if asked == 1 else second).wait()
                return -1, []

            async def late() -> list[Attempt]:
                await gate.wait()  # wakes in the same turn of the event loop as the lookup
                return await fetch(one, leaf, budget())

            monkeypatch.setattr(one._link, "ask", ask)
            tasks = [asyncio.create_task(fetch(one, leaf, budget()))]
            await until(lambda: asked)
            tasks.append(asyncio.create_task(late()))
            await asyncio.sleep(0.05)
            gate.set()
            await until(lambda: asked == 2 and tasks[0].done())
            assert one._lookups, "the end of the first was taken for that of the second"
            second.set()
            assert await asyncio.gather(*tasks) == [[], []]
            await until(lambda: not one._lookups)

    run(test)


def test_one_question_for_many(server: RedisServer, client: "redis.Redis") -> None:
    """A hundred completions of one process ask once, and one of them has charge of the lease;
    whoever comes while it is held goes on to the download at once."""
    issuer = ROOT.issue("Popular", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            await fetch(one, ROOT.issue(), budget(downloads=0))  # it knows the script now
            before = evaluations(client)
            budgets = [budget() for _ in range(100)]
            found = await asyncio.gather(*(fetch(one, leaf, each) for each in budgets))
            assert found == [[]] * 100
            late = budget()
            assert await fetch(one, leaf, late) == []
            assert evaluations(client) - before == 1
            assert sum(len(each.when_done) for each in [*budgets, late]) == 1

    run(test)


def test_a_completion_that_is_cancelled(server: RedisServer, client: "redis.Redis") -> None:
    """The lease that its question may have got is given back."""
    issuer = ROOT.issue("Cancelled", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2) as (one, other):
            first = budget()
            assert await fetch(one, leaf, first) == []
            waiting = asyncio.create_task(fetch(other, leaf, budget()))
            await asyncio.sleep(0.2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: not other._lookups and not other._tasks)
            assert held(client, issuer), "it ended the lease of another node"
            done(first)
            await until(lambda: not held(client, issuer))

    run(test)


def test_nobody_asks_for_nobody(server: RedisServer, client: "redis.Redis") -> None:
    """Looking again and again ends with the last completion that waits for it."""
    issuer = ROOT.issue("Given up", ca=True)

    async def test() -> None:
        async with nodes(server.url, 1, lease=120.0) as (one,):
            client.set(lease_of(issuer), "of another")
            leaf = issuer.issue(aia=[URL])
            waiting = [asyncio.create_task(fetch(one, leaf, budget(seconds=300))) for _ in "ab"]
            await until(lambda: evaluations(client) > 1)
            waiting[0].cancel()
            await asyncio.sleep(0.5)
            assert one._lookups, "somebody still waits"
            waiting[1].cancel()
            await until(lambda: not one._lookups)
            assert await asyncio.gather(*waiting, return_exceptions=True)
            assert not one._leases

    run(test)


def test_what_was_flushed_comes_back(
    server: RedisServer, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still used is handed in again after some minutes; nothing is written if it is
    still there."""
    issuer = ROOT.issue("Flushed", ca=True)
    found = [Found(certificate(issuer), URL)]

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):

            async def keep() -> None:
                one.keep(found)
                await until(lambda: not one._tasks)

            await keep()
            field, used = certificate(issuer).fingerprint.hex() + ":used", int(time.time()) - 1_000
            client.hset(key_of(issuer), field, used)
            changes, asked = _changes(client), evaluations(client)
            await keep()
            assert evaluations(client) == asked
            monkeypatch.setattr("mitmproxy_aia.sources.redis.SEEN", 0.0)
            await keep()
            assert (_changes(client), evaluations(client)) == (changes, asked + 1)
            assert client.hget(key_of(issuer), field) == str(used).encode()
            client.flushdb()
            await keep()
            assert client.hlen(key_of(issuer)) == 2

    run(test)


def _changes(client: "redis.Redis") -> int:
    """How often anything in the server has been written since it was started."""
    persistence: dict[str, int] = client.info("persistence")
    return persistence["rdb_changes_since_last_save"]


def test_a_warm_fleet_does_not_write(server: RedisServer, client: "redis.Redis") -> None:
    """What was found there, or written there within the hour, is not written again."""
    issuer = ROOT.issue("Warm", ca=True)
    leaf = issuer.issue(aia=[URL])

    async def test() -> None:
        async with nodes(server.url, 2) as (one, other):
            found = Found(certificate(issuer), URL)
            one.keep([found])
            await until(lambda: client.exists(key_of(issuer)) and not one._tasks)
            (attempt,) = await fetch(other, leaf, budget())
            before = evaluations(client)
            for _ in range(10):
                one.keep([found])
                other.keep(attempt.found)
            await until(lambda: not one._tasks and not other._tasks)
            assert evaluations(client) == before

    run(test)


def test_an_old_use_is_renewed(server: RedisServer, client: "redis.Redis") -> None:
    """When the last use was long ago it is written; origin and first use stay."""
    issuer = ROOT.issue("Old", ca=True)
    leaf = issuer.issue(aia=[URL])
    fingerprint = certificate(issuer).fingerprint.hex()

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            client.hset(key_of(issuer), fingerprint, b"5 9999999999 first origin\n" + issuer.der)
            client.hset(key_of(issuer), fingerprint + ":used", 5)
            (attempt,) = await fetch(one, leaf, budget())
            assert attempt.found[0].origin == "first origin"
            one.keep([Found(certificate(issuer), "second origin")])
            await until(lambda: client.hget(key_of(issuer), fingerprint + ":used") != b"5")
            value = client.hget(key_of(issuer), fingerprint)
            assert value == b"5 9999999999 first origin\n" + issuer.der

    run(test)


def test_keys_expire_with_their_last_certificate(
    server: RedisServer, client: "redis.Redis"
) -> None:
    """The later of two ends of validity counts, in whatever order they come."""
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    start = now.replace(microsecond=0) - day
    long = ROOT.issue("Twin", ca=True, valid=(start, start + 50 * day))
    short = ROOT.issue("Twin", ca=True, valid=(start, start + 20 * day))

    async def test() -> None:
        async with nodes(server.url, 2) as (one, other):
            for node, each in ((one, short), (one, long), (other, short)):
                node.keep([Found(certificate(each), URL)])
                await until(lambda: not one._tasks and not other._tasks)
            assert client.hlen(key_of(long)) == 4
            assert 48 * day < datetime.timedelta(seconds=client.ttl(key_of(long))) < 50 * day
            assert len((await fetch(one, long.issue(), budget()))[0].found) == 2

    run(test)


def test_what_has_expired_is_not_offered(server: RedisServer, client: "redis.Redis") -> None:
    """Nor is it written."""
    old, new = (ROOT.issue("Aged", ca=True, expired=expired) for expired in (True, False))

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            one.keep([Found(certificate(old), URL), Found(certificate(new), URL)])
            await until(lambda: not one._tasks)
            assert client.hlen(key_of(new)) == 2
            fingerprint = certificate(old).fingerprint.hex()
            client.hset(key_of(old), fingerprint, b"5 9999999999 origin\n" + old.der)
            (attempt,) = await fetch(one, new.issue(), budget())
            assert [item.certificate for item in attempt.found] == [certificate(new)]

    run(test)


def test_a_write_drops_what_has_expired(server: RedisServer, client: "redis.Redis") -> None:
    """Together with its last use, and with whatever is not a record of ours; but nothing that
    is valid."""
    new, valid = (ROOT.issue("Pruned", ca=True) for _ in range(2))
    old = ROOT.issue("Pruned", ca=True, expired=True)
    fields = [certificate(each).fingerprint.hex() for each in (new, valid, old)]
    ended = int(certificate(old).not_after.timestamp())

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            one.keep([Found(certificate(valid), URL)])
            await until(lambda: not one._tasks)
            key = key_of(new)
            client.hset(key, fields[2] + ":used", 5)
            client.hset(key, fields[2], f"5 {ended} origin\n".encode() + old.der)
            client.hset(key, mapping={"a" * 64: "x", "b" * 64 + ":used": 5, "odd": "", "": "x"})
            client.hset(key, "c" * 64, b"5 9999999999 " + b"x" * 70_000)
            one.keep([Found(certificate(new), URL)])
            await until(lambda: not one._tasks)
            wanted = {(each + end).encode() for each in fields[:2] for end in ("", ":used")}
            assert set(client.hkeys(key)) == wanted

    run(test)


def test_names_of_many_are_cut(server: RedisServer, client: "redis.Redis") -> None:
    """Three are named. More than 50 certificates of one name are not asked for."""
    many = [ROOT.issue("Many", ca=True) for _ in range(60)]

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            for each in many:
                client.hset(
                    key_of(each),
                    certificate(each).fingerprint.hex(),
                    b"5 9999999999 origin\n" + each.der,
                )
            (attempt,) = await fetch(one, many[0].issue(), budget())
            assert attempt.outcome == "had CN=Many, CN=Many, CN=Many and 47 more"

    run(test)


def test_many_are_kept_in_a_bounded_table(
    server: RedisServer, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known to be there is forgotten in time, and then written again."""
    monkeypatch.setattr("mitmproxy_aia.sources.redis.KNOWN", 2)
    issuers = [ROOT.issue(f"Known {number}", ca=True) for number in range(3)]

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            one.keep([Found(certificate(each), URL) for each in issuers])
            await until(lambda: not one._tasks)
            before = evaluations(client)
            one.keep([Found(certificate(each), URL) for each in issuers[1:]])
            assert not one._tasks
            one.keep([Found(certificate(issuers[0]), URL)])
            await until(lambda: not one._tasks)
            assert evaluations(client) == before + 1

    run(test)


def test_closing(server: RedisServer, client: "redis.Redis") -> None:
    """Safe if nothing was opened, twice, with questions under way, and after the event loop;
    a closed source says and does nothing."""
    issuer = ROOT.issue("Closed", ca=True)
    leaf = issuer.issue(aia=[URL])
    unused = RedisSource(server.url)
    unused.close()
    unused.close()
    left_open = RedisSource(server.url)

    async def test() -> None:
        assert await fetch(left_open, leaf, budget()) == []
        left_open.keep([Found(certificate(ROOT), URL)])
        async with nodes(server.url, 1) as (one,):
            waiting = asyncio.create_task(fetch(one, leaf, budget()))
            await asyncio.sleep(0.2)
            one.close()
            assert await asyncio.wait_for(waiting, 20) == []
            one.keep([Found(certificate(issuer), URL)])
            assert await fetch(one, leaf, budget()) == []

    run(test)
    left_open.keep([Found(certificate(issuer), URL)])  # there is no event loop any more
    left_open.close()
    left_open.close()
    assert not client.exists(key_of(issuer))


def test_secrets_are_not_logged(
    server: RedisServer, client: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    """Not by redis-py either, nor are they in what represents a source."""
    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            await fetch(one, ROOT.issue(aia=[URL]), budget())
            one.keep([Found(certificate(ROOT), URL)])
            await until(lambda: not one._tasks)
            assert "opensesame" not in repr([one, one._link, one._link._client])
            assert "opensesame" not in repr([asyncio.all_tasks(), one._lookups])
            name = f"redis://127.0.0.1:{server.port}/0"
            assert (repr(one), repr(one._link)) == (f"RedisSource({name})", f"Link({name})")

    run(test)
    assert "opensesame" not in caplog.text


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`rediss://` verifies the certificate and the host name, unless told not to."""
    issuer = ROOT.issue("Over TLS", ca=True)
    anchor = tmp_path / "root.pem"
    anchor.write_bytes(ROOT.pem)
    good, bad = ROOT.issue("redis"), ROOT.issue("redis", hosts=["other.example"])
    with RedisServer(certificate=good) as server, RedisServer(certificate=bad) as impostor:

        async def test() -> None:
            urls = [
                f"{server.url}?ssl_ca_certs={anchor}",
                f"{server.url}?ssl_cert_reqs=none",
                server.url,
                f"{impostor.url}?ssl_ca_certs={anchor}",
            ]
            answers = []
            for url in urls:
                async with nodes(url, 1) as (one,):
                    one.keep([Found(certificate(issuer), URL)])
                    await until(partial(_idle, one))
                    answers.append(bool(await fetch(one, issuer.issue(), budget())))
            assert answers == [True, True, False, False]

        run(test)
    assert caplog.text.count("has a certificate that is not trusted (") == 2
    assert "IP address mismatch" in caplog.text


def _idle(source: RedisSource) -> bool:
    return not source._tasks
