"""What the servers of the soak present: each sort of server in one line or one function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.lab import Issued, authority, pkcs7_ber, pkcs7_ber_pem, pkcs7_der, pkcs7_pem
from tests.soak.sites import Kind

if TYPE_CHECKING:
    from tests.soak.builder import Builder

Recipe = Callable[["Builder", str], Sequence[Issued]]
"""What the server with this host name presents, leaf first."""


def _leaf(issuer: Issued, host: str, *urls: str) -> Issued:
    return issuer.issue(host, hosts=[host], aia=urls)


def _served(form: Callable[..., bytes]) -> Recipe:
    def recipe(b: Builder, host: str) -> Sequence[Issued]:
        issuer = b.issuer()
        return [_leaf(issuer, host, b.publish(form(issuer)))]

    return recipe


def _after(*first: str) -> Recipe:
    """The URL that works comes after others."""

    def recipe(b: Builder, host: str) -> Sequence[Issued]:
        issuer = b.issuer()
        return [_leaf(issuer, host, *map(b.url, first), b.publish(issuer.der))]

    return recipe


def _intermediate_sent(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    return [_leaf(issuer, host), issuer]


def _two_sent(b: Builder, host: str) -> Sequence[Issued]:
    upper = b.issuer()
    lower = b.issuer(upper)
    return [_leaf(lower, host), lower, upper]


def _straight_from_root(b: Builder, host: str) -> Sequence[Issued]:
    return [_leaf(b.root, host)]


def _upper_missing(b: Builder, host: str) -> Sequence[Issued]:
    upper = b.issuer()
    lower = b.issuer(upper, aia=[b.publish(upper.der)])
    return [_leaf(lower, host), lower]


def _two_missing(b: Builder, host: str) -> Sequence[Issued]:
    upper = b.issuer()
    lower = b.issuer(upper, aia=[b.publish(upper.pem)])
    return [_leaf(lower, host, b.publish(pkcs7_der(lower)))]


def _wrong_one_sent(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    return [_leaf(issuer, host, b.publish(issuer.der)), b.issuer()]


def _strangers_sent(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    return [_leaf(issuer, host, b.publish(issuer.der)), *b.strangers]


def _expired(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    leaf = issuer.issue(host, hosts=[host], aia=[b.publish(issuer.der)], expired=True)
    return [leaf, issuer]


def _expired_and_incomplete(b: Builder, host: str) -> Sequence[Issued]:
    return _expired(b, host)[:1]


def _wrong_name(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    return [_leaf(issuer, f"not-{host}", b.publish(issuer.der))]


def _unknown_root(b: Builder, host: str) -> Sequence[Issued]:
    root = b.hand.strangers[0]
    issuer = root.issue(f"Under a stranger {host}", ca=True, aia=[b.publish(root.der)])
    return [_leaf(issuer, host, b.publish(issuer.der))]


def _wrong_key(b: Builder, host: str) -> Sequence[Issued]:
    """A namesake of the issuer, with another key."""
    issuer = b.issuer()
    namesake = b.root.issue(issuer.name, ca=True)
    return [_leaf(issuer, host, b.publish(namesake.der))]


def _issuer_expired(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.root.issue(f"Expired for {host}", ca=True, expired=True)
    return [_leaf(issuer, host, b.publish(issuer.der))]


def _issuer_is_no_ca(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.root.issue(f"No authority {host}", ca=False)
    return [_leaf(issuer, host, b.publish(issuer.der))]


def _issuer_excludes_it(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.root.issue(f"Not for {host}", ca=True, excluded=["test"])
    return [_leaf(issuer, host, b.publish(issuer.der))]


def _not_for_servers(b: Builder, host: str) -> Sequence[Issued]:
    issuer = b.issuer()
    urls = [b.publish(issuer.der)]
    return [issuer.issue(host, hosts=[host], aia=urls, extended_key_usage=["clientAuth"])]


def _self_signed(b: Builder, host: str) -> Sequence[Issued]:
    return [authority(host, ca=False, hosts=[host])]


def _mesh(b: Builder, host: str) -> Sequence[Issued]:
    """Strangers who all certify each other, above the leaf."""
    cas = b.hand.strangers[:9]
    crossed = [
        above.issue(below.name, ca=True, key=below)
        for above, below in itertools.permutations(cas, 2)
    ]
    return [_leaf(cas[0], host, b.url("CA/404/mesh")), *crossed]


FIXED: dict[Kind, dict[str, Recipe]] = {
    Kind.COMPLETE: {
        "intermediate sent": _intermediate_sent,
        "two sent": _two_sent,
        "straight from the root": _straight_from_root,
    },
    Kind.INCOMPLETE: {
        "leaf only, DER": _served(lambda issuer: issuer.der),
        "leaf only, PEM": _served(lambda issuer: issuer.pem),
        "leaf only, PKCS#7": _served(pkcs7_der),
        "leaf only, PKCS#7 in PEM": _served(pkcs7_pem),
        "leaf only, PKCS#7 in BER": _served(pkcs7_ber),
        "leaf only, PKCS#7 in BER in PEM": _served(pkcs7_ber_pem),
        "upper missing": _upper_missing,
        "two missing": _two_missing,
        "wrong one sent": _wrong_one_sent,
        "a hundred strangers sent": _strangers_sent,
        "after a dead URL": _after("DEAD/x"),
        "after a URL that hangs": _after("CA/hang/x"),
        "after junk and a 404": _after("CA/junk/x", "CA/404/x"),
        "after a dead name": _after("http://dead-x.test/x"),
    },
    Kind.BROKEN: {
        "expired": _expired,
        "expired and incomplete": _expired_and_incomplete,
        "wrong name": _wrong_name,
        "unknown root": _unknown_root,
        "wrong key": _wrong_key,
        "issuer expired": _issuer_expired,
        "issuer is no authority": _issuer_is_no_ca,
        "issuer excludes it": _issuer_excludes_it,
        "not for servers": _not_for_servers,
        "self-signed": _self_signed,
    },
    Kind.HOSTILE: {"a mesh of strangers": _mesh},
}

# A new leaf and new URLs for each handshake, so that no failure is remembered.
CHANGING: dict[Kind, dict[str, tuple[str, ...]]] = {
    Kind.FRESH: {
        "one download": ("CA/fresh/{n}",),
        "redirected": ("CA/redirect/{n}",),
        "after a hang and a reset": ("CA/reset/{n}", "CA/hang/{n}", "CA/fresh/{n}"),
    },
    Kind.HOSTILE: {
        "hangs": ("CA/hang/{n}",),
        "ten that hang": tuple(f"CA/hang/{{n}}/{number}" for number in range(10)),
        "drips": ("CA/drip/{n}",),
        "promises more than it sends": ("CA/long/{n}",),
        "promises less than it sends": ("CA/short/{n}",),
        "resets": ("CA/reset/{n}",),
        "floods": ("CA/flood/{n}",),
        "redirects in circles": ("CA/circle/{n}",),
        "redirects to https": ("CA/https/{n}",),
        "redirects to a file": ("CA/file/{n}",),
        "a megabyte of header": ("CA/header/{n}",),
        "a header without end": ("CA/headers/{n}",),
        "a compressed bomb": ("CA/bomb/{n}",),
        "junk": ("CA/junk/{n}",),
        "speaks SSH": ("CA/ssh/{n}",),
        "404": ("CA/404/{n}",),
        "an address that is none": ("NOWHERE/fresh/{n}",),
        "a chain without end": ("CA/endless/{n}/0",),
        "its own root": ("CA/root/{n}",),
        "a crowd of namesakes": ("CA/crowd/{n}",),
        "dead URLs": tuple(f"DEAD/{{n}}/{number}" for number in range(5)),
        "dead names": ("http://dead-{n}.test/x", "http://dead-{n}.sub.test/y"),
        "slow names": ("http://slow-{n}.test/x",),
        "other schemes": ("https://x.test/{n}", "ldap://x.test/{n}", "file:///etc/{n}"),
        "a hundred strangers": ("CA/404/{n}", "DEAD/{n}"),
    },
}
