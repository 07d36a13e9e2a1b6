"""What most tests share: one trusted root, one caIssuers server and one mitmdump."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Unpack

import pytest

from tests.lab import CaIssuersServer, Issued, Options, Proxy, Reply, authority, curl
from tests.lab.forking import ForkServer


@dataclass
class World:
    """A small internet. `proxy` trusts `root`; `ca` is where its authorities publish.

    Names are new each time, because what one test made the proxy learn must not help another.
    """

    root: Issued
    ca: CaIssuersServer
    proxy: Proxy
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def path(self, suffix: str = "der") -> str:
        """A path on the caIssuers server that nobody has used yet."""
        return f"/{next(self._numbers)}.{suffix}"

    def authority(self, issuer: Issued | None = None, **options: Unpack[Options]) -> Issued:
        """A new intermediate under `issuer`, which is the root by default."""
        issuer = issuer or self.root
        defaults: Options = {"ca": True}
        return issuer.issue(f"Lab Intermediate {next(self._numbers)}", **(defaults | options))

    def published(self, issuer: Issued) -> str:
        """The URL at which `issuer` can be downloaded as DER."""
        return self.ca.serve(self.path(), issuer.der)

    def get(self, url: str, *arguments: str, http2: bool = False) -> Reply:
        """The answer that a client of the proxy gets."""
        return curl(url, *arguments, proxy=self.proxy, http2=http2)


@pytest.fixture(scope="session", autouse=True)
def ready_proxies() -> Iterator[None]:
    """Most of some 250 mitmdumps need not import mitmproxy nor make an authority, which would be
    half of all that the tests compute."""
    Proxy.authority = authority("mitmproxy")
    with ForkServer() as Proxy.fork_server:
        yield
    Proxy.fork_server = Proxy.authority = None


@pytest.fixture(scope="session")
def root() -> Issued:
    return authority("Lab Root")


@pytest.fixture(scope="session")
def world(root: Issued) -> Iterator[World]:
    with CaIssuersServer() as ca, Proxy(trust=[root], options={"aia_timeout": 2}) as proxy:
        yield World(root, ca, proxy)


@pytest.fixture(scope="session")
def stock_proxy(root: Issued) -> Iterator[Proxy]:
    """mitmproxy without the addon, to compare with."""
    with Proxy(trust=[root], addon=False) as proxy:
        yield proxy


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be skipped, be it a test or a module: what cannot run there is mended."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
