"""A Redis that is down, slow, wrong or talking nonsense: completions go on without it."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import redis

from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.redis_records import read_answer, read_number
from tests.lab.listener import Listener
from tests.lab.redis_server import RedisServer
from tests.redis_nodes import (
    ROOT,
    URL,
    budget,
    certificate,
    done,
    evaluations,
    fetch,
    key_of,
    lease_of,
    nodes,
    run,
    until,
)

ISSUER = ROOT.issue("Issuer", ca=True)
LEAF = ISSUER.issue(aia=[URL])
FOUND = [Found(certificate(ISSUER), URL)]
FIELD = certificate(ISSUER).fingerprint.hex()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What our own modules have said, from INFO on."""
    caplog.set_level(logging.DEBUG)

    def told() -> list[str]:
        assert "opensesame" not in caplog.text
        return [
            f"{record.levelname} {record.getMessage()}"
            for record in caplog.records
            if record.levelno >= logging.INFO
        ]

    return told


@contextmanager
def answering(answer: bytes) -> Iterator[Listener]:
    """A server that says `answer` to whatever it is sent, and nothing if that is empty."""

    def handle(connection: socket.socket) -> None:
        while connection.recv(65_536):
            if answer:
                connection.sendall(answer)

    with closing(Listener(handle)) as listener:
        yield listener


def url(listener: Listener) -> str:
    return f"redis://me:opensesame@127.0.0.1:{listener.port}/0"


def test_a_server_that_goes_and_comes(log: Callable[[], list[str]]) -> None:
    """Stopped and started under use: nothing is raised, one warning, one word of recovery;
    and what was there before is written again."""
    with RedisServer(password="opensesame") as server:

        async def test() -> None:
            async with nodes(server.url, 1, pause=0.2) as (one,):
                one.keep(FOUND)
                await until(lambda: not one._tasks)
                assert await fetch(one, LEAF, budget())
                server.stop()
                for _ in range(30):
                    assert await fetch(one, LEAF, budget()) == []
                    one.keep(FOUND)
                    await asyncio.sleep(0.02)
                server.start()
                ends = time.monotonic() + 20
                while not await fetch(one, LEAF, budget(downloads=0)):
                    assert time.monotonic() < ends
                    one.keep(FOUND)
                    await asyncio.sleep(0.02)

        run(test)
        name = f"The cache redis://127.0.0.1:{server.port}/0"
        assert log() == [
            f"WARNING {name} cannot be reached (Connection refused); going on without it",
            f"INFO {name} works again",
        ]


def test_a_server_that_never_answers(log: Callable[[], list[str]]) -> None:
    """Five hundred completions go on together when the first gives up, and who comes later
    does not even ask."""
    issuers = [ROOT.issue(f"Issuer {number}", ca=True) for number in range(20)]
    leaves = [issuer.issue(aia=[URL]) for issuer in issuers]
    with answering(b"") as listener:

        async def test() -> None:
            async with nodes(url(listener), 1, patience=0.5, pause=60.0) as (one,):
                first = [fetch(one, LEAF, budget(seconds=60))]
                others = [fetch(one, leaves[n % 20], budget(seconds=60)) for n in range(500)]
                assert await asyncio.gather(*first, *others) == [[]] * 501
                asked = listener.connections
                one.keep(FOUND)
                assert await fetch(one, LEAF, budget()) == []
                # As many as may be open at once; on a busy machine some are given up and made anew.
                assert listener.connections == asked <= 2 * 8

        run(test)
    (told,) = log()
    assert told.endswith("gave no answer in time; going on without it")


def test_a_lease_cannot_be_given_back(log: Callable[[], list[str]]) -> None:
    """Redis gone with the lease in it, the completion ends as ever."""
    with RedisServer() as server:

        async def test() -> None:
            async with nodes(server.url, 1) as (one,):
                spend = budget()
                assert await fetch(one, LEAF, spend) == []
                server.stop()
                one.keep(FOUND)
                done(spend)
                await until(lambda: not one._tasks)
                assert not one._leases

        run(test)
    assert len(log()) == 1


