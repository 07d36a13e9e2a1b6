"""A network that lies: a small PKI with every fault, and what each URL answers."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import AsyncGenerator, Sequence

from OpenSSL import SSL, crypto

from mitmproxy_aia.addresses import Space
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Refusal, Server
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.rehearsal import at_level
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.sources.download_errors import DownloadError, Refused
from mitmproxy_aia.verification import Verifier
from tests.differential.brute_force import accepts
from tests.differential.pki import CA_FAULTS, CA_LIMITS, LEAF_FAULTS
from tests.fuzz.choices import Choices
from tests.fuzz.der_tree import damaged
from tests.lab import Issued, Options, authority, pem_bundle, pkcs7_ber, pkcs7_der
from tests.test_verification import connection_for, context_with

URLS = tuple(f"http://ca.example/{number}" for number in range(8))
"""If they tell the truth: two each for the certificates of Upper, Lower, Side and Root."""

PRIVATE_URL = URLS[1]
"""This one is not for public servers."""
SERVERS = tuple(
    Server(f"{address}:443", ipaddress.ip_address(address), 443)
    for address in ("93.184.215.14", "10.0.0.1", "93.184.215.15", "127.0.0.1")
)


@functools.cache
def roots() -> tuple[Issued, Issued]:
    """The one that is trusted, and a stranger of the same name."""
    return authority("Root"), authority("Root")


@functools.cache
def pool() -> tuple[Issued, ...]:
    """Certificates of three authorities, Upper, Lower and Side: with every fault, from every
    root, and certifying each other. Not the leaves."""
    root, stranger = roots()
    upper, lower, side = (authority(name) for name in ("Upper", "Lower", "Side"))
    made = [root, stranger, upper, lower, side]
    for subject, issuer, first in (
        (upper, root, 6),
        (lower, upper, 0),
        (side, root, 6),
        (lower, side, 4),
        (upper, stranger, 6),
        (upper, lower, 2),
        (side, upper, 0),
    ):
        base: Options = {"ca": True, "key": subject, "aia": [URLS[first], URLS[first + 1]]}
        made.append(issuer.issue(subject.name, **base))
        if issuer in (root, upper):
            for name, fault in (CA_FAULTS | CA_LIMITS).items():
                options = base | fault
                if name == "wrong key":
                    options["signed_by"] = stranger
                made.append(issuer.issue(subject.name, **options))
    return tuple(made)


@functools.cache
def leaves() -> tuple[Issued, ...]:
    """All with one key but one; the first has no fault. The last have other URLs."""
    lower, upper = pool()[3], pool()[2]
    key = authority("Leaf")
    base: Options = {"key": key, "aia": URLS[2:4]}
    made = [lower.issue("Leaf", **base), upper.issue("Leaf", **base)]
    for name, fault in LEAF_FAULTS.items():
        options = base | fault
        if name == "wrong key":
            options["signed_by"] = roots()[1]
        made.append(lower.issue("Leaf", **options))
    made.append(lower.issue("Leaf", key=key))
    made.append(lower.issue("Leaf", key=key, aia=[URLS[0], "ldap://ca.example/", *URLS]))
    return tuple(made)


@functools.cache
def _context() -> SSL.Context:
    return context_with(roots()[0])


def verifier() -> Verifier:
    """A handshake's, which trusts the first of the roots."""
    return Verifier.for_connection(connection_for(_context()), at_level(2))


@functools.lru_cache(maxsize=4096)
def openssl_accepts(leaf: Issued, others: tuple[bytes, ...]) -> bool:
    """Whether a client that trusts the root alone accepts a server with this leaf, of which
    the key is known, and with `others` after it."""
    try:
        return accepts([roots()[0]], [leaf, *(_issued(der, leaf) for der in others)])
    except crypto.Error:
        # No TLS library of OpenSSL's can present what it cannot parse.
        return False


def _issued(der: bytes, leaf: Issued) -> Issued:
    # Only a leaf's key is ever used.
    return Issued(Certificate(der).x509, leaf.key)


class Network:
    """What every URL answers, and when, as `choices` say. The answer of a URL is decided when
    it is first asked for, and stays."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    async def download(self, url: str, server: Server) -> tuple[Certificate, ...]:
        """In place of `Downloader`: after its time, its certificates or a DownloadError."""
        if url == PRIVATE_URL and server.permits is Space.PUBLIC:
            raise Refused(Refusal("is in the private network", compared=True))
        await asyncio.sleep(self._choices.pick((0, 0, 0, 0.1, 0.6, 3, 9.9, 60)))
        match self._choices.below(12):
            case 0:
                raise DownloadError("answered 404")
            case 1:
                # Nothing of the kind should ever come from there.
                raise RuntimeError("a bug\nwith two lines")
            case 2:
                raise TimeoutError
            case _:
                body = answer(self._choices)
        try:
            return read_certificates(body)
        except ValueError as error:
            raise DownloadError(str(error)) from error


def answer(choices: Choices) -> bytes:
    """The body that a lying server sends."""
    some = [choices.pick(pool()), *choices.several(pool(), 5)]
    match choices.below(8):
        case 0:
            return pkcs7_der(*some)
        case 1:
            return pkcs7_ber(*some)
        case 2:
            return pem_bundle(*some)
        case 3:
            return damaged(some[0].der, choices)
        case 4:
            return choices.some()
        case 5:
            return b"".join(pem_bundle(each) for each in pool())
        case _:
            return some[0].der


class Shelf:
    """A source that knows `known` at once and, perhaps falsely, as issuers of whatever it is
    asked for; it has to be waited for `later`, and writes down what it is told to keep."""

    def __init__(self, choices: Choices) -> None:
        self._known = [Certificate(each.der) for each in choices.several(pool(), 4)]
        self._later = [Certificate(each.der) for each in choices.several(pool(), 4)]
        self._honest = not choices.rarely()
        self._seconds = choices.pick((0, 0, 0.5, 20))
        self.open = 0
        self.kept: list[Certificate] = []

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        return [
            Found(each, "the shelf", cache="shelf")
            for each in self._known
            if not self._honest or each.subject == certificate.issuer
        ]

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        self.open += 1
        try:
            for each in self._later:
                if not self._honest or each.subject == certificate.issuer:
                    await asyncio.sleep(self._seconds)
                    found = Found(each, "the shelf", cache="shelf")
                    yield Attempt("the shelf", "had it", (found,))
        finally:
            self.open -= 1

    def keep(self, found: Sequence[Found]) -> None:
        self.kept += [item.certificate for item in found]
