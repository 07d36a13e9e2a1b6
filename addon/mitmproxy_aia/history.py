"""What happened, per server: what a person may want to know who has to mend one. Pure.

It is bounded whatever servers do: those that were not seen for the longest time go first, and
of what a single one presents only so many bytes are kept.
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakValueDictionary

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.names import printable
from mitmproxy_aia.paths import Path
from mitmproxy_aia.sources import Found

SERVERS = 1_000
"""Servers that are remembered."""
BYTES = 32 * 1024 * 1024
"""What their certificates may take together, in DER."""
PRESENTED_BYTES = 64 * 1024
"""What is kept of the certificates that one server sent after its own, in DER."""
MAX_REASON = 2_000
"""Characters of a reason that are kept."""

Verdict = Literal["incomplete", "broken", "complete"]
"""Incomplete: a path was found and verified. Broken: none was. Complete: mended since."""


def utc_now() -> datetime.datetime:
    """The current time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


_Key = tuple[str, str]
"""Of a server: what it sends over QUIC says nothing of what it sends over TLS."""


@dataclass(frozen=True)
class Record:
    """One server whose chain was incomplete or broken at least once.

    `server` is its address as in the log (host:port). `verdict` is that of the last time, and
    `incomplete`, `broken` and `complete` count handshakes; those before the first fault are not
    counted. `first` and `last` are when its chain was at fault, and `mended` is when it was
    first seen complete after that, if it was (all in UTC).

    The others tell of the last handshake with a fault. `presented` is what the server sent,
    leaf first, and `left_out` how much of it is not kept. `found` are the intermediates that it
    did not send, and `path` goes from the leaf to the trust anchor; both are empty if it is
    broken, and then `reason` says why, in words that are safe to print, and `fetched` is what was
    downloaded all the same. `seconds` is how long the handshake was paused. `protocol` is TLS,
    DTLS or QUIC. `audit` says that the connection was refused all the same (aia_mode=audit).
    """

    server: str
    verdict: Verdict
    first: datetime.datetime
    last: datetime.datetime
    mended: datetime.datetime | None = None
    incomplete: int = 0
    broken: int = 0
    complete: int = 0
    presented: tuple[Certificate, ...] = ()
    left_out: int = 0
    found: tuple[Found, ...] = ()
    path: Path = ()
    reason: str = ""
    fetched: tuple[Found, ...] = ()
    seconds: float = 0.0
    protocol: str = "TLS"
    audit: bool = False

    def after(self, **changes: Any) -> Record:
        """As dataclasses.replace, which takes ten times as long: there are many handshakes."""
        record = object.__new__(Record)
        record.__dict__.update(self.__dict__)
        record.__dict__.update(changes)
        return record

    @property
    def where(self) -> str:
        """The server, and the protocol if it is not TLS."""
        return self.server if self.protocol == "TLS" else f"{self.server} ({self.protocol})"

    @property
    def key(self) -> _Key:
        return self.server, self.protocol

    @property
    def at_fault(self) -> Verdict:
        """The verdict of the last handshake with a fault."""
        return "incomplete" if self.path else "broken"

    @property
    def _certificates(self) -> tuple[object, ...]:
        return self.presented, self.found, self.fetched, self.path

    @property
    def size(self) -> int:
        """Bytes of its certificates."""
        others = (item.certificate for item in (*self.found, *self.fetched))
        return sum(len(each.der) for each in {*self.presented, *others, *self.path})


