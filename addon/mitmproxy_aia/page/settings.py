"""The settings in force, for people: no password is shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mitmproxy_aia.names import printable
from mitmproxy_aia.sources.redis_url import SCHEMES, redacted

MAX_VALUE = 1_000
HIDDEN = "***"


@dataclass(frozen=True)
class Setting:
    """One option. `value` is empty if it is not set."""

    name: str
    value: str
    help: str
    changed: bool = False


def shown(value: object) -> str:
    """The value of an option, without user and password where it is a URL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return printable(_without_credentials(value), MAX_VALUE)
    if isinstance(value, Sequence):
        return printable(", ".join(shown(each) for each in value), MAX_VALUE)
    return "" if value is None else printable(str(value), MAX_VALUE)


def _without_credentials(text: str) -> str:
    if text.strip().startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
        return redacted(text.strip())
    scheme, separator, rest = text.partition("://")
    if not separator or "@" not in rest:
        return text
    # The last one: a password may hold another, in which case too much is hidden.
    return f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2]}"
