"""The small internet of a part: authorities, servers, and where issuers are published."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.nginx import Site, addresses, file_server, nginx
from tests.lab import Issued, Proxy, authority

# As mitmdump is by default, but without a line for each request.
OPTIONS: Mapping[str, str | int | float] = {"termlog_verbosity": "info", "flow_detail": 0}


@dataclass
class World:
    """Servers under one root. They are there when `serving()` is entered.

    `www` is a folder, published at `http://127.0.0.1:{www_port}/`.
    """

    root: Issued
    www: Path
    www_port: int
    port: int
    sites: list[Site] = field(default_factory=list)
    _addresses: Iterator[str] = field(default_factory=addresses)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def url(self, name: str) -> str:
        """Of what is, or will be, published as `name`."""
        return f"http://127.0.0.1:{self.www_port}/{name}"

    def publish(self, issuer: Issued) -> str:
        """Returns the URL at which `issuer` can be downloaded."""
        name = f"{next(self._numbers)}.der"
        (self.www / name).write_bytes(issuer.der)
        return self.url(name)

    def intermediate(self) -> Issued:
        return self.root.issue(f"Intermediate {next(self._numbers)}", ca=True)

    def pair(self, issuer: Issued, url: str) -> tuple[str, str]:
        """The URLs of two new servers with like leaves, whose caIssuers URL is `url`: the first
        presents it alone, the second `issuer`, too."""
        hosts = next(self._addresses), next(self._addresses)
        # Squid looks for an address in the common name only.
        leaves = [issuer.issue(host, hosts=[host], aia=[url]) for host in hosts]
        self.sites += [Site(hosts[0], leaves[0]), Site(hosts[1], leaves[1], (issuer,))]
        incomplete, complete = (f"https://{host}:{self.port}/" for host in hosts)
        return incomplete, complete

    def new_pair(self) -> tuple[str, str]:
        """The same under a new intermediate, which is published."""
        issuer = self.intermediate()
        return self.pair(issuer, self.publish(issuer))

    @contextmanager
    def serving(self) -> Iterator[None]:
        with nginx(self.sites, self.port):
            yield


@contextmanager
def world() -> Iterator[World]:
    """An empty one. Its caIssuers server runs."""
    with file_server() as (www, www_port), socket.create_server(("127.77.1.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        probe.close()
        yield World(authority("Bench Root"), www, www_port, port)


@contextmanager
def proxies(world: World, **options: str) -> Iterator[tuple[Proxy, Proxy]]:
    """A mitmdump with the addon (and these options of it) and a stock one."""
    with contextlib.ExitStack() as stack:
        ours = Proxy(trust=[world.root], options={**OPTIONS, **options})
        stack.enter_context(ours)
        stock = stack.enter_context(Proxy(trust=[world.root], addon=False, options=OPTIONS))
        yield ours, stock
