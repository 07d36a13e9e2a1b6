"""Our turn: right after mitmproxy's TlsConfig has prepared a connection.

Scripts have theirs before TlsConfig, in the order in which they were loaded. After it, whatever
any of them has changed (server name, ciphers, address) counts, whether it was loaded before this
addon or after, and whether or not it raised an exception.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Turn:
    """Calls `after` with the data of each call of a hook of TlsConfig, once that has returned.

    `hook` is the hook's name ("tls_start_server"), `fills` the attribute of its data that
    TlsConfig fills in unless another addon has. What another addon has filled in is its own
    business: `after` is not called then, nor when TlsConfig raises. `after` must not raise.
    """

    def __init__(self, hook: str, fills: str, after: Callable[[Any], None]) -> None:
        self._hook = hook
        self._fills = fills
        self._after = after
        self._give_back: Callable[[], None] | None = None

    def take(self, tlsconfig: object) -> None:
        """From now until `give_back`. Taking it twice is taking it once."""
        if self._give_back is not None:
            return
        before = vars(tlsconfig).get(self._hook)
        taken = _taken.setdefault(tlsconfig, {}).setdefault(self._hook, _Taken())

        def hook(data: Any) -> None:
            outermost = not any(each is data for each in taken.under_way)
            ours = outermost and getattr(data, self._fills) is None
            taken.under_way.append(data)
            try:
                if before is not None:
                    before(data)
                else:
                    getattr(type(tlsconfig), self._hook)(tlsconfig, data)
            finally:
                taken.under_way.pop()
            for turn in [*taken.turns] if ours else ():
                turn._after(data)

        def give_back() -> None:
            taken.turns.remove(self)
            # If another addon has put its own in place of ours, ours stays behind it.
            if vars(tlsconfig).get(self._hook) is hook:
                if before is not None:
                    setattr(tlsconfig, self._hook, before)
                else:
                    delattr(tlsconfig, self._hook)

        taken.turns.append(self)
        # On the instance, where mitmproxy looks a hook up each time.
        setattr(tlsconfig, self._hook, hook)
        self._give_back = give_back

    def give_back(self) -> None:
        """As if it had never been taken."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None


class _Taken:
    """Who has taken a turn after one hook. Whichever of our hooks is the outermost calls them:
    an addon that has wrapped one of a turn long given back may put just that one back."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.under_way: list[object] = []


_taken: weakref.WeakKeyDictionary[object, dict[str, _Taken]] = weakref.WeakKeyDictionary()
