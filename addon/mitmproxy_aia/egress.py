"""Where a download may go: the server that causes it, the rules, and the proxy. Pure.

The server chooses the URL, so each download is a stranger's request, made from inside the
user's network. A server may cause one to its own address space or a more public one, which is
the rule of the Private Network Access draft.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from mitmproxy_aia.addresses import (
    Address,
    Space,
    bare,
    canonical,
    classify,
    classify_name,
    literal,
    space_of,
)
from mitmproxy_aia.egress_rules import Rule, parse_rules

HTTP_PORT = 80

BAD_PORTS = frozenset(
    # "Bad ports" of the Fetch standard: other protocols live there, and some of them would take
    # a line of an HTTP request for a command.
    {0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95}
    | {101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179}
    | {389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601}
    | {636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566}
    | {6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)


@dataclass(frozen=True)
class Proxy:
    """An HTTP or SOCKS5 proxy for downloads. `option` is what a user changes to change it.

    `credentials` are `user:password` or empty. `ca_file` and `ca_folder` hold the roots that
    an https:// proxy is verified with; if both are empty, those of certifi are used.
    """

    scheme: str
    host: str
    port: int
    credentials: str = field(default="", repr=False)
    option: str = "aia_proxy"
    ca_file: str = ""
    ca_folder: str = ""

    @property
    def answers(self) -> bool:
        """Whether it is asked for URLs, so that an answer may be its own. One that speaks SOCKS5
        only makes the connection."""
        return self.scheme != "socks5"

    @property
    def here(self) -> bool:
        """Whether it is on this machine, as far as its name tells."""
        address = _literal(self.host)
        space = classify_name(self.host)[0] if address is None else space_of(address)
        return space is Space.LOOPBACK


@dataclass(frozen=True)
class Server:
    """On whose behalf something is downloaded.

    `address` and `port` are what the TLS connection goes to; the address is None where it is
    not known, behind a proxy. `proxy` is what its downloads go through; None: direct. `here`
    says that the address is one of this machine's.
    """

    name: str
    address: Address | None = None
    port: int = 0
    proxy: Proxy | None = None
    here: bool = False

    @property
    def permits(self) -> Space:
        """The least public space that a download may go to. An unknown server, or one at an
        odd address, counts as public."""
        space = Space.PUBLIC if self.address is None else space_of(self.address)
        if space > Space.LOOPBACK:
            return Space.PUBLIC
        if self.proxy is not None and not self.proxy.here:
            # This machine is not the one that it would reach as "localhost".
            return min(space, Space.PRIVATE)
        return max(space, Space.PRIVATE) if self.here else space

    @property
    def group(self) -> Hashable:
        """Servers of one group have one share of the downloads. Ports are had for nothing, and
        addresses are dear in public, but for those of IPv6. On this machine the ports may be
        those of servers elsewhere, forwarded."""
        if self.address is None:
            return site(self.name)
        address = bare(self.address)
        if self.here or address.is_loopback:
            return address, self.port
        wide = address.version == 6 and self.permits is Space.PUBLIC
        return int(address) >> 80 if wide else address


_REGISTRIES = frozenset(
    ("ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "gv", "mil", "ne", "net", "or", "org")
)
"""Below a country's domain. The few others only have to share more than they should."""

_EVERYWHERE = ipaddress.IPv6Address("::")

NOBODY = Server("the server")
"""One of which nothing is known: it permits the least."""


@dataclass(frozen=True)
class Refusal:
    """Why a download may not go somewhere: `what` follows the URL. With `compared`, because
    the server is in a more public place."""

    what: str
    compared: bool = False
    option: str = "aia_allow"

    def words(self, server: Server) -> str:
        what = self.what
        if self.compared and server.address is None:
            what += f", and where {server.name} is cannot be told"
            what += " behind a proxy" if server.proxy else ""
        elif self.compared:
            what += f", {server.name} is not"
        return f"{what} ({self.option})" if self.option else what


@dataclass(frozen=True)
class Policy:
    """What `aia_allow` and `aia_deny` say, on top of the rule of address spaces."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, allow: Iterable[str], deny: Iterable[str]) -> Policy:
        """Raises ValueError, which names the option and its bad entry."""
        return cls(parse_rules("aia_allow", allow), parse_rules("aia_deny", deny))

    def denies(self, host: str, port: int, address: Address | None = None) -> Refusal | None:
        """What `aia_deny` says, of a name that was not looked up yet too."""
        if any(rule.fits(host, port, address) for rule in self.deny):
            return Refusal("is denied", option="aia_deny")
        return None

    def judge(
        self, permits: Space, host: str, port: int, address: Address | None, *, here: bool = False
    ) -> Refusal | None:
        """Whether a download for a server that `permits` so much may go to this port of `host`
        at this `address`; None where a proxy will look the name up. `here`: the address is one
        of this machine's, and a firewall may keep strangers from what we can reach there."""
        if (refusal := self.denies(host, port, address)) is not None:
            return refusal
        space, kind = classify_name(host) if address is None else classify(address)
        if here and space is Space.PUBLIC:
            space, kind = Space.PRIVATE, "on this machine"
        what = f"is {kind}"
        if address is not None and _literal(host) != address:
            what += f" ({address})"
        if space is Space.NEVER:
            return Refusal(what, option="")
        for rule in self.allow:
            # Who names a host has not named all that runs on it.
            if rule.fits(host, port, address) and (rule.port or port not in BAD_PORTS):
                return None
        if space > permits:
            return Refusal(what, compared=space is not Space.RESERVED)
        if port in BAD_PORTS:
            return Refusal(f"names port {port}, which is not for HTTP")
        if space is Space.PUBLIC and port != HTTP_PORT:
            # All 930 http:// caIssuers URLs in the 1,259 intermediates that cfssl has collected
            # use port 80. Every other port is a stranger's scan of a third party.
            return Refusal(f"names port {port}, and only {HTTP_PORT} is used in public")
        return None


def is_own(
    address: Address,
    port: int,
    listeners: Sequence[tuple[str, int]],
    is_local: Callable[[Address], bool],
) -> bool:
    """Whether one of `listeners` (host and port) is what answers there. "0.0.0.0", "::" and a
    name are taken for every address of this machine, which `is_local` knows."""
    address = bare(address)
    for host, listening in listeners:
        if listening != port:
            continue
        try:
            listener = ipaddress.ip_address(host)
        except ValueError:
            listener = _EVERYWHERE  # at least one of this machine's
        if bare(listener) == bare(address) or (listener.is_unspecified and is_local(address)):
            return True
    return False


def site(host: str) -> str:
    """What of `host` costs money to have more of: the last two labels, or three below `co.uk`
    and the like."""
    if _literal(host) is not None:
        return host
    labels = canonical(host).split(".")
    registry = len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _REGISTRIES
    return ".".join(labels[-3 if registry else -2 :])


def _literal(host: str) -> Address | None:
    try:
        return literal(host)
    except ValueError:
        return None
