"""The report for people: one file that is safe to open and needs nothing else."""

import html.parser
from pathlib import Path

import pytest

from mitmproxy_aia import report_html
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.history import History
from mitmproxy_aia.report_html import as_html
from mitmproxy_aia.sources import Found
from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority
from tests.test_history import ROOT, broken, certificates, incomplete
from tests.test_report import NOW

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = frozenset({"meta", "link", "br", "img", "input", "path", "circle", "rect", "line"})


class Page(html.parser.HTMLParser):
    """Reads a page, and finds whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def test_of_a_real_proxy(root: Issued, tmp_path: Path) -> None:
    """aia_report=FILE.html: the path, where the missing one is, and the chain to send."""
    path = tmp_path / "report.html"
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], options={"aia_report": str(path)}) as proxy,
    ):
        world = World(root, ca, proxy)
        issuer = world.authority()
        url = world.published(issuer)
        with (
            TlsServer(issuer.issue(aia=[url])) as server,
            TlsServer(authority("Stranger").issue()) as refused,
        ):
            assert world.get(server.url()).status == 200
            assert world.get(refused.url()).status == 502
        proxy.close()
    text = path.read_text()
    page = Page(text)
    assert f"127.0.0.1:{server.port}" in page.text
    assert f"127.0.0.1:{refused.port}" in page.text
    assert "1 incomplete, 1 broken" in page.text
    assert url in page.text
    assert issuer.pem.decode().strip().splitlines()[1] in text


def test_needs_nothing_and_runs_nothing() -> None:
    """No script, no link, no image and nothing else from outside, and a policy that says so."""
    history = History()
    history.note("a.example:443", incomplete())
    history.note("b.example:443", broken())
    history.note("c.example:443", incomplete())
    history.note_complete("c.example:443")
    page = Page(as_html(history, NOW))
    assert not {"script", "link", "img", "iframe", "a", "base", "form", "object"} & {*page.tags}
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "action", "srcset"} & names
    assert not [name for name in names if name.startswith("on")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert "url(" not in as_html(history, NOW)
    assert "@import" not in as_html(history, NOW)
    assert "1 incomplete, 1 broken, 1 mended" in page.text
    assert "2026-11-02 03:04:05" in page.text


def test_names_that_mean_harm() -> None:
    """Whatever a server, a certificate, a URL or a reason says is text."""
    odd = ROOT.issue(EVIL[:64], ca=True)
    leaf, issuer, root = certificates(odd.issue(EVIL[:64]), odd, ROOT)
    found = (Found(issuer, f"http://a.example/{EVIL}"),)
    history = History()
    history.note(f"{EVIL}:443", Outcome((leaf, issuer, root), found=found, presented=(leaf,)))
    history.note("b:443", broken((leaf,), note=EVIL))
    page = Page(as_html(history, NOW))
    assert not {"script", "img"} & {*page.tags}
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_no_server_at_fault() -> None:
    """It says so."""
    history = History()
    history.note_complete("a:443")
    page = Page(as_html(history, NOW))
    assert "Each server sent all that is needed." in page.text
    assert "1 handshake with complete chains" in page.text


def test_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser is not given more than it shows in time, and it is said what is left out."""
    monkeypatch.setattr(report_html, "SHOWN", 2)
    history = History()
    for number in range(5):
        history.note(f"{number}.example:443", broken())
    page = Page(as_html(history, NOW))
    assert page.tags.count("article") == 2
    assert "3 more are not shown here" in page.text
