"""Makes docs/pictures: what the programs really show, of servers in a network of their own."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.page_picture import page
from scripts.terminal_svg import picture
from tests.lab import CaIssuersServer, Network, TlsServer, authority, trust_file
from tests.lab.terminal import in_terminal

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
NAMES = {
    "www.example.com": "93.184.216.34",
    "shop.example.com": "93.184.216.35",
    "old.example.com": "93.184.216.36",
    "ca.example.com": "93.184.216.40",
}
_COMMAND = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from tests.scripts import known_names
from mitmproxy_aia import cli
cli.main(sys.argv[2:])
"""


def check() -> str:
    """What `mitmproxy-aia check` shows in a terminal: an incomplete server, and three."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = stack.enter_context(Network(world=[*NAMES.values()], own=["8.8.8.8"]))
        root = authority("Example Root CA")
        intermediate = root.issue("Example Intermediate CA", ca=True)
        with network.world():
            ca = CaIssuersServer(NAMES["ca.example.com"], 80)
            ca.serve("/intermediate.der", intermediate.der)
        url = "http://ca.example.com/intermediate.der"
        stack.callback(_close, network, ca)
        for name, presented, expired in (
            ("www.example.com", [], False),
            ("shop.example.com", [intermediate], False),
            ("old.example.com", [intermediate], True),
        ):
            leaf = intermediate.issue(name, hosts=[name], aia=[url], expired=expired)
            with network.world():
                server = TlsServer(leaf, *presented, host=NAMES[name], port=443)
            stack.callback(_close, network, server)
        trust = trust_file(folder / "roots.pem", root)
        told = ["check www.example.com", "check " + " ".join([*NAMES][:3])]
        return "\n\n".join(_shown(command, trust) for command in told)


def _close(network: Network, server: CaIssuersServer | TlsServer) -> None:
    with network.world():
        server.close()


def _shown(arguments: str, trust: Path) -> str:
    """A command line, and what the terminal shows of it."""
    command = [sys.executable, "-c", _COMMAND, f"{ROOT}:{ROOT / 'addon'}", *arguments.split()]
    names = ",".join(f"{name}={address}" for name, address in NAMES.items())
    _, shown = in_terminal(
        [*command, "--trust", str(trust)], environment={"NAMES": names, "PYTHONUTF8": "1"}
    )
    # What was wiped out again, as the progress bar is, is not to be seen.
    kept = "\n".join(line.rpartition("\r\x1b[K")[2] for line in shown.split("\n"))
    kept = kept.replace(str(trust), "/etc/ssl/example-root.pem")
    return f"\x1b[2m$\x1b[0m \x1b[1mmitmproxy-aia {arguments}\x1b[0m\n{kept.rstrip()}"


def main(folder: Path = FOLDER) -> int:
    """Makes all of them in `folder`. Returns the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for file in _made(folder):
            print(f"{file}: {file.stat().st_size:,} bytes")
    except PermissionError:
        print("only an administrator may make the network for it", file=sys.stderr)
        return 1
    return 0


def _made(folder: Path) -> Iterator[Path]:
    file = folder / "check.svg"
    file.write_text(picture(check(), "mitmproxy-aia check, in a terminal"), encoding="utf-8")
    yield file
    yield from page(folder)


if __name__ == "__main__":
    sys.exit(main())
