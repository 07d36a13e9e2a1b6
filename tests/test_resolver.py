"""Name lookups in threads of our own, and downloads by name."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from mitmproxy_aia.sources.aia import NotTried
from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.resolver import Resolver, TooManyLookups
from tests.lab import CaIssuersServer, Issued, dead_url
from tests.test_download import HERE, PATIENT, get, why_not


class Names:
    """Stands in for getaddrinfo for names in .test; those that begin with "slow" do not answer
    until the gate is open."""

    def __init__(self) -> None:
        self.real = socket.getaddrinfo
        self.addresses = {"known.test": ["127.0.0.1"]}
        self.gate = threading.Event()
        self.waiting = 0

    def __call__(self, host: str, port: object, *args: Any, **kwargs: Any) -> list[Any]:
        if not host.endswith(".test"):
            return self.real(host, port, *args, **kwargs)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("limit", [{"limit": 1}, {"of_a_site": 1}], ids=["all", "of a domain"])
def test_number_of_lookups(names: Names, limit: dict[str, int]) -> None:
    """A lookup that nobody waits for any more still counts, until its thread is back."""

    async def main() -> None:
        resolve = Resolver(**limit)
        slow = asyncio.ensure_future(resolve("slow.known.test"))
        await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(TooManyLookups, match="too many names are being looked up"):
            await resolve("known.test")
        names.gate.set()
        while resolve._under_way:  # noqa: ASYNC110 -- a thread ends it
            await asyncio.sleep(0.001)
        assert await resolve("known.test") == ["127.0.0.1"]

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


def test_too_many_lookups_say_nothing_of_a_url(names: Names) -> None:
    """The download was not tried, and that is not remembered."""

    async def main() -> None:
        downloader = Downloader(lambda: PATIENT)
        slow = [asyncio.ensure_future(downloader("http://slow.test/", HERE)) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(NotTried, match=r"^was not tried \(too many names"):
            await downloader("http://slow.test/", HERE)
        names.gate.set()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_lookups_of_other_domains(names: Names) -> None:
    """A domain whose name servers hang uses up its own share only."""

    async def main() -> None:
        resolve = Resolver(of_a_site=2)
        slow = [asyncio.ensure_future(resolve(f"slow{each}.hanging.test")) for each in range(9)]
        await asyncio.sleep(0)
        assert await resolve("known.test") == ["127.0.0.1"]
        names.gate.set()
        failures = await asyncio.gather(*slow, return_exceptions=True)
        assert [type(each) for each in failures].count(TooManyLookups) == 7

    asyncio.run(main())
