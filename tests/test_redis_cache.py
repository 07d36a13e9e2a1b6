"""The Redis cache from the command line: the same records, blocking, and plain errors."""

import dataclasses
import datetime
import itertools
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from mitmproxy_aia.cache import Cache, CacheError, Entry
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.redis_cache import RedisCache
from tests.lab import Issued, dead_url
from tests.lab.redis_server import RedisServer
from tests.redis_nodes import ROOT, URL, budget, certificate, fetch, key_of, nodes, run, until

THEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
LATER = THEN + datetime.timedelta(days=1)


def entry(issued: Issued, origin: str = URL, last_used: datetime.datetime = THEN) -> Entry:
    return Entry(certificate(issued), origin, THEN, last_used)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(password="opensesame") as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def cache(server: RedisServer, client: "redis.Redis") -> Iterator[Cache]:
    cache = RedisCache(server.url)
    yield cache
    cache.close()


def test_the_name(server: RedisServer, cache: Cache) -> None:
    """Is the URL without its password."""
    assert cache.name == f"redis://127.0.0.1:{server.port}/0"
    assert repr(cache) == f"RedisCache({cache.name})"


def test_what_was_added_is_listed(cache: Cache) -> None:
    """As it was, all of it, in the order of the subjects."""
    entries = [entry(ROOT.issue(f"CA {number:03}", ca=True)) for number in range(250)]
    twins = [entry(ROOT.issue("CA 100", ca=True)) for _ in range(3)]
    assert list(cache.entries()) == []
    assert cache.add(itertools.chain(reversed(entries), twins)) == 253
    listed = list(cache.entries())
    assert [each.certificate.subject for each in listed] == sorted(
        each.certificate.subject for each in [*entries, *twins]
    )
    key = dataclasses.astuple
    assert sorted(map(key, listed), key=str) == sorted(map(key, [*entries, *twins]), key=str)


def test_adding_again(cache: Cache) -> None:
    """Moves the last use, only forwards, and changes nothing else."""
    issuer = ROOT.issue("Again", ca=True)
    assert cache.add([entry(issuer)]) == 1
    again = dataclasses.replace(entry(issuer, "other", LATER), first_used=LATER)
    assert cache.add([again]) == 0
    assert cache.add([entry(issuer)]) == 0
    assert list(cache.entries()) == [entry(issuer, URL, LATER)]


def test_all_or_none_are_added(cache: Cache) -> None:
    """What comes from a file that breaks off is not added at all, and the error is its own."""

    def broken() -> Iterator[Entry]:
        for number in range(150):
            yield entry(ROOT.issue(f"CA {number}", ca=True))
        raise ValueError("line 151")

    with pytest.raises(ValueError, match="line 151"):
        cache.add(broken())
    assert list(cache.entries()) == []
    assert cache.add([]) == 0


def test_expired_or_huge_ones_are_not_added(cache: Cache) -> None:
    """They could not be found again."""
    expired = entry(ROOT.issue("Expired", ca=True, expired=True))
    huge = entry(ROOT.issue("Huge", ca=True, hosts=["a" * 60 + ".example"] * 1_000))
    assert cache.add([expired, huge]) == 0
    assert list(cache.entries()) == []


def test_removing(cache: Cache, client: "redis.Redis") -> None:
    """By fingerprint; a subject of which nothing is left leaves no key."""
    one, two, other = (ROOT.issue(name, ca=True) for name in ("Twin", "Twin", "Other"))
    cache.add(map(entry, (one, two, other)))
    gone = [certificate(each).fingerprint for each in (one, other)]
    assert cache.remove([*gone, b"x" * 32]) == 2
    assert list(cache.entries()) == [entry(two)]
    assert cache.remove(gone) == 0
    assert cache.remove([certificate(two).fingerprint]) == 1
    assert client.dbsize() == 0


def test_clearing_takes_only_what_is_ours(cache: Cache, client: "redis.Redis") -> None:
    """Leases and keys of a wrong type too, but none without our prefix."""
    cache.add(entry(ROOT.issue(name, ca=True)) for name in ("A", "B", "B"))
    client.set("mitmproxy-aia:1:lease:x", "token")
    client.set("mitmproxy-aia:1:issuers:x", "text")
    client.set("mitmproxy-aia:2:issuers:x", "of a later version")
    client.set("of others", "x")
    assert cache.clear() == 3
    assert sorted(client.keys()) == [b"mitmproxy-aia:2:issuers:x", b"of others"]
    assert cache.clear() == 0


