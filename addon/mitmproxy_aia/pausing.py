"""Pausing an upstream handshake until there is a verdict on the server's certificate chain.

The layer that does the handshake has a generator, `receive_handshake_data`. It is wrapped, on
that one layer, and what it wants to do next is held back as long as something speaks against
the server: it is passed on only after a completion was verified. What differs between the
libraries that do handshakes is a `Handshake`: see `handshake` for OpenSSL, `quic` for aioquic.

The verdict starts as "failed" and becomes "verified" in one place, `_Watch._decide`.

What happens during a pause waits in mitmproxy's layer until it is over, at most `aia_timeout` and
`completion.GRACE`:

- The server sends something. A little of it is kept (see `waiting`); datagrams beyond that are
  lost, and who sends a stream beyond that is refused.
- The server closes the connection. The completion goes on, so that the next connection finds
  what it has brought; a refused server stays refused, and a verified one is a server that has
  closed right after the handshake.
- The client goes away. The same; mitmproxy then closes the connection to the server.
- The proxy is shut down. Its tasks are cancelled, the completion with them: nothing was sent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mitmproxy.proxy import commands, tunnel
from mitmproxy.proxy.layers.tls import TlsEstablishedServerHook

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.verification import Verifier
from mitmproxy_aia.waiting import MAX_BYTES, MAX_PIECES, bounded

logger = logging.getLogger(__name__)

Commands = Generator[commands.Command, Any, None]
Progress = tuple[bool, str | None]
"""(done, error), as TunnelLayer.receive_handshake_data returns it."""
Steps = Generator[commands.Command, Any, Progress]

TOO_MUCH = f"the server sent more than {MAX_BYTES >> 20} MiB or {MAX_PIECES} pieces in advance"
SET_BY_A_HANDSHAKE = ("timestamp_tls_setup", "certificate_list", "alpn", "cipher", "tls_version")


@dataclass
class Pause:
    """A handshake that waits for a completion. Nobody but the hook's handler sets `outcome`;
    as long as it is None the server is not verified."""

    completion: Completion
    outcome: Outcome | None = None


@dataclass
class AiaCompleteHook(commands.StartHook):
    """
    The handshake with a server is paused because its certificate chain is incomplete.

    The addon is expected to try to complete it and to set pause.outcome.
    """

    pause: Pause


Begin = Callable[[Iterable[Certificate], Verifier], Completion]
"""Starts the completion of a presented chain, leaf first. Raises ValueError if the leaf cannot
be read."""
Conclude = Callable[[Outcome], None]
"""Takes note of what came of it."""
Intermediates = Callable[[], Sequence[Certificate]]
"""Those of a complete chain that was verified. It takes a while to get them."""


@dataclass(slots=True)
class Watcher:
    """Who watches a handshake. `complete` is called when the chain was complete and verified.

    With `audit` an incomplete chain is completed for `conclude` to know, and the handshake
    fails all the same, with mitmproxy's own words.
    """

    begin: Begin
    conclude: Conclude
    complete: Callable[[Intermediates], None] = lambda _: None
    audit: bool = False


@dataclass(frozen=True)
class Objection:
    """What speaks against a server, in the words that mitmproxy has for it. `prefix` stands
    before the reason, whosever it is. `curable`: another path could be the answer to it."""

    reason: str
    prefix: str = ""
    curable: bool = True

    def __str__(self) -> str:
        return self.prefix + self.reason


class Handshake(Protocol):
    """One handshake with a server, as a library does it."""

    @property
    def ours(self) -> bool:
        """Whether the layer has the connection that is watched, and not another addon's. Asked
        when the server's first answer is there."""

    def driven(self) -> contextlib.AbstractContextManager[None]:
        """Entered while the layer does its next step. Only then, and so only as long as
        somebody is going to decide, may the library go on after an objection."""

    def objection(self, *, finished: bool) -> Objection | None:
        """What speaks against the server so far. `finished`: the layer takes the handshake for
        done, so that if nothing is said now, the server is verified. Raises nothing."""

    def failure(self, error: BaseException) -> Objection | None:
        """What speaks against a server on which the layer broke down with `error`. None: it is
        not known to be about the server, so that mitmproxy is to see the error."""

    def verifier(self) -> Verifier:
        """What judges paths to this server. Raises ValueError if OpenSSL does not take its name."""

    def presented(self) -> Iterator[Certificate]:
        """What the server sent, leaf first. Asked after `verifier`, which may be told of the leaf.
        Raises ValueError if that cannot be read."""

    def confirmed(self, outcome: Outcome) -> Outcome:
        """The outcome after what the library itself has to say of a verified path."""

    def verified_intermediates(self) -> Sequence[Certificate]:
        """Those of a complete chain that was verified."""

    def refuse(self, objection: Objection) -> Commands:
        """Tells the server, if the protocol wants that."""


def watch(layer: tunnel.TunnelLayer, handshake: Handshake, watcher: Watcher) -> None:
    """Watches the handshake that `layer` is about to do."""
    _Watch(layer, handshake, watcher).start()


