"""The ways to use mitmproxy: its front ends, replaying, and as a part of another program."""

import sys
from pathlib import Path

from tests.conftest import World
from tests.lab import Issued, TlsServer, curl, trust_file
from tests.lab.process import Process
from tests.lab.proxy import ADDON

SCRIPTS = Path(__file__).parent / "scripts"


def test_embedded(world: World, root: Issued, tmp_path: Path) -> None:
    """`master.addons.add(Aia())` in somebody's program is all that it takes."""
    issuer = world.authority()
    roots = trust_file(tmp_path / "roots.pem", root)
    environment = {"PYTHONPATH": str(ADDON.parent), "PYTHONUNBUFFERED": "1"}
    command: list[str | Path] = [sys.executable, SCRIPTS / "embedding.py", roots]
    with (
        Process(command, environment=environment) as program,
        TlsServer(issuer.issue(aia=[world.published(issuer)])) as server,
    ):
        port = program.wait_for(r"listening at 127\.0\.0\.1:(\d+)")[1]
        reply = curl(server.url(), "--insecure", "--proxy", f"http://127.0.0.1:{port}")
        assert (reply.status, reply.error_text) == (200, "")
