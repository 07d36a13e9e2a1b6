"""Which address space an IP address, or a name, belongs to, whatever disguise it wears. Pure.

The networks are those of the IANA special-purpose address registries (RFC 6890). They are
listed here because what `ipaddress` calls global, private or reserved differs between versions
of Python.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from enum import IntEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Space(IntEnum):
    """The address spaces of the Private Network Access draft, and what is none of them. What
    is in one may ask for what is in the same or a lower one."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    RESERVED = 3
    """Where nobody should be, though some networks do use such addresses."""
    NEVER = 4
    """Where no caIssuers server can be."""


_METADATA = "a cloud's metadata service"
_IPV4 = [
    # The first network that has an address counts.
    ("168.63.129.16/32", Space.NEVER, _METADATA),  # Azure; a public address otherwise
    ("100.100.100.200/32", Space.NEVER, _METADATA),  # Alibaba Cloud
    ("192.0.0.192/32", Space.NEVER, _METADATA),  # Oracle Cloud
    ("169.254.169.254/32", Space.NEVER, _METADATA),
    ("169.254.0.0/16", Space.NEVER, "a link-local address"),
    ("0.0.0.0/8", Space.NEVER, "the unspecified address"),  # Linux connects to itself
    ("224.0.0.0/4", Space.NEVER, "a multicast address"),
    ("255.255.255.255/32", Space.NEVER, "the broadcast address"),
    ("127.0.0.0/8", Space.LOOPBACK, "on this machine"),
    ("10.0.0.0/8", Space.PRIVATE, "in the private network"),
    ("172.16.0.0/12", Space.PRIVATE, "in the private network"),
    ("192.168.0.0/16", Space.PRIVATE, "in the private network"),
    ("100.64.0.0/10", Space.PRIVATE, "in the private network"),  # carrier-grade NAT
    ("192.0.0.0/24", Space.RESERVED, "in a reserved network"),  # IETF protocol assignments
    ("192.0.2.0/24", Space.RESERVED, "in a reserved network"),  # documentation, as the next two
    ("198.51.100.0/24", Space.RESERVED, "in a reserved network"),
    ("203.0.113.0/24", Space.RESERVED, "in a reserved network"),
    ("192.88.99.0/24", Space.RESERVED, "in a reserved network"),  # 6to4 relays, which are no more
    # Benchmarks; the name service of some VPNs gives these for every name.
    ("198.18.0.0/15", Space.RESERVED, "in a reserved network"),
    ("240.0.0.0/4", Space.RESERVED, "in a reserved network"),
    ("0.0.0.0/0", Space.PUBLIC, "at a public address"),
]
_IPV6 = [
    ("::/128", Space.NEVER, "the unspecified address"),
    ("::1/128", Space.LOOPBACK, "on this machine"),
    ("::/96", Space.NEVER, "a disguised IPv4 address"),  # IPv4-compatible, which is no more
    ("::ffff:0:0:0/96", Space.NEVER, "a disguised IPv4 address"),  # IPv4-translated
    ("2001::/32", Space.NEVER, "a disguised IPv4 address"),  # Teredo
    ("2002::/16", Space.NEVER, "a disguised IPv4 address"),  # 6to4
    # NAT64 in the way that an operator likes: where in it the IPv4 address is cannot be told.
    ("64:ff9b:1::/48", Space.NEVER, "a disguised IPv4 address"),
    ("fe80::/10", Space.NEVER, "a link-local address"),
    ("ff00::/8", Space.NEVER, "a multicast address"),
    ("fd00:ec2::/32", Space.NEVER, _METADATA),  # Amazon
    ("fd20:ce::/32", Space.NEVER, _METADATA),  # Google
    ("fd00:42::/32", Space.NEVER, _METADATA),  # Scaleway
    ("fc00::/7", Space.PRIVATE, "in the private network"),
    ("2001::/23", Space.RESERVED, "in a reserved network"),  # IETF protocol assignments
    ("2001:db8::/32", Space.RESERVED, "in a reserved network"),  # documentation, as the next
    ("3fff::/20", Space.RESERVED, "in a reserved network"),
    ("2000::/3", Space.PUBLIC, "at a public address"),
    # What IANA has not given to anybody: ::/0 minus 2000::/3.
    ("::/0", Space.RESERVED, "in a reserved network"),
]
_TABLE = [(ipaddress.ip_network(text), space, kind) for text, space, kind in (*_IPV4, *_IPV6)]

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Networks without IPv4 reach all IPv4 addresses as these (RFC 6052)."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The first half of the last 64 bits; the second is an IPv4 address (RFC 5214)."""

_LOOPBACK_NAMES = (
    # RFC 6761, and what Linux distributions write into /etc/hosts.
    *("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost"),
    *("localhost4.localdomain4", "localhost6.localdomain6", "ip6-loopback"),
)
_METADATA_NAMES = (
    # Amazon's, Google's, Azure's and Tencent's.
    *("instance-data", "instance-data.ec2.internal", "metadata", "metadata.google.internal"),
    *("metadata.goog", "metadata.azure.internal", "metadata.tencentyun.com"),
)
_PRIVATE_ENDINGS = (
    # RFC 6762 with its appendix G, RFC 8375, and what ICANN has set aside.
    *(".local", ".internal", ".home.arpa", ".intranet", ".private", ".corp", ".home", ".lan"),
    # What distributions and clusters use.
    *(".mail", ".localdomain", ".svc", ".consul", ".docker"),
)

_REMEMBERED = 64
"""Answers to the questions that are asked several times in one download."""


def bare(address: Address) -> Address:
    """`address` without zone, and the IPv4 address that it stands for if it is another way to
    write one that leads there."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    number = int(address)
    address = ipaddress.IPv6Address(number)
    if address in _MAPPED or address in _NAT64:
        return ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    return address


@functools.lru_cache(_REMEMBERED)
def classify(address: Address) -> tuple[Space, str]:
    """The space that `address` is in, and words for it that follow "is"."""
    address = bare(address)
    if address.version == 6 and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return Space.NEVER, "a disguised IPv4 address"
    return next((space, kind) for network, space, kind in _TABLE if address in network)


def classify_name(host: str) -> tuple[Space, str]:
    """The same of a name that a proxy will look up, as far as its form tells."""
    name = canonical(host)
    if name in _METADATA_NAMES:
        return Space.NEVER, _METADATA
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return Space.LOOPBACK, "on the proxy's own machine"
    if "." not in name or name.endswith(_PRIVATE_ENDINGS):
        return Space.PRIVATE, "a name in the private network"
    return Space.PUBLIC, "at a public address"


def canonical(host: str) -> str:
    """`host` in the spelling in which names are compared."""
    return host.lower().removesuffix(".")


def space_of(address: Address) -> Space:
    """The space that `address` is in."""
    return classify(address)[0]


def never(network: Network) -> bool:
    """Whether all of `network` is where no caIssuers server can be."""
    for known, space, _ in _TABLE:
        if network.version == known.version and network.overlaps(known):
            if space is not Space.NEVER:
                return False
            if network.prefixlen >= known.prefixlen:
                return True
    return False  # pragma: no cover -- the table ends with everything


@functools.lru_cache(_REMEMBERED)
def literal(host: str) -> Address | None:
    """The address that `host` is, in any way in which programs read one (127.1, 0x7f000001,
    2130706433, fe80::1%eth0); None if it is a name. Raises ValueError if it is neither."""
    if ":" in host:
        return ipaddress.IPv6Address(host)
    labels = host.removesuffix(".").split(".")
    if not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(".".join(labels)))
    except OSError:
        raise ValueError(f"{host!r} is not an address") from None