class _Watch:
    """One handshake. `_undecided` from its first byte to the verdict or the end."""

    def __init__(self, layer: tunnel.TunnelLayer, handshake: Handshake, watcher: Watcher) -> None:
        self._layer = layer
        self._handshake = handshake
        self._watcher = watcher
        self._stock = layer.receive_handshake_data
        self._undecided = True
        self._ours: bool | None = None
        self._before: dict[str, Any] = {}

    def start(self) -> None:
        # On the instance, so that no other connection is concerned; mypy knows classes only.
        self._layer.receive_handshake_data = self._receive_handshake_data  # type: ignore[method-assign] # this layer only

    def _receive_handshake_data(self, data: bytes) -> Steps:
        """In place of the layer's own: the same commands, but none between the objection
        and the verdict, and an error if that is not "verified"."""
        if self._ours is None:
            # Once: what was forgiven until then must not be forgotten.
            self._ours = self._handshake.ours
            self._before = {name: getattr(self._layer.conn, name) for name in SET_BY_A_HANDSHAKE}
        if not self._ours:
            return (yield from self._stock(data))
        stock = self._stock(data)
        reply: object = None
        while True:
            step = self._step(stock, reply)
            if isinstance(step, Objection):
                self._undecided = False
                return (yield from self._refuse(step, str(step)))
            if self._undecided and not (isinstance(step, tuple) and step[1]):
                finished = step == (True, None) or isinstance(step, TlsEstablishedServerHook)
                objection = self._handshake.objection(finished=finished)
                if objection is not None:
                    failure = yield from self._decide(objection)
                    self._undecided = False
                    if failure is not None:
                        stock.close()
                        return (yield from self._refuse(objection, failure))
            if isinstance(step, tuple):
                return self._end(step)
            reply = yield step

    def _step(self, stock: Steps, reply: object) -> commands.Command | Progress | Objection:
        """What the layer wants next, or how far it got; or what speaks against a server on which
        it broke down."""
        with self._handshake.driven() if self._undecided else contextlib.nullcontext():
            try:
                return stock.send(reply)
            except StopIteration as end:
                progress: Progress = end.value
                return progress
            except (GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                # A panic in `cryptography` is no Exception.
                failed = self._handshake.failure(error) if self._undecided else None
                if failed is None:
                    raise
                return failed

    def _end(self, result: Progress) -> Progress:
        """What came of all that was received so far, in the words that are right for it."""
        objection = self._handshake.objection(finished=result == (True, None))
        if result != (False, None):
            self._undecided = False
        if result[1] and objection is not None and self._watcher.audit == objection.curable:
            # With audit: the library went on after the error with which it would have ended, and
            # met another one. Without: it ended with one of which we know more than it says.
            result = False, str(objection)
        if result == (True, None) and objection is None:
            self._tell()
        return result

    def _refuse(self, objection: Objection, failure: str) -> Steps:
        """The connection is as it was before the handshake, and of no use any more."""
        for name, value in self._before.items():
            setattr(self._layer.conn, name, value)
        yield from self._handshake.refuse(objection)
        _seal(self._layer)
        return False, failure

    def _tell(self) -> None:
        """Has the complete chain learned. Whatever comes of that, the server is verified."""
        try:
            self._watcher.complete(self._handshake.verified_intermediates)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            logger.exception("learning from a complete certificate chain failed")

    def _decide(self, objection: Objection) -> Generator[commands.Command, Any, str | None]:
        """None if the chain was completed and verified, else the error for the client."""
        if not objection.curable:
            return str(objection)
        outcome: Outcome | None = None
        try:
            try:
                verifier = self._handshake.verifier()
                completion = self._watcher.begin(self._handshake.presented(), verifier)
            except ValueError as unreadable:
                return f"{objection} ({unreadable})"
            torn = False
            outcome = completion.complete_at_once()
            if not outcome.verified:
                pause = Pause(completion)
                with bounded(self._layer) as waiting:
                    yield AiaCompleteHook(pause)
                outcome = pause.outcome
                torn = waiting.torn
            if outcome is not None:
                outcome = self._handshake.confirmed(outcome)
                self._watcher.conclude(outcome)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # Nothing is awaited here, so that a CancelledError is an error like others; and a
            # panic in `cryptography` is no Exception. mitmproxy would let the client wait.
            logger.exception("completing a certificate chain failed")
            outcome = None
        if self._watcher.audit or outcome is None:
            return str(objection)
        if not outcome.verified:
            return objection.prefix + outcome.reason
        return f"{objection.prefix}{TOO_MUCH}" if torn else None


def _seal(layer: tunnel.TunnelLayer) -> None:
    """Makes a rejected connection unusable, as OpenSSL does in a failed handshake.

    In TLS 1.3 ours has succeeded as far as the library knows. Without this, what the server sent
    in the meantime would be decrypted and passed on, and the next write would bring our
    Finished and any client certificate with it.
    """

    def nothing(data: bytes = b"") -> Commands:
        yield from ()

    # On the instance again.
    for name in "receive_data", "send_data", "tls_interact":
        setattr(layer, name, nothing)
