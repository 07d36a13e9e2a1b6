"""What a trust store was found to have above an issuer, kept for the next connection.

mitmproxy has one SSL.Context, so one trust store, for all connections with the same settings,
and OpenSSL never takes a certificate out of a store. What the store has vouched for once as a
trust anchor is therefore one as long as the context lives. That is all that is remembered: it
spares the question of where a path ends. Whether the path is good, the anchor and what is
between included, is asked anew for each connection; and if it is not good, so is the question.
"""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary, WeakValueDictionary

from OpenSSL import SSL, crypto

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.loaded import to_openssl
from mitmproxy_aia.openssl import Chain, place_of

CAPACITY = 500
"""Issuers for one trust store. Of the web's some 1,900 a proxy meets few."""


class Anchors:
    """What one trust store has above certificates; the least recently used go first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # None stands for the certificate that was asked about.
        self._above: OrderedDict[Certificate, tuple[crypto.X509 | None, ...]] = OrderedDict()
        self._trusted: WeakValueDictionary[int, crypto.X509] = WeakValueDictionary()

    def above(self, certificate: Certificate) -> Chain | None:
        """`certificate` and what is above it, up to a trust anchor; None if nothing is known."""
        chain = self._above.get(certificate)
        if chain is None:
            return None
        self._above.move_to_end(certificate)
        return [each or to_openssl(certificate) for each in chain]

    def remember(self, certificate: Certificate, above: Chain) -> None:
        """`above` has to be what the store itself has said without a fault."""
        asked = place_of(to_openssl(certificate))
        self._above[certificate] = tuple(
            None if place_of(each) == asked else self._shared(each) for each in above
        )
        self._above.move_to_end(certificate)
        if len(self._above) > self._capacity:
            self._above.popitem(last=False)

    def _shared(self, trusted: crypto.X509) -> crypto.X509:
        """One object for what is the same in the memory of the trust store."""
        return self._trusted.setdefault(place_of(trusted), trusted)

    def forget(self, certificate: Certificate) -> None:
        self._above.pop(certificate, None)


_by_context: WeakKeyDictionary[SSL.Context, Anchors] = WeakKeyDictionary()


def anchors_of(context: SSL.Context) -> Anchors:
    """What is remembered of the trust store of `context`, for as long as that lives."""
    anchors = _by_context.get(context)
    if anchors is None:
        anchors = _by_context[context] = Anchors()
    return anchors
