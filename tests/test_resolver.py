"""Name lookups in threads of our own, and downloads by name."""

import asyncio
import errno
import gc
import resource
import socket
import threading
from typing import Any

import pytest

from mitmproxy_aia.egress import Proxy, Server
from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.download_errors import (
    BRIEFLY,
    FAILURE_REMEMBERED,
    DownloadError,
    NotTried,
    UsedUp,
)
from mitmproxy_aia.sources.resolver import (
    MAX_LOOKUPS_OF_A_SITE,
    MAX_WAITING,
    Resolver,
    TooManyLookups,
)
from tests.lab import CaIssuersServer, Issued, dead_url
from tests.test_download import HERE, PATIENT, get, why_not

BRIEF = 0.05


class Names:
    """Stands in for getaddrinfo for names in .test; those that begin with "slow" do not answer
    until the gate is open."""

    def __init__(self) -> None:
        self.real = socket.getaddrinfo
        self.addresses = {"known.test": ["127.0.0.1"]}
        self.gate = threading.Event()
        self.waiting = 0
        self.gates: dict[str, threading.Event] = {}
        self.asked: list[str] = []

    def __call__(self, host: str, port: object, *args: Any, **kwargs: Any) -> list[Any]:
        if not host.endswith(".test"):
            return self.real(host, port, *args, **kwargs)  # type: ignore[arg-type]
        self.asked.append(host)
        if host in self.gates:
            self.gates[host].wait(PATIENT)
        if host.startswith("slow"):
            self.waiting += 1
            self.gate.wait(PATIENT)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(2, 1, 6, "", (address, 0)) for address in self.addresses[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


def test_addresses(names: Names) -> None:
    """In the order of the name service, each once."""
    names.addresses = {"twice.test": ["::1", "127.0.0.1", "::1"]}
    assert asyncio.run(Resolver()("twice.test")) == ["::1", "127.0.0.1"]


def test_unknown_name(names: Names) -> None:
    """The error is that of the name service."""
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        asyncio.run(Resolver()("unknown.test"))


def test_name_that_is_none() -> None:
    """What cannot be encoded as a host name is an OSError as well."""
    with pytest.raises(OSError, match=r".+"):
        asyncio.run(Resolver()("a" * 70 + ".test"))


def test_slow_names_stop_nobody_else(names: Names) -> None:
    """While lookups hang, asyncio's own pool of threads is free and other names resolve."""

    async def main() -> None:
        resolve = Resolver()
        slow = [asyncio.ensure_future(resolve(f"slow{number}.test")) for number in range(40)]
        assert await resolve("known.test") == ["127.0.0.1"]
        assert await asyncio.get_running_loop().run_in_executor(None, lambda: "free") == "free"
        assert names.waiting == 40
        names.gate.set()
        failures = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(failure) for failure in failures} == {socket.gaierror}

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["limit", "of_a_site", "of_a_payer"])
def test_number_of_lookups(names: Names, limit: str) -> None:
    """A lookup that nobody waits for any more still counts, until its thread is back. The user has
    no limits."""

    async def main() -> None:
        resolve = Resolver(**{limit: 1})
        slow = asyncio.ensure_future(resolve("slow.known.test", "payer"))
        await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(TooManyLookups, match="too many names are being looked up"):
            await resolve("known.test", "payer", BRIEF)
        assert await resolve("known.test") == ["127.0.0.1"]
        names.gate.set()
        while resolve._under_way:  # noqa: ASYNC110 -- a thread ends it
            await asyncio.sleep(0.001)
        assert await resolve("known.test", "payer") == ["127.0.0.1"]

    asyncio.run(main())


