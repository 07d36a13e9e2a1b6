"""What a hostile caIssuers server or a hostile server may cost: each limit, and what is beyond."""

import asyncio
import gc
import gzip
import itertools
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address

import httpx
import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import GRACE, Completion, Outcome
from mitmproxy_aia.egress import NOBODY, Server
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.limits import MAX_URL, Limits
from mitmproxy_aia.sources import aia, download_errors
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.download import MAX_BODY, Downloader
from mitmproxy_aia.sources.download_errors import DownloadError, Uncertain, UsedUp
from mitmproxy_aia.sources.resolver import MAX_LOOKUPS, Resolver
from mitmproxy_aia.sources.urls import parsed
from tests.lab import CaIssuersServer, Issued, pkcs7_der
from tests.lab.listener import Listener
from tests.test_aia_source import run
from tests.test_completion import certificates, verifier_for
from tests.test_download import HERE, PATIENT, get, why_not
from tests.test_download_faults import answer, why_not_from

MIB = 2**20
BRIEF = 0.3


@pytest.fixture(scope="module")
def ca() -> Iterator[CaIssuersServer]:
    with CaIssuersServer() as server:
        yield server


def completed(
    leaf: Issued, root: Issued, source: AiaSource, limits: Limits | None = None
) -> Outcome:
    return asyncio.run(completing(leaf, root, source, limits))


async def completing(
    leaf: Issued,
    root: Issued,
    source: AiaSource,
    limits: Limits | None = None,
    server: Server = HERE,
) -> Outcome:
    completion = Completion(
        certificates(leaf),
        verifier_for(root),
        [source],
        limits or Limits(seconds=PATIENT),
        lambda: server,
    )
    outcome = completion.complete_at_once()
    return outcome if outcome.verified else await completion.complete()


# What a caIssuers server may say.


def reset(connection: socket.socket) -> None:
    connection.recv(4096)
    # No FIN but RST, whatever is still to be read.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()


