"""The commands aia.servers and aia.status, in a running mitmdump."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import cast

import pytest
from mitmproxy.test import taddons

from mitmproxy_aia import Aia
from mitmproxy_aia.counters import Counters
from mitmproxy_aia.history import History
from mitmproxy_aia.status_commands import StatusCommands
from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority
from tests.test_addon import REMOTE_CONTROL, order
from tests.test_history import incomplete


@pytest.fixture
def fresh(root: Issued) -> Iterator[World]:
    """A proxy that has seen nothing yet."""
    options: dict[str, str | int | float] = {"aia_timeout": 2, "aia_cache": "memory"}
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options=options) as proxy,
    ):
        yield World(root, ca, proxy)


def table(world: World, command: str) -> list[list[str]]:
    rows: list[list[str]] = json.loads(order(world, f"run/{command}").body)
    return rows


def test_servers_and_status(fresh: World) -> None:
    """What happened is in both, and a server that was mended is told from one that was not."""
    assert len(table(fresh, "aia.servers")) == 1
    issuer = fresh.authority()
    url = fresh.published(issuer)
    leaf = issuer.issue(aia=[url])
    refused = authority("Stranger").issue(aia=[fresh.ca.url("/404.der")])
    with (
        TlsServer(leaf) as first,
        TlsServer(leaf) as second,
        TlsServer(refused) as broken,
        TlsServer(fresh.root.issue()) as complete,
    ):
        expected = [200, 200, 502, 200, 200]
        servers = [first, second, broken, complete, complete]
        assert [fresh.get(server.url()).status for server in servers] == expected
        head, *rows = table(fresh, "aia.servers")
    assert head == ["server", "verdict", "missing, or why it is broken", "last time (UTC)"]
    names = [f"127.0.0.1:{server.port}" for server in (broken, second, first)]
    assert [row[:2] for row in rows] == [
        [names[0], "broken"],
        [names[1], "incomplete"],
        [names[2], "incomplete"],
    ]
    subject = "CN=Lab Intermediate 0"
    assert [row[2] for row in rows[1:]] == [f"{subject} at {url}", f"{subject} at {url}"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[3]) for row in rows)
    assert rows[0][2].startswith("unable to get local issuer certificate (AIA: ")
    facts = dict(table(fresh, "aia.status")[1:])
    assert facts["handshakes with a complete chain"] == "2"
    assert facts["chains completed from memory"] == "1"
    assert facts["chains completed from downloads (AIA)"] == "1"
    assert facts["broken chains"] == "1"
    assert (facts["downloads: ok"], facts["downloads: failed"]) == ("1", "1")
    assert facts["missing intermediates found in memory"] == "1"
    assert facts["intermediates in memory"] == "1"
    assert facts["servers in aia.servers"] == "3"
    assert re.fullmatch(r"\d+\.\d s, \d+ ms on average", facts["paused, in all"])


def test_a_server_that_was_mended(fresh: World) -> None:
    """It now sends what it had forgotten."""
    issuer = fresh.authority()
    leaf = issuer.issue(aia=[fresh.published(issuer)])
    with TlsServer(leaf) as server:
        assert fresh.get(server.url()).status == 200
        server.present(leaf, issuer)
        assert fresh.get(server.url()).status == 200
    [row] = table(fresh, "aia.servers")[1:]
    assert row[:2] == [f"127.0.0.1:{server.port}", "complete now"]


def test_audit_is_told(fresh: World) -> None:
    """What could have been completed was refused."""
    assert order(fresh, "aia_mode=audit").status == 200
    issuer = fresh.authority()
    with TlsServer(issuer.issue(aia=[fresh.published(issuer)])) as server:
        assert fresh.get(server.url()).status == 502
    [row] = table(fresh, "aia.servers")[1:]
    assert row[1] == "incomplete, refused (audit)"
    facts = dict(table(fresh, "aia.status")[1:])
    assert facts["chains completed from downloads (AIA), and refused (audit)"] == "1"


def test_settings_without_passwords(fresh: World) -> None:
    """Those in force are told, and secrets are not."""
    for option in (
        "aia_cache=redis://user:secret-1@127.0.0.1:1/0",
        "aia_proxy=http://user:secret-2@127.0.0.1:1",
        "aia_allow=10.1.2.3",
        "upstream_auth=user:secret-3",
    ):
        assert order(fresh, option).status == 200
    rows = table(fresh, "aia.status")
    settings = dict(rows[1:])
    assert settings["aia_mode"] == "complete"
    assert settings["aia_timeout"] == "2"
    assert settings["aia_allow"] == "10.1.2.3"
    assert settings["aia_proxy"] == "http://***@127.0.0.1:1"
    assert "127.0.0.1:1/0" in settings["aia_cache"]
    assert settings["aia_report"] == "(not set)"
    assert "secret" not in json.dumps(rows)


def test_commands_are_documented() -> None:
    """The console shows what each of ours does."""

    async def main() -> None:
        with taddons.context(Aia()) as context:
            ours = {
                name: each
                for name, each in context.master.commands.commands.items()
                if name.startswith("aia.")
            }
            assert {"aia.servers", "aia.status", "aia.cache.list"} <= ours.keys()
            assert all(len(each.help or "") > 30 for each in ours.values())

    asyncio.run(main())


def test_strangers_names_are_printable() -> None:
    """A table in a terminal holds no control characters, whatever a server says."""
    history = History()
    history.note("bad\x1b[31m\x07:443", incomplete(origin="http://a/\x1b[2J" + "x" * 10_000))
    _, row = cast(list[list[str]], StatusCommands(history, Counters(), lambda: 0).servers())
    assert all(cell.isprintable() for cell in row)
    assert max(map(len, row)) < 400
