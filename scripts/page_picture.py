"""The page http://mitm.aia/ as a picture: a real mitmdump, real servers, a real browser."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab import (
    Browser,
    CaIssuersServer,
    Issued,
    Network,
    Proxy,
    TlsServer,
    authority,
    curl,
)

ROOT = Path(__file__).resolve().parents[1]
KNOWN_NAMES = ROOT / "tests" / "scripts" / "known_names.py"
NAMES = {
    "www.example.com": "93.184.216.34",
    "shop.example.com": "93.184.216.35",
    "ca.example.com": "93.184.216.40",
}
WIDTH = 1000
QUALITY = 70
"""Percent. Text is sharp, and a picture has some 50 KB."""

# Debian's own choice is DejaVu Sans, which hardly any desktop has as its font.
_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><include>/etc/fonts/fonts.conf</include>
<match><test name="family"><string>sans-serif</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
</fontconfig>"""


def page(folder: Path) -> Iterator[Path]:
    """Writes the picture, light and dark, into `folder` (Linux, as root). Yields what it wrote."""
    with contextlib.ExitStack() as stack:
        proxy = _world(stack)
        fonts = Path(stack.enter_context(tempfile.TemporaryDirectory()), "fonts.conf")
        fonts.write_text(_FONTS, encoding="utf-8")
        environment = {"FONTCONFIG_FILE": str(fonts)}
        browser = stack.enter_context(Browser(proxy, environment=environment))
        for name, dark in (("page", False), ("page-dark", True)):
            browser.look(width=WIDTH, dark=dark)
            browser.open("http://mitm.aia/")
            browser.evaluate("document.querySelector('details').open = true")
            end = browser.evaluate(
                "document.querySelector('article').getBoundingClientRect().bottom"
            )
            browser.look(width=WIDTH, height=round(end) + 24, dark=dark)
            file = folder / f"{name}.webp"
            file.write_bytes(browser.screenshot("webp", quality=QUALITY))
            yield file


def _world(stack: contextlib.ExitStack) -> Proxy:
    """A proxy that has met two servers: one is incomplete, one is broken."""
    network = stack.enter_context(Network(world=[*NAMES.values()], own=["8.8.8.8"]))
    root = authority("Example Root CA")
    intermediate = root.issue("Example Intermediate R3", ca=True)
    strange = authority("Unknown Root").issue("Shop Issuing CA", ca=True)
    with network.world():
        ca = CaIssuersServer(NAMES["ca.example.com"], 80)
    stack.callback(_close, network, ca)
    ca.serve("/r3.cer", intermediate.der)
    url = "http://ca.example.com/r3.cer"
    hosts: Mapping[str, Issued] = {
        "shop.example.com": strange.issue("shop.example.com", hosts=["shop.example.com"]),
        "www.example.com": intermediate.issue(
            "www.example.com", hosts=["www.example.com"], aia=[url]
        ),
    }
    names = ",".join(f"{name}={address}" for name, address in NAMES.items())
    proxy = stack.enter_context(
        Proxy(trust=[root], scripts=[KNOWN_NAMES], environment={"NAMES": names}, fresh=True)
    )
    for name, leaf in hosts.items():
        with network.world():
            server = TlsServer(leaf, host=NAMES[name], port=443)
        stack.callback(_close, network, server)
        curl(f"https://{name}/", proxy=proxy)
    return proxy


def _close(network: Network, server: CaIssuersServer | TlsServer) -> None:
    with network.world():
        server.close()
