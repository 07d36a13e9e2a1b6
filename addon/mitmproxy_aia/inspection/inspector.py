"""Inspecting a server, or a chain from a file, with the sources and limits that are given."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence

from OpenSSL import SSL, crypto

from mitmproxy_aia import loaded, openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.inspection.client import How, Resolve, Unreachable, ask
from mitmproxy_aia.inspection.judging import Exhibit, judge
from mitmproxy_aia.inspection.results import Result
from mitmproxy_aia.inspection.targets import Target
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.rehearsal import objections
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.trust import Trust, store_of
from mitmproxy_aia.verification import Verifier

Sources = Callable[[], Sequence[IssuerSource]]
"""The sources in force. Needs a running event loop."""


class Inspector:
    """Must be used from one event loop. Raises OSError with one sentence if the roots of `trust`
    cannot be loaded. `at` is the time of all verdicts if that is not now."""

    def __init__(
        self,
        trust: Trust,
        sources: Sources,
        limits: Limits,
        *,
        tls12: bool = False,
        at: datetime.datetime | None = None,
    ) -> None:
        self._sources = sources
        self._limits = limits
        self._at = at
        self._rejected = trust.rejected()
        # One for all: to load the roots takes longer than most handshakes. Nobody changes it.
        self._context = trust.context(tls12=tls12, at=at)
        self._trust = trust

    async def server(
        self, target: Target, how: How, resolve: Resolve, proxy: Proxy | None = None
    ) -> Result:
        """Connects to `target`, directly; downloads go through `proxy`, if there is one. What
        cannot be connected to is a result as well."""
        try:
            presented = await ask(target, how, self._context, resolve)
        except Unreachable as error:
            return Result(target.text, problem=str(error))
        verifier = Verifier.for_connection(presented.connection, "", self._rejected)
        exhibit = Exhibit(presented.chain, presented.faults, presented.built, verifier)
        server = dataclasses.replace(presented.server, proxy=proxy)
        inspection = await judge(exhibit, self._sources(), self._limits, server)
        return Result(target.text, inspection, presented.link)

    async def chain(self, name: str, chain: Sequence[Certificate], host: str) -> Result:
        """A presented chain, leaf first, as a server called `host` would present it (empty: of
        whatever name). `name` is what a person calls it."""
        # It is never connected; it holds what a handshake would ask.
        connection = SSL.Connection(self._context, None)
        if host:
            openssl.expect_name(connection, host)
        verifier = Verifier.for_connection(connection, "", self._rejected, at=self._at)
        try:
            exhibit = self._rehearsed(chain, connection, verifier)
        except crypto.Error:
            openssl.clear_errors()
            return Result(name, problem="holds a certificate that OpenSSL cannot read")
        inspection = await judge(exhibit, self._sources(), self._limits, at=self._at)
        return Result(name, inspection)

    def _rehearsed(
        self, chain: Sequence[Certificate], connection: SSL.Connection, verifier: Verifier
    ) -> Exhibit:
        # Another than the verifier's, which is to ask nothing by itself.
        context = self._trust.context(at=self._at)
        store = store_of(context)
        openssl.ask_for_servers(store, openssl.parameters_of(connection))
        built, faults = objections(store, [*map(loaded.to_openssl, chain)], "")
        return Exhibit(tuple(chain), faults, tuple(map(loaded.from_openssl, built)), verifier)
