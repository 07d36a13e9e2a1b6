"""The page in a real browser: Chromium, through a real mitmdump."""

import re
from collections.abc import Iterator

import pytest

from tests.conftest import World
from tests.lab import Browser, CaIssuersServer, Issued, Proxy, TlsServer, authority, common_name

PAGE = "http://mitm.aia/"
EVIL = "<script>evil=1</script><img src=x onerror=evil=1>"


@pytest.fixture(scope="module")
def own_world(root: Issued) -> Iterator[World]:
    options: dict[str, str | int | float] = {"aia_timeout": 2}
    with CaIssuersServer() as ca, Proxy(trust=[root], options=options) as proxy:
        yield World(root, ca, proxy)


@pytest.fixture(scope="module")
def browser(own_world: World) -> Iterator[Browser]:
    with Browser(own_world.proxy) as browser:
        yield browser


@pytest.fixture(scope="module")
def servers(own_world: World) -> Iterator[list[TlsServer]]:
    """One whose chain was completed, one that is broken, both with names that would be markup."""
    issuer = own_world.root.issue(common_name(f"Issuer {EVIL}"), ca=True)
    folder = "/a-folder-with-a-long-name" * 8
    url = own_world.ca.serve(f"{folder}/issuer.cer", issuer.der)
    stranger = authority(common_name(f"Stranger {EVIL}"))
    with (
        TlsServer(issuer.issue(common_name(EVIL), aia=[url])) as incomplete,
        TlsServer(stranger.issue("W" * 60), stranger) as broken,
    ):
        assert own_world.get(incomplete.url()).status == 200
        assert own_world.get(broken.url()).status == 502
        yield [incomplete, broken]


@pytest.fixture(autouse=True)
def usual(browser: Browser) -> None:
    """What another test has changed."""
    browser.scripts(allowed=True)
    browser.look()
    browser.errors.clear()


def test_nothing_yet(browser: Browser) -> None:
    """The first look, before any server was at fault."""
    browser.open(PAGE)
    assert "No incomplete chain so far" in browser.evaluate("document.body.innerText")
    assert browser.errors == []


def test_new_server_appears_by_itself(
    own_world: World, browser: Browser, servers: list[TlsServer]
) -> None:
    """Whoever looks at the page sees the next fault without touching it, and what was opened
    stays open."""
    browser.open(PAGE)
    browser.evaluate("document.querySelector('details').open = true")
    count = browser.evaluate("document.querySelectorAll('article').length")
    issuer = own_world.authority()
    with TlsServer(issuer.issue(aia=[own_world.published(issuer)])) as server:
        assert own_world.get(server.url()).status == 200
        browser.wait_until(f"document.querySelectorAll('article').length == {count + 1}")
        first = browser.evaluate("document.querySelector('article').innerText")
    assert f":{server.port}" in first
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == 1
    assert browser.errors == []


def test_names_are_not_run(browser: Browser, servers: list[TlsServer]) -> None:
    """Names with <script> are seen as they are, and nothing of them is run."""
    for path in ("", "cache", "settings"):
        browser.open(PAGE + path)
        assert browser.evaluate("typeof window.evil") == "undefined"
        assert browser.evaluate("document.images.length") == 0
        if path != "settings":
            assert EVIL in browser.evaluate("document.body.innerText")
    assert browser.errors == []


def test_without_scripts(browser: Browser, servers: list[TlsServer]) -> None:
    """Everything can be read, and there is a link to have it anew."""
    browser.scripts(allowed=False)
    browser.open(PAGE)
    text = browser.evaluate("document.body.innerText")
    assert "The server forgot an intermediate" in text
    assert "Reload" in text
    assert "Live" not in text


@pytest.mark.parametrize("path", ["", "cache", "settings", "nothing"])
@pytest.mark.parametrize("width", [320, 360, 1000])
def test_nothing_is_wider_than_the_window(
    browser: Browser, servers: list[TlsServer], path: str, width: int
) -> None:
    """Long names and URLs wrap, on a phone too, also with everything opened."""
    browser.look(width=width)
    browser.open(PAGE + path)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    inside = (
        "[...document.querySelectorAll('main *')].every(each => each.scrollWidth <= innerWidth)"
    )
    assert browser.evaluate(inside)


CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  document.querySelectorAll('details').forEach((each) => (each.open = true));
  return [...document.querySelectorAll('body *')]
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((each) => {
      const pair = [light(parse(getComputedStyle(each).color)), light(ground(each))];
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), each.outerHTML];
    })
    .filter(([contrast]) => contrast < 4.5);
})()
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["", "cache", "settings"])
def test_text_can_be_read(
    browser: Browser, servers: list[TlsServer], path: str, dark: bool
) -> None:
    """Every text has a contrast of 4.5 to what is behind it (WCAG 2.2, 1.4.3), light and dark."""
    browser.look(dark=dark)
    browser.open(PAGE + path)
    assert browser.evaluate(CONTRASTS) == []
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 64) == dark


def test_states_differ_without_colour(browser: Browser, servers: list[TlsServer]) -> None:
    """Sent, not sent, trusted and not trusted have signs, words and lines of their own."""
    browser.open(PAGE)
    rows = browser.evaluate(
        "[...document.querySelectorAll('.path li')].map(row => [row.classList[0],"
        " row.querySelector('.sign').innerHTML, row.querySelector('.state').firstChild.data.trim(),"
        " row.querySelector('.sign').getAttribute('aria-hidden')])"
    )
    states = {row[0] for row in rows}
    assert states >= {"sent", "found", "anchor", "untrusted"}
    assert len({(row[0], row[1]) for row in rows}) == len(states)
    assert len({row[1] for row in rows}) == len(states)
    assert len({row[2] for row in rows}) == len(states)
    lines = "getComputedStyle(document.querySelector('.to-{}'), '::after').borderTopStyle"
    found, anchor, untrusted = (
        browser.evaluate(lines.format(state)) for state in ("found", "anchor", "untrusted")
    )
    assert (found, anchor, untrusted) == ("dashed", "solid", "dotted")


def test_keyboard(browser: Browser, servers: list[TlsServer]) -> None:
    """The first Tab skips to the content; a section opens with Enter, and its download is next;
    the focus can be seen."""
    browser.open(PAGE)
    focused = "document.activeElement"
    browser.press("Tab")
    assert browser.evaluate(f"{focused}.innerText") == "Skip to the content"
    assert browser.evaluate(f"{focused}.getBoundingClientRect().top >= 0")
    browser.press("Enter")
    browser.press("Tab")
    assert browser.evaluate(f"{focused}.tagName") == "SUMMARY"
    assert browser.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    browser.press("Enter")
    assert browser.evaluate(f"{focused}.parentElement.open")
    browser.press("Tab")
    assert browser.evaluate(f"{focused}.className") == "download"


def test_the_chain_is_what_the_link_leads_to(browser: Browser, servers: list[TlsServer]) -> None:
    """The browser gets it as a file, and not as a page of ours."""
    browser.open(PAGE)
    chain = browser.evaluate(
        "fetch(document.querySelector('.incomplete .download').href).then(answer => answer.text())"
    )
    assert chain.count("-----BEGIN CERTIFICATE-----") == 2


@pytest.mark.parametrize("path", ["", "cache", "settings"])
def test_only_the_page_itself_is_asked(
    browser: Browser, servers: list[TlsServer], path: str
) -> None:
    """Nothing is fetched from elsewhere."""
    browser.open(PAGE + path)
    asked = browser.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert f"{PAGE}style.css" in asked
    assert all(each.startswith(PAGE) for each in asked)
