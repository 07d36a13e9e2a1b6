"""What was found out about a certificate, kept as long as the certificate is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from mitmproxy_aia.certificates import Certificate

_Found = TypeVar("_Found")


def remembered(find_out: Callable[[Certificate], _Found]) -> Callable[[Certificate], _Found]:
    """A function that does so once for each certificate. What it returns must not hold it."""
    known: WeakKeyDictionary[Certificate, _Found] = WeakKeyDictionary()

    @functools.wraps(find_out)
    def ask(certificate: Certificate) -> _Found:
        found = known.get(certificate)
        if found is None:
            found = known[certificate] = find_out(certificate)
        return found

    return ask