def test_answer_after_the_end_of_the_loop(names: Names) -> None:
    """A thread that comes back too late does no harm."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Resolver()("slow.test")

    asyncio.run(main())
    lookups = [each for each in threading.enumerate() if each.name.startswith("aia lookup")]
    assert [each.daemon for each in lookups] == [True]
    names.gate.set()
    for each in lookups:
        each.join(PATIENT)


def test_download_by_name(names: Names, root: Issued) -> None:
    """The server learns which name it was asked for, and the next address is tried if the
    first cannot be reached."""
    names.addresses = {"ca.test": ["127.0.0.2", "127.0.0.1"]}
    with CaIssuersServer() as ca:
        ca.serve("/ca.der", root.der)
        assert get(ca.url("/ca.der", host="ca.test")) == ["CN=Lab Root"]
        assert ca.requests[-1].headers["Host"] == f"ca.test:{ca.port}"


def test_download_from_a_name_without_an_answer(names: Names) -> None:
    """Each in words: no such name, no address, no address that can be reached."""
    names.addresses = {"empty.test": [], "dead.test": ["127.0.0.1"]}
    assert why_not("http://no.test/") == "could not be reached (Name or service not known)"
    assert why_not("http://empty.test/") == "has a host without an address"
    dead = dead_url("/").replace("127.0.0.1", "dead.test")
    assert why_not(dead) == "could not be reached (Connection refused)"


def test_no_files_left() -> None:
    """The C library says that there is no such name then. It is not to be believed."""

    async def main() -> None:
        resolve, downloader = Resolver(), Downloader(lambda: PATIENT)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(OSError, match="Too many open files") as error:
                await resolve("no-such-name.invalid")
            assert error.value.errno == errno.EMFILE
            with pytest.raises(NotTried, match=r"^was not tried \(could .*Too many open"):
                await downloader("http://no-such-name.invalid/", HERE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "remembered"),
    [
        (socket.EAI_NONAME, FAILURE_REMEMBERED),
        (socket.EAI_AGAIN, BRIEFLY),
        (socket.EAI_MEMORY, BRIEFLY),
    ],
)
def test_how_long_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch, code: int, remembered: float
) -> None:
    """What may be over in a moment is not held against a URL for a minute."""

    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(code, "in words")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DownloadError) as error:
        get("http://ca.test/")
    assert str(error.value) == "could not be reached (in words)"
    assert error.value.remembered == remembered


def test_name_servers_that_do_not_answer(names: Names) -> None:
    """That may be our own network's fault, and is remembered briefly. Of a proxy's name it says
    nothing of the URL."""
    for host, server, words in (
        ("slow.test", HERE, "could not be reached (no name server has answered in 0.09 s)"),
        (
            "ca.example",
            Server("a", proxy=Proxy("http", "slow.test", 1)),
            "was not tried (the proxy could not be reached (no name server has answered in "
            "0.09 s); aia_proxy)",
        ),
    ):
        with pytest.raises(DownloadError) as error:
            get(f"http://{host}/", timeout=0.1, server=server)
        assert str(error.value) == words
        assert error.value.remembered == (BRIEFLY if server is HERE else 0.0)
    names.gate.set()


def test_too_many_lookups_say_nothing_of_a_url(names: Names) -> None:
    """The download was not tried, and that is not remembered."""

    async def main() -> None:
        timeout = PATIENT
        downloader = Downloader(lambda: timeout)
        slow = [
            asyncio.ensure_future(downloader(f"http://slow{each}.a.test/", HERE))
            for each in range(MAX_LOOKUPS_OF_A_SITE)
        ]
        await asyncio.sleep(0)
        timeout = 1.0
        with pytest.raises(UsedUp, match=r"^was not tried \(too many names"):
            await downloader("http://b.a.test/", HERE)
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_lookups_of_other_domains(names: Names) -> None:
    """A domain whose name servers hang uses up its own share only."""

    async def main() -> None:
        resolve = Resolver(of_a_site=2)
        hosts = [f"slow{each}.hanging.test" for each in range(9)]
        slow = [asyncio.ensure_future(resolve(host, 1, BRIEF)) for host in hosts]
        await asyncio.sleep(0)
        assert await resolve("known.test", 1) == ["127.0.0.1"]
        failures = await asyncio.gather(*slow[2:], return_exceptions=True)
        assert {type(each) for each in failures} == {TooManyLookups}
        assert not any(each.done() for each in slow[:2])
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_lookups_of_other_payers(names: Names) -> None:
    """They outlive the downloads, and who has many hanging uses up his own share only."""

    async def main() -> None:
        resolve = Resolver(of_a_payer=2)
        hosts = [f"slow.{each}.test" for each in range(9)]
        slow = [asyncio.ensure_future(resolve(host, "one", BRIEF)) for host in hosts]
        await asyncio.sleep(0)
        assert await resolve("known.test", "other") == ["127.0.0.1"]
        failures = await asyncio.gather(*slow[2:], return_exceptions=True)
        assert {type(each) for each in failures} == {TooManyLookups}
        assert not any(each.done() for each in slow[:2])
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)


def test_turns(names: Names) -> None:
    """Who finds all lookups in use has his turn when one ends, before those who have had some."""

    async def main() -> None:
        resolve = Resolver(limit=2)
        slow = [asyncio.ensure_future(resolve(f"slow.{each}.test", "one")) for each in range(9)]
        await asyncio.sleep(0)
        late = asyncio.ensure_future(resolve("known.test", "late"))
        await asyncio.sleep(0)
        names.gate.set()
        assert await late == ["127.0.0.1"]
        assert not all(each.done() for each in slow)
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_one_turn_for_one_name(names: Names) -> None:
    """Those who want the same name wait in line together, and look it up once, on the account of
    whoever has room."""

    async def main() -> None:
        resolve = Resolver(limit=99, of_a_payer=1)
        slow = [asyncio.ensure_future(resolve(f"slow.{each}.test", each)) for each in (1, 2)]
        await asyncio.sleep(0)
        same = [asyncio.ensure_future(resolve("known.test", each)) for each in (1, 2, 1)]
        brief = asyncio.ensure_future(resolve("known.test", 1, BRIEF))
        with pytest.raises(TooManyLookups):
            await brief
        same[0].cancel()
        await asyncio.sleep(0)
        assert "known.test" not in names.asked
        # Somebody comes who has room.
        assert await resolve("known.test", 3) == ["127.0.0.1"]
        assert await asyncio.gather(*same[1:]) == [["127.0.0.1"]] * 2
        assert names.asked.count("known.test") == 1
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)
        await asyncio.sleep(0)
        assert (resolve._in_line, resolve._slots._free) == ({}, 99)

    asyncio.run(main())


Lookup = asyncio.Future[list[str]]


async def two_in_line() -> tuple[Resolver, Lookup, list[Lookup]]:
    """All places are taken by one who hangs, and two wait to look the same name up."""
    resolve = Resolver(limit=1)
    slow = asyncio.ensure_future(resolve("slow.test", 1))
    await asyncio.sleep(0)
    same = [asyncio.ensure_future(resolve("known.test", each)) for each in (1, 2)]
    await asyncio.sleep(0)
    return resolve, slow, [*same]


def test_nobody_waits_any_more(names: Names) -> None:
    """The place in line is given up with the last who waits for it."""

    async def main() -> None:
        resolve, slow, same = await two_in_line()
        for each in same:
            each.cancel()
        await asyncio.gather(*same, return_exceptions=True)
        names.gate.set()
        await asyncio.gather(slow, return_exceptions=True)
        assert (resolve._in_line, resolve._slots._free, names.asked) == ({}, 1, ["slow.test"])

    asyncio.run(main())


def test_turn_that_came_to_nothing(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited for the same name does not look it up without a place."""

    async def main() -> None:
        resolve, slow, same = await two_in_line()

        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        names.gate.set()
        came = await asyncio.gather(slow, *same, return_exceptions=True)
        assert [*map(type, came[1:])] == [RuntimeError, TooManyLookups]
        assert (resolve._in_line, resolve._slots._free) == ({}, 1)

    asyncio.run(main())


