"""Makes the servers of the soak from their recipes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.lab import Issued, authority, pem_bundle, pkcs7_der
from tests.soak.pki import Authorities, Hand
from tests.soak.recipes import CHANGING, FIXED
from tests.soak.sites import Internet, Kind, Site

CROWD = 100
"""Certificates that a hostile server presents, or a hostile caIssuers server has in one file."""


class Builder:
    """Makes the sites. `ca` and `dead` are the ports of the caIssuers server and of nobody. Linux
    reaches the former at 0.0.0.0, too, where nothing may ever be downloaded from."""

    def __init__(self, ca: int, dead: int) -> None:
        self.authorities = Authorities.make()
        self.hand = Hand(self.authorities)
        self.root = self.hand.root
        self.answers: dict[str, bytes] = {}
        self._ca = f"http://127.0.0.1:{ca}"
        self._nowhere = f"http://0.0.0.0:{ca}"
        self._dead = f"http://127.0.0.1:{dead}"
        self._numbers: Iterator[int] = itertools.count()
        self.strangers = [
            self.hand.strangers[number % 2].issue(f"Nobody {number}", ca=True)
            for number in range(CROWD)
        ]
        crowd = [authority("Crowd", key=key) for key in self.hand.strangers]
        self.answers["/crowd"] = pkcs7_der(*itertools.islice(itertools.cycle(crowd), CROWD))

    def internet(self, copies: int) -> Internet:
        """Each recipe `copies` times."""
        sites = [site for copy in range(copies) for site in self._sites(copy)]
        return Internet(self.authorities, tuple(sites), self.answers)

    def url(self, text: str) -> str:
        text = text.replace("CA", self._ca, 1).replace("DEAD", self._dead, 1)
        return text.replace("NOWHERE", self._nowhere, 1)

    def publish(self, body: bytes) -> str:
        path = f"/static/{next(self._numbers)}"
        self.answers[path] = body
        return self._ca + path

    def issuer(self, above: Issued | None = None, *, aia: Sequence[str] = ()) -> Issued:
        name = f"Soak Intermediate {next(self._numbers)}"
        return (above or self.root).issue(name, ca=True, aia=aia)

    def _sites(self, copy: int) -> Iterator[Site]:
        for kind, recipes in FIXED.items():
            for number, (what, recipe) in enumerate(recipes.items()):
                host = f"{kind.name.lower()}-{number}-{copy}.test"
                leaf, *presented = recipe(self, host)
                chain = pem_bundle(leaf, *presented)
                yield Site(host, kind, what, chain, leaf.key_pem)
        for kind, urls in CHANGING.items():
            for number, (what, texts) in enumerate(urls.items()):
                host = f"new-{kind.name.lower()}-{number}-{copy}.test"
                good = kind is Kind.FRESH or "/fresh/" in texts[0]
                issuer = "Fresh {n}" if good else "Issuer {n} 0"
                presented = self.strangers if what == "a hundred strangers" else []
                yield Site(
                    host,
                    kind,
                    what,
                    urls=tuple(map(self.url, texts)),
                    issuer="Crowd" if "crowd" in texts[0] else issuer,
                    presented=pem_bundle(*presented),
                )
