"""What has to come of a request: it follows from the server's kind and from what was done to the
proxy meanwhile, and from nothing that the addon says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from tests.soak.client import Answer
from tests.soak.sites import Kind, Site

REFUSED = "Certificate verify failed"
"""How mitmproxy words it."""


class Outcome(Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    ERROR = "error"


class Verdict(Enum):
    RIGHT = "right"
    WRONG = "wrong"
    """Accepted where it must be refused, or the other way round."""
    ERROR = "error"
    """Neither: no answer, or another one than mitmproxy's for a certificate."""


@dataclass(frozen=True)
class Conditions:
    """In what state things may have been: in several, while they are being changed.

    `modes` of the addon ("stock" is a proxy without it); `published`: whether the caIssuers
    server answers.
    """

    modes: frozenset[str] = frozenset({"complete"})
    published: frozenset[bool] = frozenset({True})


STOCK = Conditions(frozenset({"stock"}))


def outcome(site: Site, answer: Answer) -> Outcome:
    """What came of it. Accepted means that this very server has answered."""
    if answer.status == 200 and answer.text == site.host:
        return Outcome.ACCEPTED
    if answer.status == 502 and answer.text.startswith(REFUSED):
        return Outcome.REFUSED
    return Outcome.ERROR


def expected(site: Site, mode: str, published: bool) -> Outcome:
    """What has to come of a request to `site`. A fixed site that is incomplete is known."""
    if site.kind is Kind.COMPLETE:
        return Outcome.ACCEPTED
    if site.kind is Kind.INCOMPLETE and mode in ("complete", "frozen"):
        return Outcome.ACCEPTED
    if site.kind is Kind.FRESH and mode == "complete" and published:
        return Outcome.ACCEPTED
    return Outcome.REFUSED


def judge(site: Site, answer: Answer, during: Iterable[Conditions]) -> Verdict:
    """`during` are the conditions from the request to its answer."""
    what = outcome(site, answer)
    if what is Outcome.ERROR:
        return Verdict.ERROR
    allowed = {
        expected(site, mode, published)
        for conditions in during
        for mode in conditions.modes
        for published in conditions.published
    }
    return Verdict.RIGHT if what in allowed else Verdict.WRONG
