"""Issuers from files and folders that the user has named, reread when they change."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
import math
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources import Attempt, Budget, Found

OPTION = "aia_intermediates"
MAX_BYTES = 256 * 2**20
"""Of one file. 100,000 certificates in PEM take some 190 MiB."""
CHECK_EVERY = 2.0
"""Seconds. While issuers are asked for, a change is noticed after this long at the latest."""
PATIENCE = 2.0
"""Seconds that a completion waits for files: a share that hangs must not end it."""
NEWS = 30.0
"""Seconds for which a new certificate is told to a completion that may have begun before."""

_SETTLED_NS = 2_000_000_000
# A file system may keep times to no more than this (FAT), or to a timer tick. Of two changes
# within it the second cannot be seen in the times, so a file this young is read again.

_PATH_MAX = 4096
_TOLD = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Offer:
    """One certificate of one file, with what is needed to choose it without parsing it."""

    found: Found
    subject: bytes
    not_after: datetime.datetime


@dataclass(frozen=True)
class _File:
    """What was read. `problem` says why it holds no certificate, and is empty if it does."""

    stamp: tuple[int, ...] = ()
    settled: bool = True
    digest: bytes = b""
    offers: tuple[_Offer, ...] = ()
    problem: str = ""
    error: OSError | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Shelf:
    """All that was read at one time. `came` says when (time.monotonic()) each certificate did."""

    files: Mapping[Path, _File] = field(default_factory=dict)
    by_subject: Mapping[bytes, Sequence[_Offer]] = field(default_factory=dict)
    came: Mapping[Certificate, float] = field(default_factory=dict)


class FilesSource:
    """An `IssuerSource` of the files in `paths` (the option aia_intermediates).

    What a file holds is told by its content, whatever its suffix: DER, PEM, PKCS#7, one
    certificate or many. A folder stands for the regular files directly in it, and symbolic
    links to such: not for hidden ones, and not for what lies in its subfolders.

    Reads everything once, blocking, and raises OSError with one sentence if one of `paths`
    cannot be read. Whatever else is wrong is one warning for each file, which is skipped, and
    one more only when its content has changed and still is no certificate.

    A file counts for what it holds at the moment, also while it is being written: for its
    complete PEM blocks, or for nothing. Each change is read anew, in a thread.

    `at` is when what it gives has to be valid, if not now.
    """

    def __init__(self, paths: Sequence[Path], *, at: datetime.datetime | None = None) -> None:
        self._at = at
        self._paths = tuple(paths)
        self._check: asyncio.Task[None] | None = None
        self._closed = False
        self._checked = time.monotonic()
        self._shelf = _read_all(self._paths, _Shelf(), came=-math.inf)
        for path in self._paths:
            file = self._shelf.files.get(path)
            if file and file.error:
                raise OSError(f"{OPTION}: {_shown(path)} {file.problem}") from file.error
        _log(_Shelf(), self._shelf)

    def __len__(self) -> int:
        """How many different certificates there are, expired ones included."""
        return len(self._shelf.came)

    def certificates(self) -> Iterator[Certificate]:
        """All of them, in the order of the files."""
        return iter(self._shelf.came)

    def known_issuers(self, certificate: Certificate) -> Sequence[Found]:
        if time.monotonic() - self._checked > CHECK_EVERY:
            self._check_in_background()
        return [offer.found for offer in self._offers(certificate)]

    async def fetch_issuers(
        self, certificate: Certificate, budget: Budget
    ) -> AsyncGenerator[Attempt, None]:
        """Looks for changes, and gives what is new: one attempt or none."""
        asked = time.monotonic()
        # A check that is under way may have passed by the file before it was put there.
        try:
            async with asyncio.timeout(min(PATIENCE, budget.deadline - asked)):
                while self._paths and not self._closed and self._checked < asked:
                    await asyncio.shield(self._current_check())
        except TimeoutError:
            pass
        # The check that has brought it may also have been an earlier one than this, but later
        # than the moment at which the completion asked what is known.
        new = [
            offer.found
            for offer in self._offers(certificate)
            if self._shelf.came[offer.found.certificate] > asked - NEWS
        ]
        if new:
            yield _attempt(new, time.monotonic() - asked)

    def keep(self, found: Sequence[Found]) -> None:
        """The files are the user's."""

    def close(self) -> None:
        """No more checks. What was read can still be looked up."""
        self._closed = True

    def _offers(self, certificate: Certificate) -> list[_Offer]:
        now = self._at or datetime.datetime.now(datetime.UTC)
        named = self._shelf.by_subject.get(certificate.issuer, ())
        return [offer for offer in named if offer.not_after >= now]

    def _check_in_background(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._paths and not self._closed:
            self._current_check()

    def _current_check(self) -> asyncio.Task[None]:
        """One for all who ask at the same time."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._look_for_changes(), name=f"{OPTION} check")
        return self._check

    async def _look_for_changes(self) -> None:
        began, before = time.monotonic(), self._shelf
        try:
            shelf = await asyncio.to_thread(_read_all, self._paths, before, came=began)
        except Exception as error:  # for example no more threads
            logger.warning("%s: not looked at (%s)", OPTION, printable(str(error)))
            self._checked = began
            return
        if self._closed:
            return
        # Both on the event loop: a lookup sees all of the old or all of the new, and log
        # handlers need not be fit for threads.
        self._shelf, self._checked = shelf, began
        _log(before, shelf)
        if shelf.came is not before.came:
            logger.info("%s changed: %d certificates", OPTION, len(self))


def _attempt(new: Sequence[Found], seconds: float) -> Attempt:
    where = list(dict.fromkeys(found.origin for found in new))
    names = [found.certificate.name for found in new]
    return Attempt(_some(where), f"gave {_some(names)}", tuple(new), seconds)


def _some(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - _TOLD} more"] if len(texts) > _TOLD else []
    return " ".join([", ".join(texts[:_TOLD]), *more])


def _shown(path: Path) -> str:
    return printable(str(path), _PATH_MAX)


def _log(before: _Shelf, after: _Shelf) -> None:
    for path, file in after.files.items():
        old = before.files.get(path, _File())
        if file.problem and (file.problem, file.digest) != (old.problem, old.digest):
            logger.warning("%s: %s %s; skipped", OPTION, _shown(path), file.problem)
    for path, old in before.files.items():
        # A folder stands among the files only if it cannot be read, and is then told itself.
        if old.offers and path not in after.files and path.parent not in after.files:
            logger.warning("%s: %s is gone", OPTION, _shown(path))


def _read_all(paths: Sequence[Path], before: _Shelf, *, came: float) -> _Shelf:
    """What `paths` hold now. What has not changed is taken from `before`. Blocks."""
    files: dict[Path, _File] = {}
    for path in paths:
        files.update(_read_path(path, before.files))
    held = {path: file.offers for path, file in files.items() if file.offers}
    held_before = {path: file.offers for path, file in before.files.items() if file.offers}
    # Of the certificates themselves only those of changed files are compared.
    if list(held.items()) == list(held_before.items()):
        return replace(before, files=files)
    by_subject: dict[bytes, list[_Offer]] = {}
    times: dict[Certificate, float] = {}
    for offers in held.values():
        for offer in offers:
            certificate = offer.found.certificate
            if certificate not in times:
                times[certificate] = before.came.get(certificate, came)
                by_subject.setdefault(offer.subject, []).append(offer)
    return _Shelf(files, by_subject, times)


def _read_path(path: Path, before: Mapping[Path, _File]) -> Iterator[tuple[Path, _File]]:
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            yield path, _read_file(path, before.get(path, _File()))
            return
        names = sorted(os.listdir(path))
    except OSError as error:
        yield path, _unreadable(error)
        return
    for name in names:
        inside = path / name
        if not name.startswith(".") and not os.path.isdir(inside):
            yield inside, _read_file(inside, before.get(inside, _File()))


def _read_file(path: Path, before: _File) -> _File:
    try:
        # Not even opened: that alone can hang (a FIFO) or do something (a device).
        now = os.stat(path)
        if not stat.S_ISREG(now.st_mode):
            return _File(problem="is not a regular file")
        if before.settled and before.stamp == _stamp(now):
            return before
        # Nor does it hang if a FIFO has taken its place meanwhile.
        with open(path, "rb", opener=_open_without_waiting) as file:
            now = os.fstat(file.fileno())
            if now.st_size > MAX_BYTES:
                return _File(_stamp(now), problem=f"is larger than {MAX_BYTES >> 20} MiB")
            data = file.read(now.st_size)
    except OSError as error:
        return _unreadable(error)
    settled = not 0 <= time.time_ns() - now.st_ctime_ns < _SETTLED_NS
    digest = hashlib.sha256(data).digest()
    if digest == before.digest:
        return replace(before, stamp=_stamp(now), settled=settled)
    try:
        offers = tuple(_offers_of(data, _shown(path)))
    except ValueError as error:
        return _File(_stamp(now), settled, digest, problem=str(error))
    return _File(_stamp(now), settled, digest, offers)


def _offers_of(data: bytes, origin: str) -> Iterator[_Offer]:
    for certificate in read_certificates(data):
        # Not parsed again until it is wanted: that takes several times the memory.
        found = Found(Certificate(certificate.der), origin, at_hand=True)
        yield _Offer(found, certificate.subject, certificate.not_after)


def _unreadable(error: OSError) -> _File:
    return _File(problem=f"cannot be read ({error.strerror})", error=error)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Differs when the content does: it was written, or another file took its place."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_dev, status.st_ino


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