def until_it_is_gone(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(start: bytes) -> Callable[[socket.socket], None]:
    """`start` at once, and then a byte whenever the other side may have lost patience."""

    def say(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)

    return say


def then_silence(start: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        answer(start)(connection)
        until_it_is_gone(connection)

    return say


OK = b"HTTP/1.1 200 OK\r\n"
NOT_IN_TIME: dict[str, Callable[[socket.socket], None]] = {
    "hangs before the status line": until_it_is_gone,
    "drips its status line": drip(b"HTTP/1.1 200 "),
    "drips its head": drip(OK + b"X-Head: "),
    "drips its body": drip(OK + b"\r\n"),
    "drips chunks": drip(OK + b"Transfer-Encoding: chunked\r\n\r\nfff\r\n"),
    "promises more than it sends": then_silence(OK + b"Content-Length: 999\r\n\r\n0"),
    "says 100 Continue": then_silence(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("what", NOT_IN_TIME)
def test_not_in_time(what: str) -> None:
    """The time limit is for all of a download: a byte now and then does not extend it."""
    server = Listener(NOT_IN_TIME[what])
    try:
        assert why_not(f"http://127.0.0.1:{server.port}/", timeout=BRIEF) == (
            f"gave no answer in {BRIEF:g} s"
        )
    finally:
        server.close()


AT_ONCE: dict[str, tuple[Callable[[socket.socket], None], str | tuple[str, ...]]] = {
    "resets": (reset, ("broke off", "could not be reached (Connection reset")),
    "speaks SSH": (answer(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "does not speak HTTP"),
    "ends after a line of SSH": (answer(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "broke off"),
    "speaks TLS": (answer(b"\x15\x03\x01\x00\x02\x02\x46"), "does not speak HTTP"),
    "a header of a megabyte": (
        answer(OK + b"X: ", b"x" * MIB, b"\r\n\r\n"),
        "does not speak HTTP",
    ),
    "a megabyte of headers": (
        answer(OK, *[b"X: " + b"x" * 1000 + b"\r\n"] * 1000),
        "does not speak HTTP",
    ),
    "a status line of a megabyte": (answer(b"HTTP/1.1 200 " + b"x" * MIB), "does not speak HTTP"),
    "100 Continue a thousand times": (
        answer(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        ("broke off", "is larger"),
    ),
    "less than it promises": (answer(OK + b"Content-Length: 9\r\n\r\n0"), "broke off"),
    "a negative length": (answer(OK + b"Content-Length: -1\r\n\r\n0"), "does not speak HTTP"),
    "a length that is none": (answer(OK + b"Content-Length: a\r\n\r\n0"), "does not speak HTTP"),
    "two lengths": (
        answer(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n00"),
        "does not speak HTTP",
    ),
    "a length of a terabyte": (
        answer(OK + b"Content-Length: 1099511627776\r\n\r\n", *[bytes(65536)] * 100),
        "is larger than 64 KiB",
    ),
    "a chunk of a terabyte": (
        answer(OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000\r\n", *[bytes(65536)] * 100),
        "is larger than 64 KiB",
    ),
    "a chunk size without end": (
        answer(OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"0" * 65536] * 100),
        "does not speak HTTP",
    ),
    "a compressed bomb": (
        answer(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(10 * MIB))),
        "sent gzip data, which was not asked for",
    ),
    "a bomb that hides": (
        answer(OK + b"\r\n", gzip.compress(bytes(10 * MIB))),
        "is not a certificate",
    ),
    "many fields": (answer(OK + b"a:\r\n" * 25_000 + b"\r\n"), "does not speak HTTP"),
    "many fields after the body": (
        answer(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 25_000 + b"\r\n"),
        "does not speak HTTP",
    ),
    "many chunks": (
        answer(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40_000),
        "does not speak HTTP (more than",
    ),
    "a redirect to a long URL": (
        answer(b"HTTP/1.1 302 Found\r\nLocation: /" + b"a" * 5_000 + b"\r\n\r\n"),
        f"redirects to what is no URL (longer than {MAX_URL} characters)",
    ),
    "a redirect to a URL that is long when written in ASCII": (
        answer(b"HTTP/1.1 302 Found\r\nLocation: /" + "é".encode() * 700 + b"\r\n\r\n"),
        f"redirects to what is no URL (longer than {MAX_URL} characters)",
    ),
    "a compressed transfer": (
        answer(OK + b"Transfer-Encoding: gzip\r\n\r\n", gzip.compress(bytes(MIB))),
        "does not speak HTTP",
    ),
}


@pytest.mark.parametrize("what", AT_ONCE)
def test_at_once(what: str) -> None:
    """What cannot become a certificate any more is given up when that is seen, and in words."""
    handle, reason = AT_ONCE[what]
    said = why_not_from(handle)
    assert said.startswith(reason), said
    assert said.isprintable()
    assert len(said) < 500


def test_more_than_it_promises(root: Issued) -> None:
    """What comes after the promised length is not part of the answer."""
    length = b"Content-Length: %d\r\n\r\n" % len(root.der)
    server = Listener(answer(OK + length + root.der, b"x" * 1000))
    try:
        assert get(f"http://127.0.0.1:{server.port}/") == ["CN=Lab Root"]
    finally:
        server.close()


@pytest.mark.parametrize("what", ["a header of a megabyte", "a length of a terabyte", "endless"])
def test_memory_of_a_download(what: str) -> None:
    """What is refused is not collected first."""
    endless = answer(OK + b"\r\n", *[bytes(65536)] * 1000)
    handle = AT_ONCE[what][0] if what in AT_ONCE else endless
    server = Listener(handle)
    url = f"http://127.0.0.1:{server.port}/"

    async def main() -> int:
        downloader = Downloader(lambda: PATIENT)
        with pytest.raises(DownloadError):
            await downloader(url, HERE)
        tracemalloc.start()
        try:
            with pytest.raises(DownloadError):
                await downloader(url, HERE)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    try:
        # The server is in this process, too, but what it sends was there before.
        assert asyncio.run(main()) < MIB
    finally:
        server.close()


@pytest.mark.parametrize("more", [0, 1])
def test_longest_url(ca: CaIssuersServer, root: Issued, more: int) -> None:
    """In a certificate and after a redirect."""
    path = "/" + "a" * (MAX_URL - len(ca.url("/")) + more)
    url = ca.serve(path, root.der)
    for each, what in {
        url: "is not a URL that can be fetched",
        ca.redirect(f"/to-the-longest-{more}", url): "redirects to what is no URL",
    }.items():
        if more:
            assert why_not(each) == f"{what} (longer than {MAX_URL} characters)"
        else:
            assert get(each) == ["CN=Lab Root"]


@pytest.mark.parametrize(("character", "size"), [("é", 6), ('"', 3), (" ", 3), ("\U0001f600", 12)])
@pytest.mark.parametrize("more", [0, 1])
def test_longest_url_as_it_is_written(character: str, size: int, more: int) -> None:
    """In a path, with a percent sign and two digits for each byte that has no place there."""
    number, rest = divmod(MAX_URL - len("http://a/"), size)
    url = "http://a/" + character * (number + more)
    if more:
        with pytest.raises(httpx.InvalidURL, match=f"^longer than {MAX_URL} characters$"):
            asyncio.run(parsed(url))
    else:
        assert len(str(asyncio.run(parsed(url)))) == MAX_URL - rest


def test_longest_url_by_parts(ca: CaIssuersServer) -> None:
    """A redirect that says only where to go from here cannot make it longer."""
    folder = "/" + "a" * (MAX_URL // 2) + "/"
    url = ca.redirect(f"{folder}from", "b" * (MAX_URL // 2))
    words = f"redirects to what is no URL (longer than {MAX_URL} characters)"
    assert why_not(url) == words


# What may be in a download.


def bundle(root: Issued, size: int) -> list[Issued]:
    """As many certificates as fit into `size` bytes of a PKCS#7, and a few bytes more."""
    key = root.issue("Key", ca=True)
    many = (root.issue(f"CA {number}", ca=True, key=key) for number in itertools.count())
    taken, length = [], 0
    while length < size:
        taken.append(next(many))
        length += len(taken[-1].der)
    return taken


def test_as_many_certificates_as_fit(ca: CaIssuersServer, root: Issued) -> None:
    """The right one is found among all that 64 KiB can hold; one more, and it is none."""
    issuer = root.issue("The right one", ca=True)
    others = bundle(root, MAX_BODY - 1500)
    body = pkcs7_der(*others, issuer)
    assert MAX_BODY - 1500 < len(body) <= MAX_BODY
    leaf = issuer.issue(aia=[ca.serve("/full", body)])
    outcome = completed(leaf, root, AiaSource(Downloader(lambda: PATIENT)))
    assert outcome.path[1] == Certificate(issuer.der)
    larger = body + root.issue("One more", ca=True).der + bytes(MAX_BODY - len(body))
    assert why_not(ca.serve("/larger", larger)) == "is larger than 64 KiB"


def test_a_thousand_certificates(ca: CaIssuersServer, root: Issued) -> None:
    """They can be parsed, and are not downloaded."""
    key = root.issue("Key", ca=True)
    body = pkcs7_der(*(root.issue(f"CA {n}", ca=True, key=key) for n in range(1000)))
    assert len(read_certificates(body)) == 1000
    assert why_not(ca.serve("/thousand", body)) == "is larger than 64 KiB"


# What a chain may ask for.


def chain_without_end(ca: CaIssuersServer, root: Issued, length: int) -> tuple[Issued, list[str]]:
    """A leaf, and URLs of which each gives a certificate that names the next."""
    tag = f"{length}-{time.monotonic_ns()}"
    paths = [f"/{tag}/{number}" for number in range(length)]
    issuer = root
    for number in reversed(range(length)):
        above = [ca.url(paths[number + 1])] if number + 1 < length else []
        issuer = issuer.issue(f"Level {number}", ca=True, aia=above)
        ca.serve(paths[number], issuer.der)
    return issuer.issue(aia=[ca.url(paths[0])]), paths


@pytest.mark.parametrize("beyond", [0, 1, 20])
def test_nesting(ca: CaIssuersServer, root: Issued, beyond: int) -> None:
    """Six downloads in a row; a chain that needs a seventh, or has no end, is given up there."""
    nesting = Limits().nesting
    leaf, paths = chain_without_end(ca, root, nesting + beyond)
    outcome = completed(leaf, root, AiaSource(Downloader(lambda: PATIENT)))
    assert outcome.verified is (beyond == 0)
    assert sum(ca.downloads[path] for path in paths) == nesting
    if beyond:
        assert outcome.notes == ("nothing was asked beyond 6 downloads in a row",)


@pytest.mark.parametrize("position", [5, 6, 10])
def test_ten_urls(ca: CaIssuersServer, root: Issued, position: int) -> None:
    """The fifth URL of ten is tried, the sixth and those behind it are not."""
    issuer = root.issue("CA", ca=True)
    urls = [ca.junk(f"/ten/{position}/{number}") for number in range(1, 11)]
    urls[position - 1] = ca.serve(f"/ten/{position}/{position}", issuer.der)
    outcome = completed(issuer.issue(aia=urls), root, AiaSource(Downloader(lambda: PATIENT)))
    assert outcome.verified is (position <= 5)
    asked = [path for path in ca.downloads if path.startswith(f"/ten/{position}/")]
    assert len(asked) == 5


@pytest.mark.parametrize("beyond", [0, 1])
def test_number_of_downloads(ca: CaIssuersServer, root: Issued, beyond: int) -> None:
    """The tenth download of a chain may bring the issuer, an eleventh is not made."""
    limit = Limits().downloads
    tag = f"/downloads/{beyond}"
    # leaf: four dead URLs and then the lower; lower: the remaining dead ones and then the upper.
    upper = root.issue("Upper", ca=True)
    dead = [ca.junk(f"{tag}/{number}") for number in range(limit)]
    middle_url, lower_url = ca.url(f"{tag}/middle"), ca.url(f"{tag}/lower")
    top = [ca.junk(f"{tag}/top")] if beyond else []
    middle = upper.issue("Middle", ca=True, aia=[*top, ca.serve(f"{tag}/upper", upper.der)])
    lower = middle.issue("Lower", ca=True, aia=[*dead[4:7], middle_url])
    ca.serve(f"{tag}/middle", middle.der)
    ca.serve(f"{tag}/lower", lower.der)
    leaf = lower.issue(aia=[*dead[:4], lower_url])
    outcome = completed(leaf, root, AiaSource(Downloader(lambda: PATIENT)))
    assert outcome.verified is (beyond == 0)
    assert sum(n for path, n in ca.downloads.items() if path.startswith(f"{tag}/")) == limit
    if beyond:
        assert outcome.notes == ("no more than 10 downloads are made for one chain",)


@pytest.mark.parametrize("dripping", [True, False], ids=["drip", "hang"])
def test_one_deadline_for_all(ca: CaIssuersServer, root: Issued, dripping: bool) -> None:
    """Five URLs that never come to an end cost what one costs."""
    tag = "drip" if dripping else "hang"
    paths = [f"/{tag}/{number}" for number in range(5)]
    urls = [ca.drip(path, bytes(1000)) if dripping else ca.hang(path) for path in paths]
    issuer = root.issue("CA", ca=True)
    source = AiaSource(Downloader(lambda: BRIEF))
    started = time.monotonic()
    outcome = completed(issuer.issue(aia=urls), root, source, Limits(seconds=BRIEF))
    # Not a measurement: five deadlines one after the other would be more than this.
    assert time.monotonic() - started < BRIEF + GRACE + 5
    assert not outcome.verified
    assert "gave no answer in" in outcome.reason


# Ten thousand of them.


class DeadWeb:
    """Nothing answers, until it is told to go; except at `good`."""

    def __init__(self, good: str, gives: Issued) -> None:
        self.good = good
        self.gives = (Certificate(gives.der),)
        self.go = asyncio.Event()
        self.asked = 0
        self.now = 0
        self.most = 0

    async def __call__(self, url: str, _server: Server) -> tuple[Certificate, ...]:
        if url == self.good:
            return self.gives
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
        finally:
            self.now -= 1
        raise DownloadError("answered 404")


LEAVES = 10_000


@pytest.fixture(scope="module")
def leaves(root: Issued) -> list[Certificate]:
    """Different ones with different URLs, all under one missing issuer."""
    issuer = root.issue("Nowhere", ca=True)
    return [
        Certificate(issuer.issue(key=issuer, aia=[f"http://dead-{number}.test/"]).der)
        for number in range(LEAVES)
    ]


@pytest.mark.no_cover  # It would take half as long again.
def test_ten_thousand_dead_leaves(root: Issued, leaves: list[Certificate]) -> None:
    """One server presents them: tables and downloads are bounded, and a healthy one is served."""
    issuer = root.issue("CA", ca=True)
    good = "http://good.test/"
    attacker = Server("attacker.example", ip_address("8.8.8.8"), 443)
    healthy = Server("healthy.example", ip_address("9.9.9.9"), 443)

    async def test() -> None:
        web = DeadWeb(good, issuer)
        source = AiaSource(web)
        verifier = verifier_for(root)

        async def attack(leaf: Certificate) -> Outcome:
            limits = Limits(seconds=BRIEF)
            return await Completion([leaf], verifier, [source], limits, lambda: attacker).complete()

        for start in range(0, LEAVES, 1000):
            wave = [asyncio.ensure_future(attack(leaf)) for leaf in leaves[start : start + 1000]]
            await asyncio.sleep(0.01)
            outcome = await completing(issuer.issue(aia=[good]), root, source, server=healthy)
            assert outcome.verified
            if start == 1000:
                web.go.set()
            for outcome in await asyncio.gather(*wave):
                assert not outcome.verified
            assert len(source._failures) <= download_errors.FAILURES_REMEMBERED
            assert len(source._tasks) <= aia.SHARE + aia.MAX_WAITING
        assert 0 < web.most <= aia.SHARE
        await asyncio.sleep(0.01)
        assert not source._tasks
        assert not source._flights

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.no_cover  # It would take half as long again.
def test_memory_of_thousands(
    leaves: list[Certificate], root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the tables are full, the next thousand cost nothing that is kept."""
    monkeypatch.setattr(download_errors, "FAILURES_REMEMBERED", 100)

    async def test() -> None:
        web = DeadWeb("", root)
        web.go.set()
        source = AiaSource(web)

        async def attack(number: int) -> None:
            verifier = verifier_for(root)
            # Each from a server of its own, so that nothing is refused for want of a place.
            server = replace(NOBODY, name=f"server-{number}.example{number}")
            leaf = Certificate(leaves[number].der)
            limits = Limits(seconds=PATIENT)
            outcome = await Completion(
                [leaf], verifier, [source], limits, lambda: server
            ).complete()
            assert "answered 404" in outcome.reason

        for number in range(700):
            await attack(number)
        gc.collect()
        tracemalloc.start()
        try:
            used = []
            for number in range(700, 1900):
                await attack(number)
                if number in (1299, 1899):
                    gc.collect()
                    used.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert used[1] - used[0] < MIB // 2
        assert len(source._failures) == download_errors.FAILURES_REMEMBERED
        assert not source._tasks

    asyncio.run(asyncio.wait_for(test(), 60))


def test_names_that_hang_cost_bounded_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand URLs of names whose lookup hangs: threads are as few as downloads."""
    gate = threading.Event()

    def hang(*_: object, **__: object) -> object:
        gate.wait()
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def test() -> None:
        downloader = Downloader(lambda: BRIEF)
        before = threading.active_count()
        urls = [f"http://a.host-{number}.test{number}/" for number in range(2000)]
        tasks = [asyncio.ensure_future(downloader(url, HERE)) for url in urls]
        await asyncio.sleep(0.05)
        assert threading.active_count() - before <= MAX_LOOKUPS
        gathered = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in gathered} <= {DownloadError, Uncertain, UsedUp}
        gate.set()

    try:
        run(test())
    finally:
        gate.set()


def test_lookups_that_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread, or no memory, for a while: afterwards names are looked up as before."""
    resolver = Resolver(limit=2)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    async def test() -> None:
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", fail)
                with pytest.raises(RuntimeError, match="new thread"):
                    await resolver("localhost")
            with monkeypatch.context() as patch:
                patch.setattr(socket, "getaddrinfo", no_memory)
                with pytest.raises(OSError, match="MemoryError"):
                    await asyncio.wait_for(resolver("localhost"), 5)
        assert await resolver("localhost")

    run(test())
