"""Which chains libssl has found strong enough, kept for the next connection.

All that libssl asks of a chain beyond X509_verify_cert(3) is the strength of its keys and
signatures (SSL_CTX_set_security_level(3)). That is the same for the same certificates at the same
level, whoever presents them and whenever. So libssl is asked once; what it would ask of a later
connection with the same chain is what X509_verify_cert alone can tell, and is told each time: the
signatures, the dates, the name, the purpose, the anchor.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from OpenSSL import crypto

from mitmproxy_aia.loaded import der_of

CAPACITY = 1_000
"""Chains. One is for each leaf, and takes as many bytes as its certificates in DER."""

Key = tuple[str, tuple[bytes, ...]]

_strong: dict[Key, None] = {}
_changing = threading.Lock()


def key_of(ciphers: str, chain: Sequence[crypto.X509]) -> Key:
    """`chain`, target first and anchor last, at the level that libssl takes from these ciphers."""
    return ciphers, tuple(map(der_of, chain))


def is_strong(key: Key) -> bool:
    """Whether it was remembered."""
    return key in _strong


def remember(key: Key) -> None:
    """libssl has just verified it."""
    with _changing:
        _strong[key] = None
        if len(_strong) > CAPACITY:
            del _strong[next(iter(_strong))]


def forget() -> None:
    with _changing:
        _strong.clear()
