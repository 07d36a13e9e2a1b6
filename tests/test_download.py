"""One download over real HTTP on loopback: what is accepted, and every limit."""

import asyncio
import ipaddress
from collections.abc import Iterator

import pytest

from mitmproxy_aia.egress import Server
from mitmproxy_aia.sources.download import MAX_BODY, MAX_REDIRECTS, Downloader
from mitmproxy_aia.sources.download_errors import DownloadError, NotTried
from tests.lab import CaIssuersServer, Issued, dead_url, pem_bundle

PATIENT = 20.0
"""Seconds no test is expected to take."""
BRIEF = 0.1
HERE = Server("server.example", ipaddress.ip_address("127.0.0.1"), 443)
"""A server on this machine: it may cause downloads from the lab."""


@pytest.fixture(scope="module")
def ca() -> Iterator[CaIssuersServer]:
    with CaIssuersServer() as server:
        yield server


def get(*urls: str, timeout: float = PATIENT, server: Server = HERE) -> list[str]:
    """The names of the certificates at `urls`, downloaded one after the other."""

    async def get_all() -> list[str]:
        downloader = Downloader(lambda: timeout)
        return [each.name for url in urls for each in await downloader(url, server)]

    return asyncio.run(get_all())


def why_not(url: str, *, timeout: float = PATIENT) -> str:
    """What the download of `url` failed of."""
    with pytest.raises(DownloadError) as error:
        get(url, timeout=timeout)
    return str(error.value)


def test_certificates(ca: CaIssuersServer, root: Issued) -> None:
    """All that the body holds, whatever the Content-Type."""
    bundle = pem_bundle(root.issue("intermediate"), root)
    url = ca.serve("/bundle", bundle, content_type="text/html")
    assert get(url) == ["CN=intermediate", "CN=Lab Root"]


def test_says_only_what_is_needed(ca: CaIssuersServer, root: Issued) -> None:
    """These headers and no others; userinfo and fragment of the URL stay here."""
    url = ca.serve("/quiet?a=b", root.der).replace("http://", "HTTP://user:secret@")
    get(f"{url}#fragment")
    request = ca.requests[-1]
    assert (request.method, request.target) == ("GET", "/quiet?a=b")
    assert {name.lower(): value for name, value in request.headers.items()} == {
        "host": f"127.0.0.1:{ca.port}",
        "accept": "application/pkix-cert, application/pkcs7-mime, */*;q=0.5",
        "accept-encoding": "identity",
        "user-agent": "mitmproxy-aia",
        "connection": "close",
    }


def test_keeps_no_cookies(ca: CaIssuersServer, root: Issued) -> None:
    """Not between downloads, and not between the redirects of one."""
    cookie = {"Set-Cookie": "id=1; Path=/"}
    redirect = cookie | {"Location": "/cookie"}
    url = ca.serve("/cookie", root.der, headers=cookie)
    get(url, url, ca.serve("/to-cookie", b"", status=302, headers=redirect))
    assert ca.downloads["/cookie"] == 3
    assert not any("cookie" in request.headers for request in ca.requests)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_ignores_the_proxy_of_the_environment(
    ca: CaIssuersServer, root: Issued, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may be the very proxy that the addon runs in."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, dead_url(""))
    assert get(ca.serve("/direct", root.der)) == ["CN=Lab Root"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(ca: CaIssuersServer, root: Issued, status: int) -> None:
    """To a relative Location, and without the userinfo of an absolute one."""
    ca.serve("/end", root.der)
    absolute = ca.url("/end").replace("://", "://user:secret@")
    assert get(ca.redirect("/relative", "/end", status=status)) == ["CN=Lab Root"]
    assert get(ca.redirect("/absolute", absolute, status=status)) == ["CN=Lab Root"]
    assert "authorization" not in ca.requests[-1].headers


def test_frozen_between_redirects(ca: CaIssuersServer, root: Issued) -> None:
    """What is downloaded no more is not downloaded on the next hop either."""
    reasons = iter(("", "aia_mode=frozen"))
    url = ca.redirect("/to-frozen", ca.serve("/frozen", root.der))

    async def download() -> None:
        downloader = Downloader(lambda: PATIENT, frozen=lambda: next(reasons))
        with pytest.raises(NotTried, match=r"/frozen, which was not downloaded \(aia"):
            await downloader(url, HERE)

    asyncio.run(download())
    assert ca.downloads["/to-frozen"] == 1
    assert ca.downloads["/frozen"] == 0


def test_number_of_redirects(ca: CaIssuersServer, root: Issued) -> None:
    """Three are followed, the fourth is not."""
    ca.serve("/0", root.der)
    for number in range(1, MAX_REDIRECTS + 2):
        ca.redirect(f"/{number}", f"/{number - 1}")
    assert get(ca.url(f"/{MAX_REDIRECTS}")) == ["CN=Lab Root"]
    before = ca.downloads["/0"]
    assert why_not(ca.url(f"/{MAX_REDIRECTS + 1}")) == "led to more than 3 redirects"
    assert ca.downloads["/0"] == before == 1


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://127.0.0.1/", "led to https://127.0.0.1/, which is not an http:// URL"),
        ("file:///etc/passwd", "led to file:/etc/passwd, which is not an http:// URL"),
        ("http://[::1", "redirects to what is no URL (Invalid port: ':1')"),
        (
            "http://1.2.3.4.5/",
            "led to http://1.2.3.4.5/, which is not a URL that can be fetched "
            "('1.2.3.4.5' is not an address)",
        ),
    ],
)
def test_redirect_to_elsewhere(ca: CaIssuersServer, location: str, reason: str) -> None:
    """Each hop is checked as the first URL is."""
    assert why_not(ca.redirect("/elsewhere", location)) == reason


