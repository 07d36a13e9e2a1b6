"""The thread that writes to a SQLite cache, and looks after its faults."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from pathlib import Path

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.sources.sqlite_errors import Damaged
from mitmproxy_aia.sources.sqlite_file import open_to_write, set_aside
from mitmproxy_aia.sources.sqlite_rows import Database

RETRY_SECONDS = 60.0
PRUNE_SECONDS = 3600.0
TOUCH_SECONDS = 3600
"""How exactly the last use is known. A proxy that meets nothing new then writes nothing."""
CLOSE_SECONDS = 3.0
MOST_PENDING = 1_000
MOST_NOTED = 10_000
ONLY_MEMORY = "new issuers are remembered in memory only"

logger = logging.getLogger(__name__)


class Writer:
    """Writes entries in its own thread, many at a time. No method blocks, but for `close`.

    While the file cannot be used, what is to be written waits (within bounds), and the file
    is tried again from time to time. One warning is logged for each fault.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._pending: dict[bytes, Entry] = {}
        self._suspicion: CacheError | None = None
        self._rest_until = 0.0
        # The last use of each certificate as far as we know it to be in the file.
        self._noted: OrderedDict[bytes, float] = OrderedDict()
        # Only for the thread.
        self._database: Database | None = None
        self._fault = ""
        self._prune_at = 0.0

    @property
    def resting(self) -> bool:
        """True while a fault has been seen and it is too early to try again."""
        return self._suspicion is not None or time.monotonic() < self._rest_until

    def note(self, fingerprint: bytes, last_used: float) -> None:
        """Hears of what is in the file (seconds since 1970), which spares writing it."""
        with self._news:
            self._note(fingerprint, last_used)

    def has_noted(self, fingerprint: bytes) -> bool:
        return fingerprint in self._noted

    def forget(self) -> None:
        """Hears that it is no longer certain what is in the file."""
        with self._news:
            self._noted.clear()

    def put(self, entry: Entry) -> None:
        """Has `entry` written, unless it is in the file with about this last use already."""
        fingerprint = entry.certificate.fingerprint
        with self._news:
            known = self._noted.get(fingerprint, 0.0)
            if entry.last_used.timestamp() - known < TOUCH_SECONDS:
                return
            if self._closing:
                return
            if len(self._pending) < MOST_PENDING:
                self._note(fingerprint, entry.last_used.timestamp())
                self._pending[fingerprint] = entry
            self._wake()

    def examine(self, suspicion: CacheError) -> None:
        """Hears of a fault that a reader has met, to mend or to report it."""
        with self._news:
            self._suspicion = suspicion
            self._wake()

    def close(self) -> None:
        """Ends the thread. What is waiting is written, if that takes no more than seconds."""
        with self._news:
            self._closing = True
            self._news.notify()
            thread = self._thread
        if thread:
            thread.join(CLOSE_SECONDS)

    def _note(self, fingerprint: bytes, last_used: float) -> None:
        self._noted[fingerprint] = last_used
        self._noted.move_to_end(fingerprint)
        if len(self._noted) > MOST_NOTED:
            self._noted.popitem(last=False)

    def _wake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="aia-sqlite", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # too many of them: whoever comes next tries again
                self._suspicion = None
                self._report(f"{self._path} cannot be written: {error}; {ONLY_MEMORY}")
                return
            self._thread = thread
        self._news.notify()

    def _run(self) -> None:
        while self._wait():
            self._work()
        if self._pending:
            self._work()
        self._close_file()

    def _wait(self) -> bool:
        """Until there is something to do. False when it is time to end."""
        with self._news:
            while not self._closing:
                rest = self._rest_until - time.monotonic()
                if rest <= 0 and (self._pending or self._suspicion):
                    return True
                self._news.wait(rest if rest > 0 else None)
            return False

    def _work(self) -> None:
        with self._news:
            batch, self._pending = self._pending, {}
            suspicion = self._suspicion
        try:
            if isinstance(suspicion, Damaged):
                self._begin_anew(suspicion)
            try:
                self._write(batch)
            except CacheError as fault:
                if isinstance(fault, Damaged):
                    self._begin_anew(fault)
                elif self._database and not self._database.current:
                    # Replaced under our hands: whatever that led to is over.
                    self._close_file()
                else:
                    raise
                self._write(batch)
        except CacheError as error:
            self._close_file()
            self._report(f"{error}; {ONLY_MEMORY}")
            with self._news:
                self._pending = batch | self._pending
                self._suspicion = None
                self._rest_until = time.monotonic() + RETRY_SECONDS
        else:
            self._fault = ""
            with self._news:
                self._suspicion = None
                self._rest_until = 0.0

    def _write(self, batch: dict[bytes, Entry]) -> None:
        if self._database and not self._database.current:
            self._close_file()
        if self._database is None:
            self._database = open_to_write(self._path)
        due = time.monotonic() >= self._prune_at
        if batch or due:
            self._database.add(
                batch.values(),
                resolution=TOUCH_SECONDS,
                expired_at=time.time() if due else None,
            )
        if due:
            self._prune_at = time.monotonic() + PRUNE_SECONDS

    def _begin_anew(self, damage: Damaged) -> None:
        self._close_file()
        name = set_aside(self._path, damage.identity)
        self.forget()
        if name:
            logger.warning("%s; it was set aside as %s and a new one begun", damage, name.name)

    def _report(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            logger.warning("%s", fault)

    def _close_file(self) -> None:
        if self._database:
            self._database.close()
            self._database = None
