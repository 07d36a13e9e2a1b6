"""Requests to answers, without a proxy: what the page says, and what it cannot be made to say."""

import dataclasses
import datetime
import html.parser
import re

import pytest

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.history import Record
from mitmproxy_aia.page.rendering import ServerView, chain_path, render
from mitmproxy_aia.page.settings import Setting, shown
from mitmproxy_aia.page.site import SHOWN, Answer, Facts, Listing, respond
from mitmproxy_aia.sources import Found
from tests.lab import Issued, authority, common_name

NOW = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)
URL = "http://ca.example/issuer.cer"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
ROOT = authority("Lab Root")
ISSUER = ROOT.issue("Lab Intermediate", ca=True)
LEAF = ISSUER.issue("Lab Leaf", valid=(NOW - datetime.timedelta(9), NOW + datetime.timedelta(9)))


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def incomplete(server: str = "server.example:443", **changes: object) -> Record:
    leaf, issuer, root = map(certificate, (LEAF, ISSUER, ROOT))
    record = Record(
        server,
        "incomplete",
        NOW,
        NOW,
        incomplete=1,
        presented=(leaf,),
        found=(Found(issuer, URL),),
        path=(leaf, issuer, root),
        seconds=0.0431,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def broken(**changes: object) -> Record:
    nothing: dict[str, object] = {"found": (), "path": (), "incomplete": 0, "broken": 2}
    reason = "unable to get local issuer certificate (AIA: http://ca.example/ answered 404)"
    return incomplete(**{"verdict": "broken", "reason": reason, **nothing, **changes})  # type: ignore[arg-type]


def text_of(answer: Answer) -> str:
    return answer.body.decode()


class Reader(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, attributes and words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attributes:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def plain(self) -> str:
        return " ".join(self.words.split())


def read(facts: Facts, target: str = "/") -> Reader:
    answer = respond(target, facts)
    assert answer.status == 200
    return Reader(text_of(answer))


def test_incomplete_server() -> None:
    """What was sent, what was not and where it was found stand there in words."""
    plain = read(Facts([incomplete()])).plain
    assert "The server forgot an intermediate, CN=Lab Intermediate." in plain
    assert "Completed and verified in 43 ms." in plain
    assert f"Not sent intermediate CN=Lab Intermediate Found at {URL}" in plain
    assert "Trusted trust anchor CN=Lab Root In the trust store" in plain
    assert "Valid until 2026-11-10" in plain
    for server in ("nginx", "Apache", "HAProxy", "Caddy"):
        assert server in plain
    assert "/etc/nginx/server.example.pem;" in plain


def test_audit_does_not_claim_success() -> None:
    """With aia_mode=audit the connection was refused, and the page says so."""
    plain = read(Facts([incomplete(audit=True)])).plain
    assert "It could be completed in 43 ms; the connection was refused" in plain


def test_broken_server() -> None:
    """The reason stands there, and the chain so far can be had."""
    facts = Facts([broken()])
    plain = read(facts).plain
    assert "Unable to get local issuer certificate (AIA: http://ca.example/ answered 404)" in plain
    assert "Missing issuer CN=Lab Intermediate" in plain
    assert "Chain so far (PEM, 1 certificate)" in plain


def test_untrusted_root() -> None:
    """Who may be its owner is told how to trust it; no web server's lines would help."""
    issuer, root = certificate(ISSUER), certificate(ROOT)
    page = read(Facts([broken(fetched=(Found(issuer, URL), Found(root, URL)))])).plain
    assert "Not trusted root CN=Lab Root Not in the trust store; found at" in page
    assert "If you trust CN=Lab Root, add it to the roots of mitmproxy (see ssl_verify" in page
    assert "nginx" not in page


def test_another_fault() -> None:
    """An expired certificate is called that, and nothing else is blamed."""
    expired = NOW + datetime.timedelta(20)
    page = read(Facts([broken(last=expired, reason="certificate has expired")])).plain
    assert "The chain was not accepted: certificate has expired." in page
    assert "Expired on 2026-11-10" in page
    assert "Certificate has expired" not in page
    assert "Missing" not in page
    early = read(Facts([broken(last=NOW - datetime.timedelta(20))])).plain
    assert "Valid from 2026-10-23 on" in early


def test_mended_server() -> None:
    """It stays in the list, marked as mended."""
    facts = Facts([incomplete(verdict="complete", mended=NOW, complete=3)])
    plain = read(facts).plain
    assert "Mended" in plain
    assert "Mend this server" not in plain
    assert "Since 2026-11-01 12:00 UTC the server sends all itself." in plain
    assert "3\N{MULTIPLICATION SIGN} complete since" in plain


def test_summary_and_order() -> None:
    """The records come as they are given, newest first, under a count of each verdict."""
    records = [incomplete("b.example:443"), broken(server="a.example:443"), incomplete()]
    plain = read(Facts(records)).plain
    assert "2 incomplete, 1 broken" in plain
    assert plain.index("b.example") < plain.index("a.example") < plain.index("server.example")


def test_nothing_yet() -> None:
    """The empty page says what to do."""
    assert "No server was contacted over TLS yet." in read(Facts()).plain
    plain = read(Facts(complete=2)).plain
    assert "2 handshakes with complete chains." in plain
    assert "Go on using the proxy." in plain


def test_many_servers() -> None:
    """A page shows a part of them and leads to the others, whatever `from` is."""
    facts = Facts([incomplete(f"{number}.example:443") for number in range(SHOWN + 1)])
    first, second = read(facts), read(facts, f"/?from={SHOWN}")
    assert f"/?from={SHOWN}" in first.links
    assert "/?from=0" in second.links
    assert f"{SHOWN}.example" not in first.plain
    assert f"{SHOWN}.example" in second.plain
    assert len(set(first.ids)) == len(first.ids)
    for odd in ("-1", "x", "9" * 30, "", "%00"):
        assert respond(f"/?from={odd}", facts).status == 200
    assert read(facts, "/?from=999999").plain == second.plain


def evil_facts() -> Facts:
    issuer = authority(common_name(EVIL))
    leaf = certificate(issuer.issue(common_name(f"leaf {EVIL}"), aia=["javascript:alert(1)"]))
    evil = certificate(issuer)
    found = (Found(evil, f"javascript:{EVIL}", cache=EVIL),)
    path = (leaf, evil, evil)
    records = [
        incomplete(f"{EVIL}:443", presented=(leaf,), path=path, found=found),
        incomplete(f"2{EVIL}:443", presented=(leaf, certificate(ROOT)), path=path, found=found),
        broken(server=f"3{EVIL}:443", presented=(leaf,), reason=EVIL, left_out=1, protocol="QUIC"),
    ]
    entry = Entry(evil, f"{EVIL}\x1b", NOW, NOW)
    return Facts(
        records,
        revision='"><script>',
        settings=[Setting("aia_cache", EVIL, EVIL, changed=True)],
        notices=[EVIL],
        listing=Listing(EVIL, [entry], problem=EVIL),
    )


@pytest.mark.parametrize("target", ["/", "/cache", "/settings", "/<script>", "/chain/<script>"])
def test_no_name_is_markup(target: str) -> None:
    """Names with <script> stay text: no element, attribute or link comes of one."""
    page = Reader(text_of(respond(target, evil_facts())))
    honest = {
        element
        for path in ("/", "/cache", "/settings", "/nothing")
        for element in Reader(
            text_of(respond(path, dataclasses.replace(evil_facts(), records=[incomplete()])))
        ).elements
    }
    assert page.elements <= honest | {"article", "time"}
    assert "img" not in page.elements
    assert not {name for name in page.attributes if name.startswith("on")} | (
        page.attributes & {"style", "srcdoc", "action"}
    )
    assert all(re.fullmatch(r"#main|/[a-z0-9/.?=-]*", link) for link in page.links)
    assert "<script>alert(1)</script>" in page.plain or target == "/chain/<script>"
    assert page.plain.count("alert(1)") > 0 or target == "/chain/<script>"


def test_every_page_has_what_a_keyboard_needs() -> None:
    """One heading of the first order, a language, and a link that skips to the content."""
    facts = Facts([incomplete()])
    for target in ("/", "/cache", "/settings", "/nothing"):
        page = text_of(respond(target, facts))
        assert page.count("<h1") == 1
        assert '<html lang="en">' in page
        assert Reader(page).links.index("#main") < Reader(page).links.index("/cache")
        assert 'id="main"' in page


def test_style_needs_nothing_from_outside() -> None:
    """No font, picture or style of another site, and dark and light."""
    style = text_of(respond("/style.css", Facts()))
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style
    assert respond("/style.css", Facts()).content_type.startswith("text/css")
    assert respond("/live.js", Facts()).content_type.startswith("text/javascript")
    assert respond("/icon.svg", Facts()).content_type == "image/svg+xml"


def test_chain_for_download() -> None:
    """Leaf and intermediate, without the root, under a harmless file name."""
    record = incomplete()
    [link] = (link for link in read(Facts([record])).links if link.startswith("/chain/"))
    answer = respond(link, Facts([record]))
    assert read_certificates(answer.body) == record.path[:-1]
    assert answer.content_type == "application/x-pem-file"
    wanted = 'attachment; filename="server.example.pem"'
    assert answer.headers["Content-Disposition"] == wanted


@pytest.mark.parametrize(
    "server", ['a"; filename="evil.exe:443', "a\r\nSet-Cookie: x=y:443", "<b>:1", "ä.example:443"]
)
def test_server_name_adds_no_header(server: str) -> None:
    """A client chooses how it calls a server. The answer's headers stay what they are."""
    record = incomplete(server)
    answer = respond(chain_path(record), Facts([record]))
    assert answer.status == 200
    disposition = answer.headers["Content-Disposition"]
    assert re.fullmatch(r'attachment; filename="[a-z0-9.-]+\.pem"', disposition)


def test_servers_with_like_names() -> None:
    """Each has its own chain, also where the harmless names are equal."""
    root = authority("Other Root")
    leaf = certificate(root.issue("Other Leaf"))
    other = incomplete("a_b:443", presented=(leaf,), path=(leaf, certificate(root)), found=())
    facts = Facts([incomplete("a-b:443"), other])
    links = [link for link in read(facts).links if link.startswith("/chain/")]
    assert len({respond(link, facts).body for link in links}) == 2


def test_unknown_chain() -> None:
    """Of a server that has been forgotten since."""
    assert respond(chain_path(incomplete()), Facts()).status == 404


def test_cache() -> None:
    """What is remembered, how much of it, and where."""
    entry = Entry(certificate(ISSUER), URL, NOW, NOW)
    plain = read(Facts(listing=Listing("/home/me/aia.sqlite3", [entry])), "/cache").plain
    assert f"CN=Lab Intermediate {certificate(ISSUER).not_after:%Y-%m-%d} {URL}" in plain
    assert "1 intermediate, in memory and in /home/me/aia.sqlite3." in plain
    plain = read(Facts(listing=Listing("x", [entry], more=True)), "/cache").plain
    assert "The first 1. All: mitmproxy-aia cache list" in plain
    plain = read(Facts(listing=Listing("x", problem="The cache is gone.")), "/cache").plain
    assert "The cache is gone." in plain
    assert "Nothing is remembered yet" not in plain
    assert "Nothing is remembered yet" in read(Facts(), "/cache").plain


def test_settings() -> None:
    """Each option with its value; what is not set says so."""
    settings = [Setting("aia_mode", "audit", "What to do.", True), Setting("aia_deny", "", "No.")]
    plain = read(Facts(settings=settings), "/settings").plain
    assert "aia_mode audit changed from the default What to do." in plain
    assert "aia_deny not set No." in plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("http://user:secret@proxy:3128", "http://***@proxy:3128"),
        ("socks5://user:se@cret@proxy:1080", "socks5://***@proxy:1080"),
        ("redis://user:secret@host/1", "redis://host:6379/1"),
        ("rediss://host?password=secret", "rediss://host:6379/0"),
        (" redis://:secret@host:1", "redis://host:1/0"),
        ("redis:secret", "redis://:6379/0"),
        ("https://proxy:3128/a@b", "https://***@b"),
        (["http://u:secret@a", "b"], "http://***@a, b"),
        ("/home/me@work/aia.sqlite3", "/home/me@work/aia.sqlite3"),
        (True, "true"),
        (None, ""),
        ("", ""),
        (7, "7"),
        ("a\nb", "a\\nb"),
    ],
)
def test_no_password_is_shown(value: object, text: str) -> None:
    """Options are shown without what logs somebody in."""
    assert shown(value) == text


