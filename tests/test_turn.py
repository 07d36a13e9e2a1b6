"""Whose turn it is: TlsConfig's first, then ours, unless somebody else has done the work."""

import asyncio
from types import SimpleNamespace

import pytest
from mitmproxy.test import taddons

from mitmproxy_aia import Aia
from mitmproxy_aia.turn import Turn


class TlsConfig:
    """Like mitmproxy's, as far as its turn is concerned."""

    name = "tlsconfig"

    def tls_start_server(self, data: SimpleNamespace) -> None:
        if data.ssl_conn is None:
            data.ssl_conn = "TlsConfig's"


class Witness:
    def __init__(self) -> None:
        self.saw: list[str] = []
        self.turn = Turn("tls_start_server", "ssl_conn", self.look)

    def look(self, data: SimpleNamespace) -> None:
        self.saw.append(data.ssl_conn)


def call(tlsconfig: TlsConfig, ssl_conn: str | None = None) -> str | None:
    data = SimpleNamespace(ssl_conn=ssl_conn)
    tlsconfig.tls_start_server(data)
    made: str | None = data.ssl_conn
    return made


def test_after_tlsconfig() -> None:
    """Once for each connection that it has made, until the turn is given back."""
    tlsconfig, other, witness = TlsConfig(), TlsConfig(), Witness()
    witness.turn.take(tlsconfig)
    witness.turn.take(tlsconfig)
    assert [call(tlsconfig), call(other)] == ["TlsConfig's"] * 2
    assert witness.saw == ["TlsConfig's"]
    witness.turn.give_back()
    witness.turn.give_back()
    assert call(tlsconfig) == "TlsConfig's"
    assert len(witness.saw) == 1
    assert vars(tlsconfig) == {}


def test_connection_of_another_addon() -> None:
    """Is not ours to look at."""
    tlsconfig, witness = TlsConfig(), Witness()
    witness.turn.take(tlsconfig)
    assert call(tlsconfig, "mine") == "mine"
    assert witness.saw == []


def test_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """TlsConfig's exceptions are its own, and then there is nothing to look at."""
    tlsconfig, witness = TlsConfig(), Witness()
    witness.turn.take(tlsconfig)
    monkeypatch.delattr(TlsConfig, "tls_start_server")
    with pytest.raises(AttributeError, match="tls_start_server"):
        call(tlsconfig)
    assert witness.saw == []


@pytest.mark.parametrize("order", ["last in, first out", "first in, first out"])
def test_two_turns(order: str) -> None:
    """Whoever gives back first: the other one keeps its turn, and nothing is left at the end."""
    tlsconfig, first, second = TlsConfig(), Witness(), Witness()
    first.turn.take(tlsconfig)
    second.turn.take(tlsconfig)
    assert call(tlsconfig) == "TlsConfig's"
    assert (len(first.saw), len(second.saw)) == (1, 1)
    leaves, stays = (second, first) if order.startswith("last") else (first, second)
    leaves.turn.give_back()
    assert call(tlsconfig) == "TlsConfig's"
    assert (len(leaves.saw), len(stays.saw)) == (1, 2)
    stays.turn.give_back()
    assert call(tlsconfig) == "TlsConfig's"
    assert (len(leaves.saw), len(stays.saw)) == (1, 2)


def test_addon_that_wraps_and_gives_back() -> None:
    """It puts back what it found: a hook of ours from before we were reloaded. The turn is
    still that of the one who has it, once for each connection."""
    tlsconfig, old, new = TlsConfig(), Witness(), Witness()
    old.turn.take(tlsconfig)
    found = tlsconfig.tls_start_server
    tlsconfig.tls_start_server = lambda data: found(data)  # type: ignore[method-assign]
    old.turn.give_back()
    new.turn.take(tlsconfig)
    call(tlsconfig)
    assert (len(old.saw), len(new.saw)) == (0, 1)
    tlsconfig.tls_start_server = found  # type: ignore[method-assign]
    call(tlsconfig)
    assert (len(old.saw), len(new.saw)) == (0, 2)
    new.turn.give_back()
    call(tlsconfig)
    assert (len(old.saw), len(new.saw)) == (0, 2)


def test_without_tlsconfig() -> None:
    """A mitmproxy that makes no connections: nothing to take, and nothing to give back."""

    async def main() -> None:
        with taddons.context(Aia()) as context:
            ours = context.master.addons.get("aia")
            context.options.aia_cache = "memory"
            ours.running()
            context.master.addons.remove(ours)

    asyncio.run(main())


def test_tlsconfig_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there when mitmproxy runs, if not when our addon is loaded."""

    async def main() -> None:
        with taddons.context(Aia()) as context:
            context.options.aia_cache = "memory"
            ours, tlsconfig = context.master.addons.get("aia"), TlsConfig()
            seen: list[object] = []
            monkeypatch.setattr(ours._turns[0], "_after", seen.append)
            context.master.addons.add(tlsconfig)
            call(tlsconfig)
            assert seen == []
            ours.running()
            call(tlsconfig)
            assert len(seen) == 1
            context.master.addons.remove(ours)
            assert vars(tlsconfig) == {}

    asyncio.run(main())
