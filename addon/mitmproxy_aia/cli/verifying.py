"""`mitmproxy-aia verify`: a verdict on the chains in files, at any time."""

from __future__ import annotations

import argparse
import asyncio
import datetime
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from mitmproxy_aia import openssl
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli.inspecting import finish, limits_of, opened_tiers
from mitmproxy_aia.cli.intake import Input, inputs
from mitmproxy_aia.cli.terminal import CommandError
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.inspection.inspector import Inspector
from mitmproxy_aia.inspection.results import Result
from mitmproxy_aia.inspection.targets import canonical_host
from mitmproxy_aia.sources import Attempt, Budget, Found, IssuerSource
from mitmproxy_aia.times import iso
from mitmproxy_aia.trust import Trust


def verify(options: argparse.Namespace) -> int:
    try:
        host = canonical_host(options.host) if options.host else ""
        openssl.parameters_for(host or None)  # OpenSSL 4 does not take every name.
    except ValueError as error:
        raise CommandError(f"--host: {error}") from error
    trust = Trust(options.trust)
    words = trust.words if options.at is None else f"{trust.words}, at {iso(options.at)}"
    return finish(asyncio.run(_verify(host, trust, options)), words, options)


async def _verify(host: str, trust: Trust, options: argparse.Namespace) -> list[Result]:
    at: datetime.datetime | None = options.at
    async with opened_tiers(options, at) as tiers:

        def sources() -> Sequence[IssuerSource]:
            return tiers.sources if at is None else [*map(_ReadOnly, tiers.sources)]

        try:
            inspector = Inspector(trust, sources, limits_of(options), at=at)
        except OSError as error:
            raise CommandError(f"--trust: {error}") from error
        return [await _inspect(inspector, source, host) for source in _chosen(options)]


def _chosen(options: argparse.Namespace) -> list[Input | CommandError]:
    chosen = [*inputs(options.file)]
    if not chosen:
        raise CommandError(f"there is no file in {', '.join(options.file)}")
    if options.fullchain and len(chosen) > 1:
        raise CommandError(f"--fullchain is for one file, and there are {len(chosen):,}")
    return chosen


async def _inspect(inspector: Inspector, source: Input | CommandError, host: str) -> Result:
    if isinstance(source, CommandError):
        return Result(str(source).partition(" cannot be read")[0], problem=str(source))
    try:
        chain = leaf_first(read_certificates(source.data))
    except ValueError as error:
        return Result(source.name, problem=f"{error}; it takes PEM, DER or PKCS#7")
    return await inspector.chain(source.name, chain, host)


def leaf_first(certificates: Sequence[Certificate]) -> list[Certificate]:
    """The same with the leaf in front: the first that has issued none of the others. PKCS#7 is a
    set (RFC 5652 section 5.1), and what people put together has any order."""
    leaf = next(
        (each for each in certificates if not _issued_any(each, certificates)), certificates[0]
    )
    return [leaf, *(each for each in certificates if each != leaf)]


def _issued_any(issuer: Certificate, certificates: Sequence[Certificate]) -> bool:
    return any(
        each != issuer and each.issuer == issuer.subject and each.is_signed_by(issuer)
        for each in certificates
    )


@dataclass(frozen=True)
class _ReadOnly:
    """An `IssuerSource` that keeps nothing."""

    source: IssuerSource

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        return self.source.known_issuers(certificate)

    def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        return self.source.fetch_issuers(certificate, budget)

    def keep(self, found: Sequence[Found]) -> None:
        """What is valid at another time is of no use to others."""