def test_metrics() -> None:
    """Prometheus' text, or what to install."""
    facts = Facts(metrics=lambda: (b"aia_total 1\n", "text/plain; version=0.0.4"))
    answer = respond("/metrics", facts)
    assert (answer.status, answer.body) == (200, b"aia_total 1\n")
    assert answer.content_type == "text/plain; version=0.0.4"

    def missing() -> tuple[bytes, str]:
        raise ImportError("pip install it")

    answer = respond("/metrics", Facts(metrics=missing))
    assert (answer.status, answer.body) == (503, b"pip install it\n")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing", 404),
        ("/../etc/passwd", 404),
        ("/static/style.css", 404),
        ("/templates/base.html", 404),
        ("//mitm.aia/", 404),
        ("/chain/", 404),
        ("http://[", 404),
        ("*", 404),
        ("", 404),
    ],
)
def test_other_addresses(target: str, status: int) -> None:
    """There is nothing else to be had."""
    answer = respond(target, Facts())
    assert answer.status == status
    assert "mitmproxy-aia" in text_of(answer)


def test_a_section_without_downloads_holds_the_chain() -> None:
    """For a report, which is one file."""
    view = ServerView.of(incomplete(), downloads=False)
    page = render("section.html", server=view)
    assert "-----BEGIN CERTIFICATE-----" in page
    assert "/chain/" not in page
    assert (view.host, view.port) == ("server.example", ":443")
    odd = ServerView.of(incomplete("no-port"))
    assert (odd.host, odd.port) == ("no-port", "")