class History:
    """The records of the servers seen last. Safe to be read from other threads.

    `capacity` is in servers, `size` in bytes, and `now` tells the time.
    """

    def __init__(
        self,
        capacity: int = SERVERS,
        size: int = BYTES,
        now: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        self._capacity = capacity
        self._size = size
        self._now = now
        self._records: OrderedDict[_Key, Record] = OrderedDict()
        self._sizes: dict[_Key, int] = {}
        self._total = 0
        self._lock = threading.Lock()
        self.started = now()
        self.complete = 0
        """Handshakes with servers that sent all that was needed."""
        self.revision = 0
        """Another number whenever a record has changed."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each change."""
        self.forgotten = 0
        """Records that had to make room for others."""

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> Sequence[Record]:
        """The server that was at fault last comes first."""
        with self._lock:
            return tuple(reversed(self._records.values()))

    def get(self, server: str, protocol: str = "TLS") -> Record | None:
        """What is known of the server at this address, as in the log."""
        return self._records.get((server, protocol))

    def note(
        self, server: str, outcome: Outcome, *, protocol: str = "TLS", audit: bool = False
    ) -> Record:
        """Takes note of what came of an incomplete or broken chain, and returns the record."""
        now = self._now()
        old = self.get(server, protocol) or Record(server, "broken", now, now, protocol=protocol)
        record = old if _as_last_time(old, outcome) else _with_certificates(old, outcome)
        record = record.after(
            verdict="incomplete" if outcome.verified else "broken",
            last=now,
            mended=None,
            incomplete=old.incomplete + outcome.verified,
            broken=old.broken + (not outcome.verified),
            reason="" if outcome.verified else printable(outcome.reason, MAX_REASON),
            fetched=() if outcome.verified else _fetched(outcome),
            seconds=outcome.seconds,
            audit=audit,
        )
        with self._lock:
            self._put(record)
        self._changed()
        return record

    def note_complete(self, server: str, protocol: str = "TLS") -> None:
        """Takes note of a handshake with a server that sent all that was needed."""
        self.complete += 1
        old = self.get(server, protocol)
        if old is None:
            return
        mended = old.mended or self._now()
        # In its place: nothing is to be done about it, so it may go in its turn.
        with self._lock:
            self._records[old.key] = old.after(
                verdict="complete", mended=mended, complete=old.complete + 1
            )
        self._changed()

    def clear(self) -> None:
        with self._lock:
            self._records.clear()
            self._sizes.clear()
            self._total = 0
        self._changed()

    def _changed(self) -> None:
        self.revision += 1
        for listener in self.listeners:
            listener()

    def _put(self, record: Record) -> None:
        key = record.key
        old = self._records.get(key)
        self._records[key] = record
        self._records.move_to_end(key)
        if old is not None and old._certificates == record._certificates:
            return
        size = record.size
        self._total += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        while len(self._records) > self._capacity or (
            self._total > self._size and len(self._records) > 1
        ):
            key, _ = self._records.popitem(last=False)
            self._total -= self._sizes.pop(key)
            self.forgotten += 1


def _as_last_time(old: Record, outcome: Outcome) -> bool:
    """Whether it is about the same certificates. What was read from them then is kept."""
    kept = outcome.presented[: len(old.presented)]
    return (
        old.presented == kept
        and len(outcome.presented) - len(kept) == old.left_out
        and old.path == outcome.path
        and old.found == outcome.found
    )


def _with_certificates(old: Record, outcome: Outcome) -> Record:
    presented = _kept(outcome.presented)
    return old.after(
        presented=presented,
        left_out=len(outcome.presented) - len(presented),
        found=tuple(
            dataclasses.replace(item, certificate=_named(item.certificate))
            for item in outcome.found
        ),
        path=tuple(map(_named, outcome.path)),
    )


def _named(certificate: Certificate) -> Certificate:
    # Flows are told the names. They are read here, where others of the same authority have
    # the certificate in hand as well.
    kept = _once(certificate)
    if "name" not in vars(kept):
        # It would be parsed to read that, and stay so.
        vars(kept)["name"] = certificate.name
    return kept


_all_kept: WeakValueDictionary[bytes, Certificate] = WeakValueDictionary()


def _once(certificate: Certificate) -> Certificate:
    """One object for all records with this certificate: many servers have the same issuer."""
    kept = _all_kept.get(certificate.fingerprint)
    if kept is None:
        kept = _all_kept[certificate.fingerprint] = certificate.bare
    return kept


def _kept(presented: Iterable[Certificate]) -> tuple[Certificate, ...]:
    """The leaf, and those after it as long as there is room."""
    kept: list[Certificate] = []
    room = PRESENTED_BYTES
    for certificate in presented:
        if kept:
            room -= len(certificate.der)
        if room < 0:
            break
        kept.append(_once(certificate))
    return tuple(kept)


def _fetched(outcome: Outcome) -> tuple[Found, ...]:
    """The first of what was downloaded, as much as of what is presented."""
    items = {item.certificate: item for attempt in outcome.attempts for item in attempt.found}
    room = PRESENTED_BYTES
    kept = list[Found]()
    for certificate, item in items.items():
        room -= len(certificate.der)
        if room < 0:
            break
        kept.append(dataclasses.replace(item, certificate=_once(certificate)))
    return tuple(kept)
