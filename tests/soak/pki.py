"""What the processes of the soak share: a few authorities, as bytes that can be sent."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.lab import Issued, authority
from tests.lab.keys import PrivateKey

STRANGERS = 12
"""Keys of authorities that nobody trusts."""


@dataclass(frozen=True)
class Authorities:
    """Each is a certificate and its key, in PEM.

    `root` is trusted by the proxies. `fresh` has the key of intermediates that are made when
    they are asked for. `strangers` have the keys of hostile authorities.
    """

    root: tuple[bytes, bytes]
    fresh: tuple[bytes, bytes]
    leaf: tuple[bytes, bytes]
    strangers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def make(cls) -> Authorities:
        root = authority("Soak Root")
        return cls(
            _pair(root),
            _pair(root.issue("Fresh", ca=True)),
            _pair(root.issue("leaf")),
            tuple(_pair(authority(f"Stranger {number}")) for number in range(STRANGERS)),
        )


class Hand:
    """Issues what is made anew for each handshake or download."""

    def __init__(self, authorities: Authorities) -> None:
        self.root = _issued(authorities.root)
        self.fresh = _issued(authorities.fresh)
        self.leaf = _issued(authorities.leaf)
        self.strangers = [_issued(pair) for pair in authorities.strangers]

    @functools.lru_cache(maxsize=256)  # noqa: B019 - one for each process
    def fresh_issuer(self, number: int) -> Issued:
        """A good intermediate that nobody has seen before."""
        return self.root.issue(f"Fresh {number}", ca=True, key=self.fresh)

    def endless(self, number: int, depth: int, urls: Sequence[str] = ()) -> Issued:
        """A link of a chain without end: each is issued by the next."""
        above = self.strangers[(depth + 1) % STRANGERS]
        name = authority(f"Issuer {number} {depth + 1}", key=above)
        key = self.strangers[depth % STRANGERS]
        return name.issue(f"Issuer {number} {depth}", ca=True, key=key, aia=urls)

    def self_signed(self, number: int) -> Issued:
        """The same name and key as `endless(number, 0)`, as a root that nobody trusts."""
        return authority(f"Issuer {number} 0", key=self.strangers[0])


def _pair(issued: Issued) -> tuple[bytes, bytes]:
    return issued.pem, issued.key_pem


def _issued(pair: tuple[bytes, bytes]) -> Issued:
    certificate, key = pair
    private_key = cast(PrivateKey, load_pem_private_key(key, None))
    return Issued(x509.load_pem_x509_certificate(certificate), private_key)
