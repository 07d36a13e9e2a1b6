"""The limits of the AIA source: failures, budgets, deadlines, and its end."""

import asyncio
import ipaddress
import re
from dataclasses import replace
from types import CoroutineType

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Proxy, Refusal, Server
from mitmproxy_aia.limits import MAX_URL
from mitmproxy_aia.sources import Budget, Found, aia, download_errors
from mitmproxy_aia.sources.aia import URLS_PER_CERTIFICATE, AiaSource
from mitmproxy_aia.sources.download_errors import (
    BRIEFLY,
    FAILURE_REMEMBERED,
    DownloadError,
    NotTried,
    Refused,
    Uncertain,
    UsedUp,
)
from tests.lab import Issued
from tests.test_aia_source import A, B, Web, budget, every_attempt, leaf, run, said, settle


class Clock:
    """Stands in for the module `time`, of which only this is used."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in aia, download_errors:
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_failure_is_remembered(root: Issued, clock: Clock) -> None:
    """For FAILURE_REMEMBERED seconds the URL is not asked again; then it is."""
    web = Web(root)
    source = AiaSource(web)

    async def attempt() -> str:
        (said_once,) = said(await every_attempt(source, leaf(root, A), Budget(1e6, 1)))
        return said_once

    async def test() -> None:
        assert await attempt() == "http://a/ answered 404"
        web.answers = {A: (web.ca,)}
        clock.now += FAILURE_REMEMBERED - 0.75
        assert await attempt() == "http://a/ answered 404 (59 s ago)"
        assert web.asked == [A]
        clock.now += 0.75
        assert await attempt() == "http://a/ gave CN=Lab Root"
        assert web.asked == [A, A]

    run(test())


def test_a_second_failure_is_remembered_anew(root: Issued, clock: Clock) -> None:
    """The minute begins with the last failure."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        for _ in range(2):
            await every_attempt(source, leaf(root, A), Budget(1e6, 1))
            clock.now += FAILURE_REMEMBERED
        clock.now -= 1
        (attempt,) = await every_attempt(source, leaf(root, A), Budget(1e6, 1))
        assert attempt.outcome == "answered 404 (59 s ago)"

    run(test())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Uncertain("answered 503"), "answered 503"),
        (Refused(Refusal("led to http://10.0.0.1/, which is private"), redirected=True),
         "led to http://10.0.0.1/, which is private (aia_allow)"),
    ],
)  # fmt: skip
def test_some_are_remembered_briefly(
    root: Issued, clock: Clock, error: DownloadError, words: str
) -> None:
    """What may be a proxy's fault, and what a rule refuses after somebody was asked."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: error}

    async def test() -> None:
        for ago in "", f" ({BRIEFLY - 0.5:.0f} s ago)":
            (attempt,) = await every_attempt(source, leaf(root, A), Budget(1e6, 1))
            assert attempt.outcome == words + ago
            assert attempt.refused == isinstance(error, Refused)
            clock.now += BRIEFLY - 0.5
        assert web.asked == [A]
        await every_attempt(source, leaf(root, A), Budget(1e6, 1))
        assert web.asked == [A, A]

    run(test())


@pytest.mark.parametrize("error", [NotTried("was not tried"), Refused(Refusal("is private"))])
def test_some_are_not_remembered(root: Issued, clock: Clock, error: DownloadError) -> None:
    """What was our own doing, and what a rule refuses before anybody is asked."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: error}

    async def test() -> None:
        for _ in range(2):
            await every_attempt(source, leaf(root, A), Budget(1e6, 1))
        assert web.asked == [A, A]

    run(test())


