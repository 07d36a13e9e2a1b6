"""What `scripts/demo` shows: stock mitmproxy and the addon in front of the same servers.

All of it is real and on this machine: a caIssuers server, two TLS servers that send only
their leaf, two mitmdumps, and curl. What is said to have happened is checked, and the exit
status is 0 only if it has.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.lab import CaIssuersServer, Issued, Proxy, Reply, TlsServer, authority, curl

WIDTH = 79
INDENT = 3
TRUST = "--set ssl_verify_upstream_trusted_ca=demo.pem"
BODY = b"hello from a server that works in your browser"

_TIME_AND_CLIENT = re.compile(r"^\[[\d:.]+\](\[[^\]]*\])?\s*")


class NotAsClaimed(Exception):
    """Something that the demonstration says did not happen."""


class Screen:
    """Prints the story: in colour on a terminal, plain anywhere else."""

    def __init__(self) -> None:
        self._colours = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def heading(self, text: str) -> None:
        print(f"\n{self._paint('1', text)}")

    def text(self, text: str) -> None:
        self._block("", text)

    def fact(self, label: str, text: str) -> None:
        self._block(f"{label:<19}", text, "36")

    def command(self, text: str) -> None:
        self._block("$ ", text, "2", text_colour="2")

    def answer(self, reply: Reply) -> None:
        text = reply.error_text or reply.body.decode()
        self._block(f"{reply.status}  ", text, "1;32" if reply.status == 200 else "1;31")

    def log(self, line: str) -> None:
        self._block("log  ", line, "33")

    def good(self, text: str) -> None:
        self._block("ok   ", text, "32")

    def end(self, text: str, *, good: bool) -> None:
        print(f"\n{self._paint('1;32' if good else '1;31', text)}")

    def _block(self, label: str, text: str, colour: str = "", *, text_colour: str = "") -> None:
        """`text` beside its label, each line of it within the width."""
        margin = INDENT + len(label)
        lines = textwrap.wrap(text, WIDTH - margin, break_on_hyphens=False) or [""]
        print(" " * INDENT + self._paint(colour, label) + self._paint(text_colour, lines[0]))
        for line in lines[1:]:
            print(" " * margin + self._paint(text_colour, line))

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour and text.strip() else text


@dataclass(frozen=True)
class Stage:
    """The servers, and the two proxies in front of them."""

    ca_issuers: CaIssuersServer
    incomplete: TlsServer
    untrusted: TlsServer
    stock: Proxy
    addon: Proxy

    @property
    def downloads(self) -> int:
        return sum(self.ca_issuers.downloads.values())


def show(screen: Screen, stack: contextlib.ExitStack) -> None:
    """The demonstration. Raises NotAsClaimed; what it has started is left on `stack`."""
    screen.heading("mitmproxy-aia: incomplete certificate chains, completed")
    screen.text("All on this machine: no internet, and nothing is left behind.")

    ca_issuers = stack.enter_context(CaIssuersServer())
    root = authority("Demo Root")
    leaf, missing_url = _issue(ca_issuers, root, "Demo Intermediate")
    stranger = authority("Stranger Root")
    bad_leaf, _url = _issue(ca_issuers, stranger, "Stranger Intermediate")

    screen.heading("The cast")
    screen.fact("Demo Root", "the only root that both proxies below trust")
    screen.fact("Demo Intermediate", "issued by it; anyone can download it at")
    screen.fact("", missing_url)
    screen.fact("a web server", "certified by Demo Intermediate, but it sends nothing")
    screen.fact("", "beside its own certificate: an incomplete chain")
    stage = _start(stack, ca_issuers, root, leaf, bad_leaf)

    _stock_refuses(screen, stage)
    _addon_completes(screen, stage)
    _addon_remembers(screen, stage)
    _addon_refuses(screen, stage)


def _issue(ca_issuers: CaIssuersServer, root: Issued, name: str) -> tuple[Issued, str]:
    """A leaf under an intermediate of this name, and the URL at which the latter is. The root
    is offered there as well: it must not be trusted for that."""
    path = name.lower().replace(" ", "-")
    root_url = ca_issuers.serve(f"/{path}-root.cer", root.der)
    intermediate = root.issue(name, ca=True, aia=[root_url])
    url = ca_issuers.serve(f"/{path}.cer", intermediate.der)
    return intermediate.issue("a web server", aia=[url]), url


def _start(
    stack: contextlib.ExitStack,
    ca_issuers: CaIssuersServer,
    root: Issued,
    leaf: Issued,
    bad_leaf: Issued,
) -> Stage:
    def proxy(addon: bool) -> Proxy:
        # Entered here, so that a Ctrl-C meanwhile leaves none behind.
        return stack.enter_context(Proxy(trust=[root], addon=addon))

    incomplete = stack.enter_context(TlsServer(leaf, body=BODY))
    untrusted = stack.enter_context(TlsServer(bad_leaf, body=BODY))
    with ThreadPoolExecutor() as pool:
        stock, addon = pool.map(proxy, [False, True])
    return Stage(ca_issuers, incomplete, untrusted, stock, addon)


def _stock_refuses(screen: Screen, stage: Stage) -> None:
    screen.heading("1  Through mitmproxy as it is")
    screen.command(f"mitmdump {TRUST}")
    reply = _request(screen, stage.incomplete, stage.stock)
    _claim(reply.status == 502, "the stock proxy refuses the incomplete chain", stage.stock)
    screen.good("refused; the usual advice now is to turn all verification off")


def _addon_completes(screen: Screen, stage: Stage) -> None:
    screen.heading("2  Through mitmproxy with the addon")
    screen.command(f"mitmdump {TRUST} -s addon/aia.py")
    connections = stage.incomplete.connections
    reply = _request(screen, stage.incomplete, stage.addon)
    _claim(reply.status == 200, "the addon completes the chain", stage.addon)
    _claim(reply.body == BODY, "the body is the server's", stage.addon)
    _show_log(screen, stage, r"sent an incomplete chain; found \"CN=Demo Intermediate\".* ms")
    _claim(
        stage.incomplete.connections == connections + 1,
        "the server sees one connection",
        stage.addon,
    )
    _claim(stage.downloads == 1, "there is one download", stage.addon)
    screen.good("on the first request: one download, one connection to the server")


def _addon_remembers(screen: Screen, stage: Stage) -> None:
    screen.heading("3  The same request again")
    reply = _request(screen, stage.incomplete, stage.addon)
    _claim(reply.status == 200, "the server is still accepted", stage.addon)
    _claim(stage.downloads == 1, "nothing is downloaded again", stage.addon)
    screen.good(f"no download: the intermediate is remembered ({reply.seconds * 1000:.0f} ms)")


def _addon_refuses(screen: Screen, stage: Stage) -> None:
    screen.heading("4  A server whose chain leads to a root that nobody trusts")
    downloads = stage.downloads
    reply = _request(screen, stage.untrusted, stage.addon)
    _claim(reply.status == 502, "an untrusted chain is refused", stage.addon)
    _claim(stage.downloads > downloads, "its intermediate was downloaded", stage.addon)
    screen.good("still refused: a download can fill a gap, but never bring trust")


def _request(screen: Screen, server: TlsServer, proxy: Proxy) -> Reply:
    screen.command(f"curl --proxy {proxy.url} {server.url()}")
    reply = curl(server.url(), proxy=proxy)
    screen.answer(reply)
    return reply


def _show_log(screen: Screen, stage: Stage, pattern: str) -> None:
    try:
        line = stage.addon.wait_for(rf"^.*{pattern}.*$", timeout=5)[0]
    except RuntimeError as error:
        raise NotAsClaimed(f"the log says so\n\n{error}") from error
    screen.log(_TIME_AND_CLIENT.sub("", line))


def _claim(true: bool, text: str, proxy: Proxy) -> None:
    if not true:
        raise NotAsClaimed(f"{text}\n\nWhat the proxy has logged:\n{proxy.log}")


def main() -> int:
    """Runs the demonstration; the result is the exit status."""
    started = time.monotonic()
    screen = Screen()
    # An unprintable character is no reason for a traceback, and each step is to be seen
    # while it happens.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with contextlib.ExitStack() as stack:
            show(screen, stack)
            seconds = time.monotonic() - started
    except KeyboardInterrupt:
        screen.end("Interrupted. All servers and proxies have been ended.", good=False)
        return 130
    except NotAsClaimed as error:
        screen.end(f"This is not what happened: {error}", good=False)
        return 1
    except FileNotFoundError as error:
        screen.end(f"{error}", good=False)
        return 1
    except BrokenPipeError:
        # Whoever read this has seen enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    screen.end(f"All four as they should be, in {seconds:.1f} s.", good=True)
    screen.text("Your turn: ./scripts/run, and point a client at http://127.0.0.1:8080")
    return 0


if __name__ == "__main__":
    sys.exit(main())
