"""From what a person types to the server that is meant. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_MAX_NAME = 253


@dataclass(frozen=True)
class Target:
    """A server to inspect. `host` is an address, or a name in ASCII (A-labels, RFC 5890);
    `text` is what it was called, with its port, for people."""

    host: str
    port: int
    text: str


def parse_target(text: str, port: int) -> Target:
    """`host`, `host:8443`, `10.1.2.3`, `2001:db8::1`, `[2001:db8::1]:8443`, or a whole URL, of
    which the rest is left out; `port` where none is given. Raises ValueError with a sentence."""
    written = _without_url(text.strip())
    host, given = _split(written)
    number = port if given is None else _port(given, text)
    ascii_host = canonical_host(host)
    shown = f"[{host}]" if ":" in host else host
    return Target(ascii_host, number, f"{shown}:{number}")


def canonical_host(host: str) -> str:
    """A name as it is looked up, or an address as it is written shortest. Raises ValueError
    with a sentence."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.lower()
    if not name.isascii():
        # It takes a while to import.
        import idna

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{host!r} is no host name ({error})") from error
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or re.fullmatch(r"[0-9.]+", name):
        raise ValueError(f"{host!r} is no host name and no address")
    return name.removesuffix(".")


def _without_url(text: str) -> str:
    match = re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#]*).*", text, re.DOTALL)
    return match[1] if match else text


def _split(text: str) -> tuple[str, str | None]:
    """Host and port. An IPv6 address without brackets is all host."""
    if match := re.fullmatch(r"\[([^]]*)\](?::(.*))?", text):
        return match[1], match[2]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _port(text: str, whole: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= 65535:
        return int(text)
    raise ValueError(f"{whole.strip()!r} has no port from 1 to 65535 after its colon")