def test_redirect_to_failure(ca: CaIssuersServer) -> None:
    """What is wrong there is told with where it is."""
    dead, missing = dead_url("/ca.der"), ca.url("/missing")
    text = ca.serve("/text", b"Not found")
    for target, what in (
        (dead, "could not be reached (Connection refused)"),
        (missing, "answered 404"),
        (text, "is not a certificate (neither DER, PEM nor PKCS#7)"),
    ):
        assert why_not(ca.redirect("/to-failure", target)) == f"led to {target}, which {what}"


def test_redirect_without_location(ca: CaIssuersServer) -> None:
    """Nothing to follow."""
    assert why_not(ca.serve("/nowhere", b"", status=302)) == "answered 302"


@pytest.mark.parametrize("status", [203, 300, 304, 404, 407, 503])
def test_only_200_counts(ca: CaIssuersServer, root: Issued, status: int) -> None:
    """A good certificate in an error's body is not taken, nor is its Location followed."""
    headers = {"Location": "/only-200"}
    url = ca.serve("/only-200", root.der, status=status, headers=headers)
    assert why_not(url) == f"answered {status}"


def test_size_of_the_body(ca: CaIssuersServer, root: Issued) -> None:
    """64 KiB are read, one byte more is refused."""
    largest = root.pem.rjust(MAX_BODY, b"\n")
    assert get(ca.serve("/largest", largest)) == ["CN=Lab Root"]
    assert get(ca.serve("/streamed", [largest])) == ["CN=Lab Root"]
    assert why_not(ca.serve("/larger", b"\n" + largest)) == "is larger than 64 KiB"


def test_endless_body(ca: CaIssuersServer, root: Issued) -> None:
    """It is cut off, and a good beginning does not help."""
    assert why_not(ca.flood("/flood", root.pem)) == "is larger than 64 KiB"


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_compressed_answer(ca: CaIssuersServer, root: Issued, encoding: str) -> None:
    """It was not asked for, and could be a bomb."""
    url = ca.serve("/compressed", root.der, headers={"Content-Encoding": encoding})
    assert why_not(url) == f"sent {encoding} data, which was not asked for"


def test_uncompressed_answer_that_says_so(ca: CaIssuersServer, root: Issued) -> None:
    """`Content-Encoding: identity` is nothing."""
    url = ca.serve("/plain", root.der, headers={"Content-Encoding": "Identity"})
    assert get(url) == ["CN=Lab Root"]


def test_not_a_certificate(ca: CaIssuersServer) -> None:
    """The reason is that of `read_certificates`."""
    assert why_not(ca.junk("/junk")).startswith("is not a certificate")
    assert why_not(ca.serve("/empty", b"")) == "is empty"


def test_slow_answer(ca: CaIssuersServer, root: Issued) -> None:
    """Bytes that come one by one are good, if they come in time."""
    assert get(ca.drip("/drip", root.der, pause=0.0)) == ["CN=Lab Root"]
    slow = ca.drip("/slow", bytes(1000), pause=0.01)
    assert why_not(slow, timeout=BRIEF) == "gave no answer in 0.1 s"


def test_no_answer(ca: CaIssuersServer) -> None:
    """The time limit is for all redirects together."""
    assert why_not(ca.hang("/hang"), timeout=BRIEF) == "gave no answer in 0.1 s"
    words = f"led to {ca.url('/hang')}, which gave no answer in 0.1 s"
    assert why_not(ca.redirect("/to-hang", "/hang"), timeout=BRIEF) == words


def test_time_limit_is_asked_for_each_download(ca: CaIssuersServer, root: Issued) -> None:
    """The option may change while mitmproxy runs."""
    limits = iter([PATIENT, BRIEF])
    url = ca.serve("/in-time", root.der)

    async def get_both() -> None:
        downloader = Downloader(lambda: next(limits))
        await downloader(url, HERE)
        with pytest.raises(DownloadError, match=r"^gave no answer in 0\.1 s$"):
            await downloader(ca.hang("/in-time"), HERE)

    asyncio.run(get_both())


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.%31",
        "127.0.0.1%2e",
        "127.0.0.1..",
        "localhost..",
        "127.0.0.1%00.example",
        "localhost,x.example",
        "a b.example",
    ],
)
def test_host_that_others_may_read_as_an_address(host: str) -> None:
    """It is not looked up, and not sent to a proxy that may decode it."""
    assert why_not(f"http://{host}/x.der") in (
        "names a host that is no name",
        f"is not a URL that can be fetched (Invalid IDNA hostname: {host!r})",
    )


@pytest.mark.parametrize("host", ["0127.1", "010.1", "1.2.03", "172.016.0.1."])
def test_address_that_others_may_read_as_another(host: str) -> None:
    """With a zero in front a number is octal for us and decimal for others, such as a proxy."""
    assert why_not(f"http://{host}/x.der") == "names an address that others may read as another"
