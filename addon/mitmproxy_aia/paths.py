"""Path building: from a leaf and candidate issuers to the paths worth judging, in order.

RFC 4158 section 2.4 explained to a colleague. Certificates are the nodes of a graph, and from
each of them steps lead up to its issuers. We start at the leaf. The candidates that carry the
name of its issuer may be one step up; somebody else finds out which of these steps are good (a
signature, dates: what can be said of two certificates alone). Good steps take us higher, and
there we ask the same again, once for each certificate however many ways lead to it.

Where trust anchors are in reach there are paths: ways from the leaf up that never come back
to a key (section 5.2), so two CAs that certify each other do not send us round in circles.
They are told shortest first, and among equals likeliest first. A certificate from which no
way leads to a trust anchor is part of none, so strangers who all certify each other cost a
check for each step, and not a path for each way through them.
"""

from __future__ import annotations

import datetime
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import count

from mitmproxy_aia.certificates import Certificate

Path = tuple[Certificate, ...]
"""Leaf first; each certificate is issued by the one after it."""
Step = tuple[Certificate, Certificate]
"""A certificate and one that may be its issuer."""

MAX_PATH_LENGTH = 32
"""Certificates in a path. Real ones have five at most."""
MAX_WAITING = 5_000
"""Steps that wait. Each takes a signature check, of which a search makes some 1,000."""


class KeyMatch(IntEnum):
    """What the key identifiers say of a candidate issuer, likeliest first (RFC 4158 3.5.1)."""

    MATCH = 0
    UNKNOWN = 1
    MISMATCH = 2


Likelihood = tuple[KeyMatch, bool, datetime.timedelta]


class Graph:
    """The certificates above `leaf`, as far as they are known.

    Whoever climbs it takes a `next_step()`, looks whether it is good and, if so, calls
    `climb()`; and `look_for_issuers()` of what is reached in that way.

    What the server sent may be a thousand times what is needed. What somebody has brought
    because a certificate asked for it is therefore `urgent`, and so is what is above it.
    """

    def __init__(self, leaf: Certificate) -> None:
        self._candidates: dict[bytes, list[Certificate]] = {}
        self._known: set[Certificate] = set()
        self._urgent: set[Certificate] = set()
        self._steps = _Steps()
        self._in_search_of: dict[bytes, list[Certificate]] = {}
        self._path_to: dict[Certificate, Path] = {leaf: (leaf,)}
        self._issuers: dict[Certificate, list[Certificate]] = {}
        self._too_high: set[Certificate] = set()

    @property
    def has_candidates(self) -> bool:
        return bool(self._known)

    def add(self, candidate: Certificate, *, urgent: bool = False) -> bool:
        """Returns whether that is news: the candidate, or that it is urgent."""
        new = candidate not in self._known
        if new:
            # Read now, one at a time: they are compared all at once.
            _ = candidate.subject_key_identifier, candidate.not_before
            self._known.add(candidate)
            self._candidates.setdefault(candidate.subject, []).append(candidate)
            below = self._in_search_of.get(candidate.subject, ())
            self._steps.add([(certificate, candidate) for certificate in below])
        news = urgent and self._make_urgent(candidate)
        self._steps.trim()
        return new or news

    def look_for_issuers(self, certificate: Certificate) -> None:
        """Adds the steps up from `certificate`, likeliest first. To be called once for each
        that is reached."""
        if len(self._path_to[certificate]) == MAX_PATH_LENGTH:
            self._too_high.add(certificate)
            return
        self._in_search_of.setdefault(certificate.issuer, []).append(certificate)
        named = self._candidates.get(certificate.issuer, ())
        likeliest = sorted(named, key=lambda issuer: likelihood(certificate, issuer))
        self._steps.add([(certificate, issuer) for issuer in likeliest])
        if certificate in self._urgent:
            self._steps.bring_forward(certificate)
        self._steps.trim()

    def next_step(self) -> Step | None:
        """The next step to be looked at; none twice."""
        while (step := self._steps.pop()) is not None:
            certificate, issuer = step
            if certificate.identity != issuer.identity:
                return step
        return None

    def climb(self, step: Step) -> Sequence[Certificate]:
        """Takes note that `step` is good. Returns what is reached by that, and can be climbed
        from."""
        certificate, issuer = step
        self._issuers.setdefault(certificate, []).append(issuer)
        if certificate in self._urgent:
            self._make_urgent(issuer)
        if issuer in self._path_to:
            return self._shorten(step)
        self._path_to[issuer] = (*self._path_to[certificate], issuer)
        return [issuer]

    def _shorten(self, step: Step) -> Sequence[Certificate]:
        """What was reached before by a longer way, and all that is above it. Returns those that
        were too high to be climbed from."""
        climbable: list[Certificate] = []
        queue = deque([step])
        while queue:
            certificate, issuer = queue.popleft()
            path = (*self._path_to[certificate], issuer)
            if len(path) < len(self._path_to[issuer]):
                self._path_to[issuer] = path
                queue.extend((issuer, above) for above in self.issuers(issuer))
                if issuer in self._too_high:
                    self._too_high.remove(issuer)
                    climbable.append(issuer)
        return climbable

    def _make_urgent(self, certificate: Certificate) -> bool:
        """Returns whether that was news."""
        if certificate in self._urgent:
            return False
        self._urgent.add(certificate)
        self._steps.bring_forward(certificate)
        return True

    @property
    def too_high(self) -> bool:
        """Whether there may be more above `MAX_PATH_LENGTH`."""
        return bool(self._too_high)

    @property
    def reached(self) -> Sequence[Certificate]:
        """What good steps have led to, in the order in which it was reached: the leaf first."""
        return tuple(self._path_to)

    def path_to(self, certificate: Certificate) -> Path:
        """A shortest way over good steps. It may come back to a key."""
        return self._path_to[certificate]

    def path_over(self, step: Step) -> Path | None:
        """That way and one step more; None if it comes back to a key."""
        certificate, issuer = step
        path = (*self._path_to[certificate], issuer)
        return path if len({each.identity for each in path}) == len(path) else None

    def issuers(self, certificate: Certificate) -> Sequence[Certificate]:
        """Where the good steps from `certificate` lead."""
        return self._issuers.get(certificate, ())

    def distances(self, anchored: Iterable[Certificate]) -> dict[Certificate, int]:
        """How many steps it takes at least from a certificate to one of `anchored`. Those from
        which none is in reach are left out."""
        below: dict[Certificate, list[Certificate]] = {}
        for certificate, issuers in self._issuers.items():
            for issuer in issuers:
                below.setdefault(issuer, []).append(certificate)
        distance = dict.fromkeys(anchored, 0)
        queue = deque(distance)
        while queue:
            issuer = queue.popleft()
            for certificate in below.get(issuer, ()):
                if certificate not in distance:
                    distance[certificate] = distance[issuer] + 1
                    queue.append(certificate)
        return distance