def test_pruning(cache: Cache, client: "redis.Redis") -> None:
    """What has expired goes, and what is valid beside it stays."""
    day, start = datetime.timedelta(days=1), THEN.now(datetime.UTC).replace(microsecond=0)
    short = ROOT.issue("Twin", ca=True, valid=(start - day, start + day))
    long = ROOT.issue("Twin", ca=True, valid=(start - day, start + 50 * day))
    cache.add(map(entry, (short, long)))
    assert cache.prune(start) == 0
    assert cache.prune(start + 2 * day) == 1
    assert list(cache.entries()) == [entry(long)]
    assert client.hlen(key_of(long)) == 2


def test_nodes_and_command_line_share_records(server: RedisServer, cache: Cache) -> None:
    """What one adds the other finds, in both directions."""
    given, met = ROOT.issue("Given", ca=True), ROOT.issue("Met", ca=True)
    cache.add([entry(given, "bundle.pem")])

    async def test() -> None:
        async with nodes(server.url, 1) as (one,):
            (attempt,) = await fetch(one, given.issue(), budget())
            assert attempt.found[0].origin == "bundle.pem"
            one.keep([Found(certificate(met), URL)])
            await until(lambda: not one._tasks)

    before = int(time.time())
    run(test)
    _, listed = cache.entries()
    assert (listed.certificate, listed.origin) == (certificate(met), URL)
    assert listed.first_used == listed.last_used
    assert before <= listed.first_used.timestamp() <= time.time()


def test_nonsense_is_passed_over(cache: Cache, client: "redis.Redis") -> None:
    """Damaged values and keys of a wrong type are not listed and not counted."""
    issuer = ROOT.issue("Sound", ca=True)
    cache.add([entry(issuer)])
    client.hset(key_of(issuer), "a" * 64, b"\xff")
    client.set("mitmproxy-aia:1:issuers:x", "text")
    assert list(cache.entries()) == [entry(issuer)]
    assert cache.prune(THEN) == 0
    assert cache.remove([b"\xaa" * 32]) == 1
    assert cache.remove([b"\xbb" * 32]) == 0


ACTIONS: dict[str, Callable[[Cache], object]] = {
    "entries": lambda cache: list(cache.entries()),
    "add": lambda cache: cache.add([entry(ROOT)]),
    "remove": lambda cache: cache.remove([b"x"]),
    "clear": lambda cache: cache.clear(),
    "prune": lambda cache: cache.prune(THEN),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_errors_are_one_sentence(server: RedisServer, action: str) -> None:
    """That names the cache and what is wrong, without the password."""
    dead = dead_url("/0").replace("http://", "redis://:wrongsesame@")
    wrong = server.url_for("wrongsesame")
    for url, what in (
        (dead, "cannot be reached (Connection refused)"),
        (wrong, "refused the user or the"),
    ):
        cache = RedisCache(url)
        with pytest.raises(CacheError) as caught:
            ACTIONS[action](cache)
        assert str(caught.value).startswith("the cache redis://127.0.0.1:")
        assert what in str(caught.value)
        assert "wrongsesame" not in str(caught.value)
        cache.close()


def test_a_user_who_may_not(server: RedisServer, client: "redis.Redis", cache: Cache) -> None:
    """That is said, and not taken for an empty cache."""
    cache.add([entry(ROOT)])
    client.acl_setuser("me", enabled=True, passwords=["+x"], commands=["+scan"], keys=["*"])
    limited = RedisCache(f"redis://me:x@127.0.0.1:{server.port}/0")
    for action in ("entries", "remove"):
        with pytest.raises(CacheError, match=r"answered with an error \(NoPermissionError\)"):
            ACTIONS[action](limited)
    limited.close()


def test_a_bad_url() -> None:
    """Is a ValueError before anything is connected."""
    with pytest.raises(ValueError, match="begins with redis://"):
        RedisCache("memcached://host")