def test_who_waits_beside_a_failure_goes_on(log: Callable[[], list[str]]) -> None:
    """One that asked shortly before the breaker opened does not wait its own time out."""
    other = ROOT.issue("Other", ca=True)
    with answering(b"") as listener:

        async def test() -> None:
            async with nodes(url(listener), 1, patience=4.0, lease=60.0, pause=60.0) as (one,):
                first = asyncio.create_task(fetch(one, LEAF, budget(seconds=60)))
                await asyncio.sleep(3.0)
                second = asyncio.create_task(fetch(one, other.issue(aia=[URL]), budget(seconds=60)))
                assert await first == []
                # By itself it would wait three seconds more.
                assert await asyncio.wait_for(second, 2.0) == []

        run(test)
    assert len(log()) == 1


def test_a_failed_server_is_probed_by_one(log: Callable[[], list[str]]) -> None:
    """After the pause a single completion asks, while the others go on."""
    leaves = [ROOT.issue(f"Issuer {number}", ca=True).issue(aia=[URL]) for number in range(5)]
    with answering(b"") as listener:

        async def test() -> None:
            async with nodes(url(listener), 1, patience=0.3, pause=0.1) as (one,):
                assert await fetch(one, LEAF, budget()) == []
                await asyncio.sleep(0.2)
                before = listener.connections
                await asyncio.gather(*(fetch(one, leaf, budget()) for leaf in leaves))
                assert listener.connections == before + 1

        run(test)
    assert len(log()) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answered nonsense"),
        (b"+OK\r\n", ""),
        (b":1\r\n", "refused the user or the password"),
        (b"\x00\xff\xfe" * 50 + b"\r\n", "answered nonsense"),
        (b"-ERR unknown command AUTH me opensesame\r\n", ""),
        (b"*1000000000\r\n", "gave no answer in time"),
        (b"*1\r\n" * 100_000, ""),
    ],
)
def test_nonsense(log: Callable[[], list[str]], answer: bytes, outcome: str) -> None:
    """Whatever it says, one warning names it, and never quotes it."""
    with answering(answer) as listener:

        async def test() -> None:
            async with nodes(url(listener), 1, patience=1.0) as (one,):
                assert await fetch(one, LEAF, budget()) == []
                assert await fetch(one, LEAF, budget()) == []
                one.keep(FOUND)

        run(test)
    (told,) = log()
    assert told.startswith(f"WARNING The cache redis://127.0.0.1:{listener.port}/0 {outcome}")


@pytest.mark.parametrize(
    "answer", [None, b"OK", [], [1], [1, 2], [b"1", []], [1, [b"value"]], [1, [], []]]
)
def test_answers_of_no_script_of_ours(answer: object) -> None:
    """A server that speaks the protocol may still be something else."""
    with pytest.raises(ValueError, match="not an answer"):
        read_answer(answer)
    with pytest.raises(ValueError, match="not an answer"):
        read_number(answer)
    assert read_answer([1, [b"value", 5]]) == (1, [])


def test_a_wrong_password(log: Callable[[], list[str]]) -> None:
    """Is named as such, and not shown."""
    with RedisServer(password="right") as server:

        async def test() -> None:
            for wrong in ("opensesame", ""):
                async with nodes(server.url_for(wrong), 1) as (one,):
                    assert await fetch(one, LEAF, budget()) == []

        run(test)
        name = f"WARNING The cache redis://127.0.0.1:{server.port}/0"
        assert log() == [f"{name} refused the user or the password; going on without it"] * 2