def test_turn_that_is_not_needed(names: Names) -> None:
    """While he waited the user has begun to look the same name up: he waits for that, and somebody
    else has his turn."""
    names.gates = {host: threading.Event() for host in ("a.test", "c.test")}
    names.addresses |= {host: ["127.0.0.1"] for host in names.gates}

    async def main() -> None:
        resolve = Resolver(limit=1)
        first = asyncio.ensure_future(resolve("a.test", 1))
        await asyncio.sleep(0)
        late = asyncio.ensure_future(resolve("c.test", 2))
        await asyncio.sleep(0)
        user = asyncio.ensure_future(resolve("c.test"))
        await asyncio.sleep(0)
        names.gates["a.test"].set()
        await first
        assert await resolve("known.test", 3, 1.0) == ["127.0.0.1"]
        names.gates["c.test"].set()
        assert [await user, await late] == [["127.0.0.1"]] * 2
        assert names.asked.count("c.test") == 1

    asyncio.run(main())


def test_too_many_wait(names: Names) -> None:
    """Who has too many waiting is sent away at once."""

    async def main() -> None:
        resolve = Resolver(limit=1)
        number = 1 + MAX_WAITING
        slow = [asyncio.ensure_future(resolve(f"slow.{each}.test", 1)) for each in range(number)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyLookups):
            await resolve("known.test", 1)
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_each_server_pays_for_its_own(names: Names) -> None:
    """Downloads say for whom a name is looked up. That of a proxy is the user's."""

    async def main() -> None:
        downloader = Downloader(lambda: PATIENT)
        asked = list[tuple[str, object]]()
        resolve = downloader._resolve

        async def noted(host: str, payer: object, patience: float) -> list[str]:
            asked.append((host, payer))
            return await resolve(host, payer, patience)

        downloader._resolve = noted  # type: ignore[assignment] # as Resolver is called
        proxied = Server("a", proxy=Proxy("http", "none.test", 1))
        for server in HERE, proxied:
            with pytest.raises(DownloadError):
                await downloader("http://ca.none.test/", server)
        assert asked == [("ca.none.test", HERE.group), ("none.test", None)]

    asyncio.run(main())


def test_shared_lookups(names: Names) -> None:
    """Who asks for a name that is being looked up waits for that, and it counts once. One who does
    not wait any more takes it from nobody."""
    names.addresses["slow.test"] = ["127.0.0.1"]

    async def main() -> None:
        resolve = Resolver(limit=1)
        askers = [asyncio.ensure_future(resolve("slow.test", each)) for each in range(9)]
        await asyncio.sleep(0)
        askers[0].cancel()
        await asyncio.sleep(0)
        names.gate.set()
        cancelled, *answers = await asyncio.gather(*askers, return_exceptions=True)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert answers == [["127.0.0.1"]] * 8
        assert names.waiting == 1
        assert not resolve._under_way
        assert await resolve("known.test", 1) == ["127.0.0.1"]

    asyncio.run(main())


def test_failure_that_nobody_waits_for(names: Names, caplog: pytest.LogCaptureFixture) -> None:
    """It is no traceback in the log."""

    async def main() -> None:
        resolve = Resolver()
        asker = asyncio.ensure_future(resolve("slow.unknown.test", 1))
        await asyncio.sleep(0)
        asker.cancel()
        names.gate.set()
        while resolve._under_way:  # noqa: ASYNC110 -- a thread ends it
            await asyncio.sleep(0.001)

    asyncio.run(main())
    gc.collect()
    assert not caplog.records
