"""Egress between real addresses: a server in public, one in the private network, and what each
of them may have a mitmdump download from there."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Network, Proxy, TlsServer
from tests.test_addon import REMOTE_CONTROL, order
from tests.test_egress_end_to_end import KNOWN_NAMES

PUBLIC, ALSO_PUBLIC, SIX = "93.184.216.34", "1.1.1.1", "2606:2800:220:1::1"
PRIVATE, ALSO_PRIVATE, UNIQUE_LOCAL = "10.0.0.5", "192.168.7.7", "fd12:3456::5"
METADATA = "169.254.169.254"
OWN, OWN_PUBLIC, OWN_SIX = "10.0.0.1", "8.8.8.8", "2606:4700::9"
WORLD = [PUBLIC, ALSO_PUBLIC, SIX, PRIVATE, ALSO_PRIVATE, UNIQUE_LOCAL, METADATA]


def host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@dataclass
class Lab:
    """A mitmdump at `OWN`, and a caIssuers server at each address of the other end."""

    network: Network
    world: World
    servers: dict[tuple[str, int], CaIssuersServer]

    def publish(self, issuer: Issued, address: str, port: int = 80) -> str:
        path = self.world.path()
        self.servers[address, port].serve(path, issuer.der)
        return f"http://{host(address)}{'' if port == 80 else f':{port}'}{path}"

    def ask(self, server_at: str, issuer: Issued, *urls: str) -> str:
        """What comes of a request to a server at this address with such URLs in its leaf:
        "200", or why it was refused."""
        leaf = issuer.issue(hosts=[server_at], aia=urls)
        if server_at in (OWN, OWN_PUBLIC):
            server = TlsServer(leaf, host=server_at)
        else:
            with self.network.world():
                server = TlsServer(leaf, host=server_at)
        try:
            reply = self.world.get(server.url(host=host(server_at)))
            return reply.error_text or str(reply.status)
        finally:
            if server_at in (OWN, OWN_PUBLIC):
                server.close()
            else:
                with self.network.world():
                    server.close()

    def connections(self) -> int:
        return sum(server.connections for server in self.servers.values())


@pytest.fixture(scope="module")
def lab(root: Issued) -> Iterator[Lab]:
    try:
        network = Network(world=WORLD, own=[OWN, OWN_PUBLIC, OWN_SIX])
    except PermissionError:
        pytest.skip("only an administrator may make networks")
    servers: dict[tuple[str, int], CaIssuersServer] = {}
    with network:
        try:
            with network.world():
                for place in itertools.product(WORLD, (80, 8080)):
                    servers[place] = CaIssuersServer(*place)
            for place in (OWN, 80), (OWN_PUBLIC, 80), ("127.0.0.1", 8080):
                servers[place] = CaIssuersServer(*place)
            names = f"inside.test={PRIVATE},outside.test={PUBLIC}"
            with Proxy(
                trust=[root],
                scripts=[REMOTE_CONTROL, KNOWN_NAMES],
                options={"aia_timeout": 3},
                environment={"NAMES": names},
                fresh=True,
            ) as proxy:
                yield Lab(network, World(root, servers[PUBLIC, 80], proxy), servers)
        finally:
            for (address, _), server in servers.items():
                if address in WORLD:
                    with network.world():
                        server.close()
                else:
                    server.close()


@pytest.mark.parametrize(
    ("server_at", "issuer_at", "port"),
    [
        (PUBLIC, PUBLIC, 80),
        (PUBLIC, ALSO_PUBLIC, 80),
        (PUBLIC, SIX, 80),
        (SIX, PUBLIC, 80),
        (PRIVATE, ALSO_PRIVATE, 80),
        (PRIVATE, PRIVATE, 8080),
        (PRIVATE, UNIQUE_LOCAL, 80),
        (UNIQUE_LOCAL, PRIVATE, 80),
        (PRIVATE, PUBLIC, 80),
        (PRIVATE, OWN, 80),
        (PRIVATE, OWN_PUBLIC, 80),
        (OWN, PRIVATE, 80),
        (OWN_PUBLIC, OWN_PUBLIC, 80),
    ],
)
def test_may(lab: Lab, server_at: str, issuer_at: str, port: int) -> None:
    """What is as public as the server, or more so, is downloaded with no setting at all."""
    issuer = lab.world.authority()
    assert lab.ask(server_at, issuer, lab.publish(issuer, issuer_at, port)) == "200"


IN_PRIVATE, ON_THIS = "is in the private network", "is on this machine"


@pytest.mark.parametrize(
    ("server_at", "issuer_at", "port", "words"),
    [
        (PUBLIC, PRIVATE, 80, f"{IN_PRIVATE}, {PUBLIC} is not (aia_allow)"),
        (PUBLIC, UNIQUE_LOCAL, 80, f"{IN_PRIVATE}, {PUBLIC} is not (aia_allow)"),
        (SIX, ALSO_PRIVATE, 80, f"{IN_PRIVATE}, {SIX} is not (aia_allow)"),
        (PUBLIC, OWN, 80, f"{IN_PRIVATE}, {PUBLIC} is not (aia_allow)"),
        (PUBLIC, OWN_PUBLIC, 80, f"{ON_THIS}, {PUBLIC} is not (aia_allow)"),
        (PUBLIC, "127.0.0.1", 8080, f"{ON_THIS}, {PUBLIC} is not (aia_allow)"),
        (PRIVATE, "127.0.0.1", 8080, f"{ON_THIS}, {PRIVATE} is not (aia_allow)"),
        (PUBLIC, ALSO_PUBLIC, 8080, "names port 8080, and only 80 is used in public (aia_allow)"),
    ],
)
def test_may_not(lab: Lab, server_at: str, issuer_at: str, port: int, words: str) -> None:
    """What is less public is not even connected to, and there all the same: aia_allow opens it."""
    issuer = lab.world.authority()
    url = lab.publish(issuer, issuer_at, port)
    before = lab.connections()
    assert f"refused: {url} {words}" in lab.ask(server_at, issuer, url)
    assert lab.connections() == before
    assert order(lab.world, f"aia_allow={host(issuer_at)}:{port}").status == 200
    try:
        assert lab.ask(server_at, issuer, url) == "200"
    finally:
        assert order(lab.world, "aia_allow").status == 200


def test_ways_inwards(lab: Lab) -> None:
    """A name, a redirect, a disguise of a private address, and the metadata service: nothing of
    all that is connected to for a server in public, or at all."""
    issuer = lab.world.authority()
    inside = lab.publish(issuer, PRIVATE)
    path = lab.world.path()
    lab.servers[PUBLIC, 80].redirect(path, inside)
    hop = f"http://outside.test{path}"
    before = lab.servers[PRIVATE, 80].connections
    metadata = lab.publish(issuer, METADATA)
    named = inside.replace(PRIVATE, "inside.test")
    mapped = inside.replace(PRIVATE, "[::ffff:10.0.0.5]")
    text = lab.ask(PUBLIC, issuer, named, hop, mapped)
    why = f"is in the private network, {PUBLIC} is not (aia_allow)"
    assert f"refused: {named} is in the private network (10.0.0.5), {PUBLIC} is not" in text
    assert f"refused: {hop} led to {inside}, which {why}" in text
    assert f"refused: {mapped} {why}" in text
    assert lab.servers[PRIVATE, 80].connections == before
    for server_at in PUBLIC, PRIVATE:
        assert "is a cloud's metadata service" in lab.ask(server_at, issuer, metadata)
    assert lab.servers[METADATA, 80].connections == 0
