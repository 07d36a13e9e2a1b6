"""The entries of `aia_allow` and `aia_deny`. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mitmproxy_aia.addresses import Address, Network, bare, canonical, classify, literal, never

_MAPPED_BITS = 96
"""Of ::ffff:0:0, in front of an IPv4 address."""


@dataclass(frozen=True)
class Rule:
    """An entry of `aia_allow` or `aia_deny`: a host name ("*.x" is all below x), or a network."""

    what: str | Network
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`pki.example`, `*.pki.example`, `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`, and with a port
        `pki.example:8080` or `[fd00::1]:8080`. Raises ValueError, which names the entry."""
        written = text.strip()
        match = re.fullmatch(r"(?:\[([^]]+)\]|([^:[\]]+))(?::([0-9]{1,5}))?", written)
        six, plain, digits = match.groups() if match else (written, None, None)
        port = None if digits is None else int(digits)
        try:
            if port is not None and not 0 < port <= 65535:
                raise ValueError("no such port")
            return cls(_six(six) if plain is None else _place(plain), port)
        except ValueError:
            raise ValueError(
                f"{text!r} is not a host name, an address or a network, with or without a port "
                f"(pki.example, *.pki.example, 10.0.0.0/8, 10.1.2.3:8080, [fd00::1]:8080)"
            ) from None

    def fits(self, host: str, port: int, address: Address | None) -> bool:
        """Whether it speaks of `host`, which may have been found to be at `address`."""
        if self.port is not None and self.port != port:
            return False
        if isinstance(self.what, str):
            name = canonical(host)
            if self.what.startswith("*."):
                return name.endswith(self.what[1:])
            return name == self.what
        return address is not None and (address in self.what or bare(address) in self.what)


def parse_rules(option: str, texts: Iterable[str]) -> tuple[Rule, ...]:
    """The entries of this option. Raises ValueError, which names it and the bad entry."""
    rules = []
    for text in filter(str.strip, texts):
        try:
            rule = Rule.parse(text)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        network = rule.what
        if option == "aia_allow" and not isinstance(network, str) and never(network):
            kind = classify(network.network_address)[1]
            raise ValueError(f"{option}: {text!r} is {kind}, where no download ever goes")
        rules.append(rule)
    return tuple(rules)


def _six(text: str) -> Network:
    """The network that `text` is; what is IPv4 in IPv6 (RFC 4291 section 2.5.5.2) is IPv4. Raises
    ValueError."""
    network = ipaddress.IPv6Network(text)
    mapped = network.network_address.ipv4_mapped
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _place(text: str) -> str | Network:
    """The network or the host name that `text` is. Raises ValueError."""
    if "/" in text:
        return ipaddress.IPv4Network(text)
    address = literal(text)
    if address is not None:
        # A URL with 10.1 leads to 10.0.0.1, but whoever writes that here may mean 10.1.0.0/16.
        if str(address) != text.removesuffix("."):
            raise ValueError("not written out")
        return ipaddress.ip_network(address)
    name = text.removeprefix("*.")
    if not name.isascii():
        # As httpx does with the hosts of URLs. It takes a while to import.
        import idna

        name = idna.encode(name.lower()).decode("ascii")
    name = canonical(name)
    if not re.fullmatch(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", name):
        raise ValueError("not a name")
    return f"*.{name}" if text.startswith("*.") else name