def test_a_server_that_takes_nothing(
    server: RedisServer, client: "redis.Redis", log: Callable[[], list[str]]
) -> None:
    """A full or read-only Redis is still asked; that it keeps nothing is logged once."""

    async def test() -> None:
        async with nodes(server.url, 2) as (one, other):
            one.keep(FOUND)
            await until(lambda: not one._tasks)
            client.config_set("maxmemory", "1")
            try:
                fresh = ROOT.issue("Fresh", ca=True)
                spend = budget()
                assert await fetch(other, fresh.issue(aia=[URL]), spend) == []
                assert not spend.when_done
                for _ in range(3):
                    other.keep([Found(certificate(fresh), URL)])
                    await until(lambda: not other._tasks)
                assert await fetch(other, LEAF, budget())
            finally:
                client.config_set("maxmemory", "0")
            other.keep([Found(certificate(fresh), URL)])
            await until(lambda: not other._tasks)
            assert client.exists(key_of(fresh))

    run(test)
    (told,) = log()
    assert "answered with an error (OutOfMemoryError)" in told


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\n",
        b"5 9999999999 origin\n" + b"not a certificate",
        b"5 9999999999 origin\n" + ISSUER.der[:-1],
        b"5 9999999999 origin\n" + ISSUER.der + b"\0",
        b"x 9999999999 origin\n" + ISSUER.der,
        b"5 x origin\n" + ISSUER.der,
        b"9" * 400 + b" 9999999999 origin\n" + ISSUER.der,
        b"9" * 5000 + b" 9999999999 origin\n" + ISSUER.der,
        b"5 9999999999 \xff\xfe\n" + ISSUER.der,
        b"5 9999999999 origin\n" + ROOT.issue("Of another name", ca=True).der,
        b"5 9999999999 " + b"x" * 70_000 + b"\n" + ISSUER.der,
    ],
    ids=range(12),
)
def test_a_value_that_is_no_certificate(
    server: RedisServer, client: "redis.Redis", value: bytes, log: Callable[[], list[str]]
) -> None:
    """It is passed over, and what is sound beside it is found."""
    twin = ROOT.issue("Issuer", ca=True)

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            client.hset(key_of(ISSUER), FIELD, value)
            client.hset(key_of(ISSUER), "a" * 64, b"\xff" * 100)
            client.hset(key_of(ISSUER), "odd", b"")
            assert await fetch(one, LEAF, budget()) == []
            one.keep([Found(certificate(twin), URL)])
            await until(lambda: not one._tasks)
            (attempt,) = await fetch(one, LEAF, budget())
            assert [item.certificate for item in attempt.found] == [certificate(twin)]

    run(test)
    assert log() == []


@pytest.mark.parametrize("what", ["a string", "a list", "too many fields", "a damaged value"])
def test_what_is_in_the_way_is_replaced(
    server: RedisServer, client: "redis.Redis", what: str, log: Callable[[], list[str]]
) -> None:
    """A key of ours that cannot be from us is found empty, and mended by the next write."""

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            if what == "a string":
                client.set(key_of(ISSUER), "x")
            elif what == "a list":
                client.lpush(key_of(ISSUER), "x")
            elif what == "too many fields":
                client.hset(key_of(ISSUER), mapping={str(n): "x" for n in range(1000)})
                client.hset(key_of(ISSUER), FIELD, b"5 9999999999 origin\n" + ISSUER.der)
            else:
                client.hset(key_of(ISSUER), FIELD, b"5 9999999999 origin\n" + b"x")
                client.hset(key_of(ISSUER), FIELD + ":used", b"x")
            assert await fetch(one, LEAF, budget(downloads=0)) == []
            one.keep(FOUND)
            await until(lambda: not one._tasks)
            (attempt,) = await fetch(one, LEAF, budget())
            assert attempt.found[0].certificate == certificate(ISSUER)

    run(test)
    assert log() == []


def test_a_lease_of_another_type(server: RedisServer, client: "redis.Redis") -> None:
    """Who finds one waits as for any other, and goes on."""

    async def test() -> None:
        async with nodes(server.url, 1, lease=0.3) as (one,):
            client.lpush(lease_of(ISSUER), "x")
            assert await fetch(one, LEAF, budget()) == []

    run(test)


def test_a_held_up_event_loop(
    server: RedisServer, client: "redis.Redis", log: Callable[[], list[str]]
) -> None:
    """An answer that came while the proxy was busy with other things counts as in time."""

    async def test() -> None:
        async with nodes(server.url, 1, patience=0.5) as (one,):
            one.keep(FOUND)
            await until(lambda: not one._tasks)
            question = asyncio.create_task(fetch(one, LEAF, budget()))
            for _ in range(4):
                await asyncio.sleep(0)
                time.sleep(0.3)  # noqa: ASYNC251  it is the point
            assert await question
            assert evaluations(client)

    run(test)
    assert log() == []
