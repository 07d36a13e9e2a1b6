"""Clients that know of no proxy: transparent mode behind a redirect rule, and WireGuard mode, in
networks that the tests make themselves."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mitmproxy_rs import wireguard

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Network, Proxy, curl
from tests.lab.process import Process, find_program
from tests.three_chains import KINDS, Kind, make_chain

CLIENT, OWN, SERVER = "192.168.7.5", "192.168.7.1", "192.168.7.9"
IN_THE_TUNNEL = "10.9.9.9"


@dataclass
class Lab:
    """A client at one end of a cable; mitmdump, the servers and their issuers at the other."""

    network: Network
    world: World


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        made = Network(world=[CLIENT], own=[OWN, SERVER])
    except PermissionError:
        pytest.skip("only an administrator may make networks")
    with made:
        yield made


@pytest.fixture(scope="module")
def transparent(root: Issued, network: Network) -> Iterator[Lab]:
    """Whatever comes in over the cable is redirected to the proxy."""
    with (
        CaIssuersServer(OWN) as ca,
        Proxy(trust=[root], mode="transparent", host=OWN, fresh=True) as proxy,
    ):
        rule = ["PREROUTING", "-i", "inside", "-p", "tcp", "-j", "REDIRECT"]
        rule += ["--to-ports", str(proxy.port)]
        run("iptables", "-t", "nat", "-A", *rule)
        try:
            yield Lab(network, World(root, ca, proxy))
        finally:
            run("iptables", "-t", "nat", "-D", *rule)


@pytest.fixture(scope="module")
def tunnelled(root: Issued, network: Network) -> Iterator[Lab]:
    """The client's packets for the server go through WireGuard to the proxy."""
    device = f"wg{os.getpid()}"
    with (
        CaIssuersServer(OWN) as ca,
        Proxy(trust=[root], mode="wireguard", host=OWN, fresh=True) as proxy,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        keys = json.loads((proxy.confdir / "wireguard.conf").read_text())
        private = Path(folder, "key")
        private.write_text(keys["client_key"])
        peer = ["peer", wireguard.pubkey(keys["server_key"]), "allowed-ips", "0.0.0.0/0"]
        with network.world():
            wireguard_client(device, stack)
            endpoint = ["endpoint", f"{OWN}:{proxy.port}"]
            run("wg", "set", device, "private-key", str(private), *peer, *endpoint)
            run("ip", "address", "add", f"{IN_THE_TUNNEL}/32", "dev", device)
            run("ip", "link", "set", device, "up")
            run("ip", "route", "add", f"{SERVER}/32", "dev", device, "src", IN_THE_TUNNEL)
        yield Lab(network, World(root, ca, proxy))


def wireguard_client(device: str, stack: contextlib.ExitStack) -> None:
    """Not the kernel's, which not every machine has. Skips the test as `run` does."""
    try:
        command = [find_program("wireguard-go"), "--foreground", device]
        client = stack.enter_context(Process(command, environment={"LOG_LEVEL": "verbose"}))
        client.wait_for("UAPI listener started")
    except (FileNotFoundError, RuntimeError) as error:
        pytest.skip(str(error))


def run(program: str, *arguments: str) -> None:
    """Skips the test, which in CI is a failure, where the machine does not allow that."""
    try:
        subprocess.run([find_program(program), *arguments], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["transparent", "tunnelled"])
def test_client_that_knows_of_no_proxy(
    request: pytest.FixtureRequest, mode: str, kind: Kind
) -> None:
    """It connects to the server's address and finds mitmproxy there."""
    lab: Lab = request.getfixturevalue(mode)
    chain = make_chain(lab.world, kind, hosts=[SERVER])
    with chain.server(host=SERVER) as server:
        with lab.network.world():
            trust = ["--cacert", str(lab.world.proxy.ca_file)]
            reply = curl(server.url(host=SERVER), *trust)
        chain.assert_answered(server, reply)
