"""Issuer sources: where candidate issuers come from, behind one Protocol.

Whatever a source returns is a proposal. It is judged like any other certificate, and a
source is only ever asked to keep what was part of a verified path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import NOBODY, Server


@dataclass(frozen=True, slots=True)
class Found:
    """A certificate that may be an issuer, and where it came from.

    `origin` is where it was first met: a URL, a file, or a server (host:port). `cache` is the
    name of the cache that remembered it since ("memory"), or empty. `at_hand` says that no
    cache need remember it: it lies in a file that the user has named.
    """

    certificate: Certificate
    origin: str
    cache: str = ""
    at_hand: bool = False

    @property
    def place(self) -> str:
        """Where it was found this time, to follow its name: `in memory`, `at http://...`."""
        if self.cache or self.at_hand:
            return f"in {self.cache or self.origin}"
        return f"at {self.origin}"

    @property
    def home(self) -> str:
        """The same for whoever mends a server, whom it does not help that it was remembered."""
        return f"at {self.origin}" if self.cache else self.place


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to get an issuer, and what came of it.

    `where` and `outcome` make a sentence: `http://ca.example/int.der` `answered 404`. `refused`
    says that a rule of ours stood in the way.
    """

    where: str
    outcome: str
    found: tuple[Found, ...] = ()
    seconds: float = 0.0
    refused: bool = False

    def __str__(self) -> str:
        return f"{'refused: ' if self.refused else ''}{self.where} {self.outcome}"


@dataclass
class Budget:
    """What one completion may still spend on waiting.

    `deadline` is in seconds of time.monotonic(), `downloads` counts requests to URLs, and
    `overdrawn` is set where there would have been more. `frozen` says why nothing may be
    downloaded at all, if so; a source then tells what it would have downloaded. `server` is the
    one whose chain is completed: where a download may go depends on it. What a source
    puts into `in_use` lives as long as the completion, and what it puts into `when_done` is
    called when the completion has ended, after `keep`. It must not raise.
    """

    deadline: float
    downloads: int
    overdrawn: bool = False
    frozen: str = ""
    server: Server = NOBODY
    in_use: list[object] = field(default_factory=list)
    when_done: list[Callable[[], None]] = field(default_factory=list)


async def no_attempts() -> AsyncGenerator[Attempt, None]:
    """What a source fetches that knows at once all that it ever will."""
    for attempt in tuple[Attempt, ...]():
        yield attempt


class IssuerSource(Protocol):
    """After BoringSSL's CertIssuerSource (pki/cert_issuer_source.h): what is known at once is
    asked for first, and what has to be waited for only when that is exhausted."""

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        """Possible issuers of `certificate`. Must not block: a lookup in memory or on disk."""
        ...

    def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        """Tries to get issuers of `certificate`, one attempt after the other, until its
        consumer closes it or the budget is spent. Failures are outcomes and not raised."""
        ...

    def keep(self, found: Sequence[Found]) -> None:
        """Remembers intermediates. Called with those of a verified path, and no others; also
        with what this source gave itself. Must not block and must not raise."""
        ...


class ClosableSource(IssuerSource, Protocol):
    """One that does something in the background."""

    def close(self) -> None:
        """Ends that. Safe when the event loop is gone, and twice."""
        ...