def test_the_table_of_failures_is_bounded(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest failure makes room."""
    monkeypatch.setattr(download_errors, "FAILURES_REMEMBERED", 2)
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        await every_attempt(source, leaf(root, "http://1/", "http://2/"))
        await every_attempt(source, leaf(root, "http://1/", "http://2/"))
        assert web.asked == ["http://1/", "http://2/"]
        await every_attempt(source, leaf(root, "http://3/"))
        await every_attempt(source, leaf(root, "http://3/", "http://2/", "http://1/"))
        assert web.asked[2:] == ["http://3/", "http://1/"]

    run(test())


@pytest.mark.parametrize("error", [RuntimeError("bug"), OSError("trouble")])
def test_an_unexpected_exception_is_an_outcome(root: Issued, error: Exception) -> None:
    """A download that breaks its promise fails like any other, and the next URL is tried."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: error, B: (web.ca,)}

    async def test() -> None:
        first, second = await every_attempt(source, leaf(root, A, B))
        assert (first.where, first.found) == (A, ())
        assert second.found

    run(test())


def test_number_of_downloads(root: Issued) -> None:
    """A URL beyond the budget is not asked, and the budget says so."""
    web = Web(root)
    source, limits = AiaSource(web), budget(1)

    async def test() -> None:
        attempts = await every_attempt(source, leaf(root, A, B), limits)
        assert said(attempts) == ["http://a/ answered 404"]
        assert (web.asked, limits.downloads, limits.overdrawn) == ([A], 0, True)

    run(test())


def test_number_of_urls(root: Issued) -> None:
    """Five of one certificate are tried, and the sixth is not."""
    web = Web(root)
    urls = [f"http://{number}/" for number in range(URLS_PER_CERTIFICATE + 1)]

    async def test() -> None:
        await every_attempt(AiaSource(web), leaf(root, *urls))
        assert web.asked == urls[:5]

    run(test())


@pytest.mark.parametrize("url", ["ldap://a/", "https://a/", "file:///a", "http:a", "a"])
def test_only_http(root: Issued, url: str) -> None:
    """Any other URL is named, costs nothing, and the next is tried."""
    web = Web(root)
    limits = budget(1)

    async def test() -> None:
        attempts = await every_attempt(AiaSource(web), leaf(root, url, "HTTP://A/"), limits)
        assert attempts[0].where == url
        assert attempts[0].outcome == "was skipped (only http:// is followed)"
        assert web.asked == ["HTTP://A/"]

    run(test())


@pytest.mark.parametrize("more", [0, 1])
def test_long_url(root: Issued, more: int) -> None:
    """One that is too long takes no download and no place among the failures."""
    web, limits = Web(root), budget(1)
    source = AiaSource(web)
    url = "http://a/" + "b" * (MAX_URL + more - len("http://a/"))

    async def test() -> None:
        (attempt,) = await every_attempt(source, leaf(root, url), limits)
        if more:
            assert attempt.outcome == f"was skipped (longer than {MAX_URL} characters)"
        assert web.asked == ([] if more else [url])
        assert limits.downloads == more
        assert len(source._failures) == 1 - more

    run(test())


def test_no_url(root: Issued) -> None:
    """The certificate itself is then where the search ends."""

    async def test() -> None:
        attempts = await every_attempt(AiaSource(Web(root)), leaf(root))
        assert said(attempts) == ["CN=Lab Leaf names no caIssuers URL"]

    run(test())


def test_urls_of_strangers_are_printable(root: Issued) -> None:
    """What is said of a URL fits into one line of a log."""
    urls = ["http://a/\n\x1b[31m", "ldap://a/\n", "http://a/" + "x" * 1000]

    async def test() -> None:
        attempts = await every_attempt(AiaSource(Web(root)), leaf(root, *urls))
        assert len(attempts) == len(urls)
        for attempt in attempts:
            assert attempt.where.isprintable()
            assert len(attempt.where) <= 220

    run(test())


def test_nothing_is_tried_after_the_deadline(root: Issued) -> None:
    """Not even what is remembered; and that is said."""
    web = Web(root)

    async def test() -> None:
        attempts = await every_attempt(AiaSource(web), leaf(root, A, B), budget(seconds=0))
        assert said(attempts) == [f"{url} was not tried (there was no time left)" for url in (A, B)]
        assert web.asked == []

    run(test())


def test_deadline_while_waiting(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not answered is named. Its download goes on, for whoever comes next."""
    monkeypatch.setattr(aia, "PATIENCE", 0.001)
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate, B: gate}
        first, second = await every_attempt(source, leaf(root, A, B), budget(seconds=0.05))
        assert (first.where, second.where, first.found) == (A, B, ())
        assert first.outcome.startswith("gave no answer in 0.")
        gate.set()
        assert (await every_attempt(source, leaf(root, A), budget(0)))[0].found
        assert web.asked == [A, B]

    run(test())


def test_close_gives_up_what_is_under_way(root: Issued) -> None:
    """Whoever waits is told, nothing is remembered, and no task is left."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        web.answers = {A: asyncio.Event()}
        waiting = asyncio.ensure_future(every_attempt(source, leaf(root, A)))
        await settle()
        assert len(asyncio.all_tasks()) > 2
        source.close()
        assert said(await waiting) == ["http://a/ was given up"]
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        web.answers = {A: (web.ca,)}
        assert (await every_attempt(source, leaf(root, A)))[0].found

    run(test())


def test_close_when_the_event_loop_is_gone(root: Issued) -> None:
    """mitmproxy may call `done` that late."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: asyncio.Event()}
    loop = asyncio.new_event_loop()
    loop.run_until_complete(every_attempt(source, leaf(root, A), budget(seconds=0.01)))
    (task,) = asyncio.all_tasks(loop)
    loop.close()
    source.close()
    assert not task.done()
    # So that nobody complains of this task when it is thrown away.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert isinstance(coroutine, CoroutineType)
    coroutine.close()


def test_knows_nothing_beforehand(root: Issued) -> None:
    """It is no cache: what it is told to keep it forgets."""
    source = AiaSource(Web(root))
    certificate = leaf(root, A)
    source.keep([Found(certificate, A)])
    assert source.known_issuers(certificate) == ()


def test_what_was_not_tried_is_not_remembered(root: Issued) -> None:
    """A download that found no place among all others says nothing of its URL."""
    web = Web(root)
    web.answers = {A: NotTried("was not tried")}
    source = AiaSource(web)

    async def test() -> None:
        assert said(await every_attempt(source, leaf(root, A))) == ["http://a/ was not tried"]
        web.answers = {A: (web.ca,)}
        assert (await every_attempt(source, leaf(root, A)))[0].found

    run(test())


@pytest.mark.parametrize("kind", [UsedUp, NotTried])
def test_what_another_has_used_up(root: Issued, kind: type[NotTried]) -> None:
    """Who has joined a download that was not tried, for want of another's share, tries it himself;
    once, and a neighbour of that other one does not. Of whatever else it was, it would again."""
    web = Web(root)
    source = AiaSource(web)
    answers = [kind("was not tried"), kind("was not tried once more")]

    async def download(url: str, server: Server) -> tuple[Certificate, ...]:
        web.servers.append(server)
        await asyncio.sleep(0.01)
        raise answers.pop(0)

    source._download = download
    other = replace(PUBLIC, address=ipaddress.ip_address("8.8.4.4"))

    async def test() -> None:
        first = asyncio.ensure_future(every_attempt(source, leaf(root, A), budget(server=PUBLIC)))
        await asyncio.sleep(0)
        neighbour = replace(PUBLIC, name="neighbour")
        joined = [
            asyncio.ensure_future(every_attempt(source, leaf(root, A), budget(server=each)))
            for each in (neighbour, other)
        ]
        assert said(await first) == said(await joined[0]) == ["http://a/ was not tried"]
        once_more = " once more" if kind is UsedUp else ""
        assert said(await joined[1]) == [f"http://a/ was not tried{once_more}"]
        asked = [PUBLIC.address, other.address] if kind is UsedUp else [PUBLIC.address]
        assert [each.address for each in web.servers] == asked
        await settle()
        assert not source._flights

    run(test())


def test_extensions_that_cannot_be_read(root: Issued) -> None:
    """A leaf with a damaged extension may well name a URL; we do not say that it does not."""
    damaged = x509.UnrecognizedExtension(ExtensionOID.ISSUER_ALTERNATIVE_NAME, b"damaged")
    extra = [x509.Extension(damaged.oid, False, damaged)]
    certificate = Certificate.from_der(root.issue(aia=[A], extra=extra).der)

    async def test() -> None:
        attempts = said(await every_attempt(AiaSource(Web(root)), certificate))
        assert attempts == ["CN=Lab Leaf has an extension that cannot be read"]

    run(test())


PUBLIC = Server("public.example", ipaddress.ip_address("8.8.8.8"), 443)
PRIVATE = Server("private.example", ipaddress.ip_address("10.0.0.1"), 443)
PROXIED = Server("public.example", proxy=Proxy("http", "proxy.example", 3128))
REFUSED = Refused(Refusal("is in the private network", compared=True))


@pytest.mark.parametrize("other", [PUBLIC, PROXIED], ids=["public", "proxied"])
def test_one_servers_download_is_not_anothers(root: Issued, other: Server) -> None:
    """Servers that are permitted different things, or go different ways, share no download."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate}
        askers = [
            asyncio.ensure_future(every_attempt(source, leaf(root, A), budget(server=server)))
            for server in (PRIVATE, other, PRIVATE, other)
        ]
        await settle()
        assert web.servers == [PRIVATE, other]
        gate.set()
        landed = [await asker for asker in askers]
        assert all(attempts[0].found for attempts in landed)

    run(test())


def test_refusal_is_worded_for_each_who_asks(root: Issued) -> None:
    """Two servers of one address space share the download, and each is told of itself."""
    web = Web(root)
    source = AiaSource(web)
    web.answers = {A: REFUSED}
    other = replace(PUBLIC, name="other.example")

    async def test() -> None:
        askers = [
            asyncio.ensure_future(every_attempt(source, leaf(root, A), budget(server=server)))
            for server in (PUBLIC, other)
        ]
        assert [said(await asker) for asker in askers] == [
            [f"refused: http://a/ is in the private network, {name} is not (aia_allow)"]
            for name in ("public.example", "other.example")
        ]
        assert web.asked == [A]

    run(test())


def test_refusal_is_not_a_failure_of_the_url(root: Issued) -> None:
    """It is not remembered: neither for others nor for when the options have changed."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        web.answers = {A: REFUSED}
        assert (await every_attempt(source, leaf(root, A), budget(server=PUBLIC)))[0].refused
        web.answers = {A: (web.ca,)}
        assert (await every_attempt(source, leaf(root, A), budget(server=PUBLIC)))[0].found

    run(test())


def test_failure_is_remembered_for_the_same_way(root: Issued) -> None:
    """What failed for a public server is asked anew for a private or a proxied one."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        for server in (PUBLIC, PRIVATE, PROXIED, PUBLIC, PRIVATE, PROXIED):
            await every_attempt(source, leaf(root, A), budget(server=server))
        assert web.servers == [PUBLIC, PRIVATE, PROXIED]

    run(test())


def test_flood_of_hanging_urls(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has its share of downloads in the air; others wait, and other servers do not."""
    monkeypatch.setattr(aia, "PATIENCE", 0.001)
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        urls = [f"http://host-{number}.test/" for number in range(100)]
        web.answers = {**dict.fromkeys(urls, gate), A: (web.ca,)}
        flood = [
            asyncio.ensure_future(every_attempt(source, leaf(root, url), budget(server=PUBLIC)))
            for url in urls
        ]
        await settle()
        assert len(web.asked) == aia.SHARE
        sent_away = [said(asker.result()) for asker in flood if asker.done()]
        assert len(sent_away) == 100 - aia.SHARE - aia.MAX_WAITING
        assert sent_away[0][0].endswith("was not tried (64 downloads wait for their turn)")
        assert (await every_attempt(source, leaf(root, A), budget(server=PRIVATE)))[0].found
        # Its own good URL, too, if another server asks for what the flood wants as well.
        web.answers[urls[aia.SHARE]] = (web.ca,)
        shared = leaf(root, urls[aia.SHARE])
        neighbour = replace(PUBLIC, address=ipaddress.ip_address("8.8.4.4"))
        assert (await every_attempt(source, shared, budget(server=neighbour)))[0].found
        gate.set()
        landed = [await asker for asker in flood if not asker.done()]
        assert all(attempts[0].found for attempts in landed)

    run(test())


def test_flood_for_one_host(root: Issued) -> None:
    """Many servers whose URLs hang at one host use up the places of that host only."""
    web = Web(root)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        urls = [f"http://{number}.hanging.test/" for number in range(50)]
        servers = [Server(f"server.example{number}") for number in range(50)]
        web.answers = {**dict.fromkeys(urls, gate), A: (web.ca,)}
        flood = [
            asyncio.ensure_future(every_attempt(source, leaf(root, url), budget(server=server)))
            for url, server in zip(urls, servers, strict=True)
        ]
        await settle()
        assert len(web.asked) == aia.SHARE
        assert (await every_attempt(source, leaf(root, A)))[0].found
        gate.set()
        landed = [await asker for asker in flood]
        assert all(attempts[0].found for attempts in landed)

    run(test())


def test_waiting_for_its_turn_is_given_up(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody waits for any more is not downloaded when its turn comes."""
    web = Web(root)
    monkeypatch.setattr(aia, "SHARE", 1)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate, B: gate}
        first = asyncio.ensure_future(every_attempt(source, leaf(root, A)))
        await settle()
        (waited,) = await every_attempt(source, leaf(root, B), budget(seconds=0.05))
        assert waited.outcome.startswith("waited for other downloads for 0.")
        gate.set()
        assert (await first)[0].found
        await settle()
        assert web.asked == [A]
        assert (await every_attempt(source, leaf(root, B)))[0].found

    run(test())


def test_answer_that_does_not_come_after_waiting_for_its_turn(
    root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told: it is no fault of the URL that others had to end first."""
    web = Web(root)
    monkeypatch.setattr(aia, "SHARE", 1)
    source = AiaSource(web)

    async def test() -> None:
        gate = asyncio.Event()
        web.answers = {A: gate, B: asyncio.Event()}
        first = asyncio.ensure_future(every_attempt(source, leaf(root, A)))
        await settle()
        asyncio.get_running_loop().call_later(0.2, gate.set)
        (late,) = await every_attempt(source, leaf(root, B), budget(seconds=1.5))
        words = r"gave no answer in \d\.\d s \(and waited for other downloads for \d\.\d s\)"
        assert re.fullmatch(words, late.outcome)
        assert (await first)[0].found
        source.close()

    run(test())


def test_url_that_cannot_be_parsed_is_tried(root: Issued) -> None:
    """Whose share it takes cannot be told; what is wrong with it is the download's to say."""
    web = Web(root)

    async def test() -> None:
        attempts = await every_attempt(AiaSource(web), leaf(root, "http://[a/", "http://a:x/"))
        assert web.asked == ["http://[a/", "http://a:x/"]
        assert len(attempts) == 2

    run(test())