class _Steps:
    """Steps that wait to be looked at, each in its turn, and some brought forward. There are as
    many as candidates times certificates in search of their name, so the last ones are dropped."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Step, None] = OrderedDict()
        self._touching: dict[Certificate, dict[Step, None]] = {}

    def add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._waiting[step] = None
            for certificate in {*step}:  # one, in a step from a root to itself
                self._touching.setdefault(certificate, {})[step] = None

    def trim(self) -> None:
        """To be called when all that is to come first has been brought forward."""
        while len(self._waiting) > MAX_WAITING:
            self._take(last=True)

    def bring_forward(self, certificate: Certificate) -> None:
        """The steps to and from `certificate` come first, in their order."""
        for step in reversed(self._touching.get(certificate, ())):
            self._waiting.move_to_end(step, last=False)

    def pop(self) -> Step | None:
        return self._take(last=False) if self._waiting else None

    def _take(self, *, last: bool) -> Step:
        step, _ = self._waiting.popitem(last=last)
        for certificate in {*step}:
            del self._touching[certificate][step]
        return step


def paths(
    leaf: Certificate,
    issuers: Callable[[Certificate], Iterable[Certificate]],
    distance: Mapping[Certificate, int],
) -> Iterator[Path]:
    """Every simple path up from `leaf` over certificates that have a `distance`, each before
    those that grow from it; ways that may be completed in fewer steps come first.

    A path leads to a trust anchor where the distance of its last certificate is 0. Those in
    between are told as well, so that whoever counts sees that they cost something.
    """
    number = count()
    # The number keeps certificates themselves from being compared.
    waiting: list[tuple[int, tuple[Likelihood, ...], int, Path]] = []
    if leaf in distance:
        waiting.append((distance[leaf], (), next(number), (leaf,)))
    while waiting:
        _, likelihoods, _, path = heapq.heappop(waiting)
        yield path
        if len(path) == MAX_PATH_LENGTH:
            continue
        used = {certificate.identity for certificate in path}
        for issuer in issuers(path[-1]):
            if issuer in distance and issuer.identity not in used:
                steps = len(path) + distance[issuer]
                likely = (*likelihoods, likelihood(path[-1], issuer))
                heapq.heappush(waiting, (steps, likely, next(number), (*path, issuer)))


def key_match(certificate: Certificate, issuer: Certificate) -> KeyMatch:
    """Compares the issuer's key identifier with the one that `certificate` asks for."""
    wanted, offered = certificate.authority_key_identifier, issuer.subject_key_identifier
    if wanted is None or offered is None:
        return KeyMatch.UNKNOWN
    return KeyMatch.MATCH if wanted == offered else KeyMatch.MISMATCH


def likelihood(certificate: Certificate, issuer: Certificate) -> Likelihood:
    """A sort key; the likeliest issuer of `certificate` sorts first.

    BoringSSL's order (pki/path_builder.cc): key identifier match, then not self-issued (a
    presented root is never what is missing), then the newest validity.
    """
    age = _LATEST - issuer.not_before
    return key_match(certificate, issuer), issuer.self_issued, age


_LATEST = datetime.datetime.max.replace(tzinfo=datetime.UTC)
