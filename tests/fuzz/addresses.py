"""A second opinion on addresses, which shares no table with the addon, and their disguises."""

from __future__ import annotations

import ipaddress
import socket
from enum import IntEnum

from tests.fuzz.choices import Choices

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(IntEnum):
    """From where to where a download may go: to the same number or to a lower one."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    ODD = 3
    NEVER = 4


_METADATA = frozenset(
    {"168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"}
)
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
_CORNERS = (
    "8.8.8.8",
    "93.184.215.14",
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.15.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "172.32.0.0",
    "192.168.1.1",
    "100.63.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "169.253.255.255",
    "169.254.169.254",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "192.88.99.1",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2606:4700::1111",
    "2606:4700::5efe:a00:1",
    "2606:4700::200:5efe:808:808",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "100::1",
    "3fff::1",
    "4000::1",
    *sorted(_METADATA),
)
CORNERS = len(_CORNERS)
"""Inputs that end in these are worth trying first."""


def address(choices: Choices) -> Address:
    """A corner of some network, or any address."""
    match choices.below(8):
        case 0:
            return ipaddress.IPv4Address(choices.below(2**32))
        case 1:
            return ipaddress.IPv6Address(choices.below(1 << 128))
        case 2:
            return ipaddress.IPv6Address(0xFFFF_0000_0000 + choices.below(2**32))
        case _:
            return ipaddress.ip_address(choices.pick(_CORNERS))


def reach(where: Address) -> Reach:
    """In what space an address is, as `ipaddress` sees it. The worst of an address and of all
    that is hidden in it, where it is no plain way to write that."""
    if isinstance(where, ipaddress.IPv6Address):
        number = int(where)
        if where.ipv4_mapped is not None:
            return reach(where.ipv4_mapped)
        if number >> 32 == 0x64_FF9B << 64:
            return reach(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
        if where.is_loopback:
            return Reach.LOOPBACK
        hidden = where.sixtofour is not None or where.teredo is not None
        compatible, translated = number >> 32 == 0, number >> 32 == 0xFFFF << 16
        isatap = (number >> 32) & 0xFDFF_FFFF == 0x5EFE
        local_nat64 = number >> 80 == 0x64_FF9B_0001
        if hidden or compatible or translated or isatap or local_nat64:
            return Reach.NEVER
    if where.is_multicast or where.is_link_local or where.is_unspecified:
        return Reach.NEVER
    if str(where) in _METADATA or str(where) == "255.255.255.255":
        return Reach.NEVER
    if where.version == 4 and int(where) < 1 << 24:
        return Reach.NEVER
    if where.is_loopback:
        return Reach.LOOPBACK
    if any(where in ipaddress.ip_network(each) for each in _PRIVATE):
        return Reach.PRIVATE
    return Reach.PUBLIC if where.is_global else Reach.ODD


def as_programs_read(host: str) -> Address | None:
    """The address that the C library, or browsers (with a dot at the end), take `host` for, if
    they take it for one."""
    try:
        found = socket.getaddrinfo(host.removesuffix("."), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError, ValueError):
        return None
    return ipaddress.ip_address(str(found[0][4][0]))


def disguised(where: Address, choices: Choices) -> str:
    """`where` as the host of a URL, in one of the ways in which it can be written."""
    if isinstance(where, ipaddress.IPv6Address):
        text = choices.pick((str(where), where.exploded, str(where).upper(), _dotted(where)))
        zone = choices.pick(("", "", "", "%25eth0", "%eth0", "%1", "%25"))
        return f"[{text}{zone}]"
    number, parts = int(where), str(where).split(".")
    last_two, last_three = number & 0xFFFF, number & 0xFF_FFFF
    plain = choices.pick(
        (
            str(where),
            str(number),
            f"{number:#x}",
            f"0{number:o}",
            f"{parts[0]}.{last_three}",
            f"{parts[0]}.{parts[1]}.{last_two}",
            ".".join(f"{int(part):#x}" for part in parts),
            ".".join(f"0{int(part):o}" for part in parts),
            ".".join(f"{int(part):03}" for part in parts),
            f"[::ffff:{where}]",
        )
    )
    match choices.below(8):
        case 0:
            return plain + "."
        case 1:
            return plain.replace(".", choices.pick("\u3002\uff0e\uff61"))
        case 2:
            return "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in plain)
        case 3:
            return "".join(f"%{ord(c):02x}" for c in plain)
        case _:
            return plain


def _dotted(where: ipaddress.IPv6Address) -> str:
    groups = where.exploded.split(":")
    return f"{':'.join(groups[:6])}:{ipaddress.IPv4Address(int(where) & 0xFFFF_FFFF)}"
