"""The servers of the soak: what each presents, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.soak.pki import Authorities


class Kind(Enum):
    """What a server is decides what has to come of a request, and nothing else does."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    FRESH = "incomplete, new each time"
    BROKEN = "broken"
    HOSTILE = "hostile"


@dataclass(frozen=True)
class Site:
    """A server. It presents `chain`, in PEM; where that is empty, a new leaf for each
    handshake, issued by `issuer`, with the caIssuers URLs `urls` ("{n}" is a new number), and
    then `presented`."""

    host: str
    kind: Kind
    what: str
    chain: bytes = b""
    key: bytes = b""
    urls: tuple[str, ...] = ()
    issuer: str = "Issuer {n} 0"
    presented: bytes = b""


@dataclass(frozen=True)
class Internet:
    """All sites, and what the paths of the caIssuers server answer that are not made anew."""

    authorities: Authorities
    sites: tuple[Site, ...]
    answers: dict[str, bytes]

    def of(self, *kinds: Kind) -> list[Site]:
        return [site for site in self.sites if site.kind in kinds]
