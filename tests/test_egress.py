"""Where a download may go: the rule, what overrides it, and how a refusal is worded."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_aia.addresses import Address, Space, space_of
from mitmproxy_aia.egress import BAD_PORTS, NOBODY, Policy, Proxy, Server, is_own, site
from mitmproxy_aia.egress_rules import Rule

PROXY = Proxy("http", "proxy.example", 3128, "user:secret")


def server(address: str | None, *, port: int = 443, proxy: Proxy | None = None) -> Server:
    found = None if address is None else ipaddress.ip_address(address)
    return Server("server.example", found, port, proxy)


PUBLIC, PRIVATE, LOOPBACK = server("8.8.8.8"), server("10.0.0.1"), server("127.0.0.1")
UNKNOWN = server(None, proxy=PROXY)


def verdict(
    who: Server,
    host: str,
    address: str | None = None,
    *,
    port: int = 80,
    policy: Policy | None = None,
) -> str:
    """What is said of a download by `who` from `host`, which is at `address`; empty if it may."""
    where = None if address is None else ipaddress.ip_address(address)
    refusal = (policy or Policy()).judge(who.permits, host, port, where)
    return refusal.words(who) if refusal else ""


def allowing(*entries: str) -> Policy:
    return Policy.parse(entries, [])


@pytest.mark.parametrize("target", ["8.8.8.8", "10.0.0.1", "127.0.0.1"])
@pytest.mark.parametrize("origin", ["8.8.8.8", "10.0.0.1", "127.0.0.1"])
def test_address_spaces(origin: str, target: str) -> None:
    """A server may ask for what is as public as itself, or more."""
    allowed = verdict(server(origin), target, target) == ""
    assert allowed == (space_of(ipaddress.ip_address(target)) <= server(origin).permits)


@pytest.mark.parametrize(
    ("who", "permits"),
    [
        (PUBLIC, Space.PUBLIC),
        (PRIVATE, Space.PRIVATE),
        (LOOPBACK, Space.LOOPBACK),
        (UNKNOWN, Space.PUBLIC),
        (NOBODY, Space.PUBLIC),
        (server("169.254.1.1"), Space.PUBLIC),
        (server("198.18.0.1"), Space.PUBLIC),
        (server("64:ff9b::10.0.0.1"), Space.PRIVATE),
        (server("::ffff:127.0.0.1"), Space.LOOPBACK),
        (server("10.0.0.1", proxy=PROXY), Space.PRIVATE),
        (server("127.0.0.1", proxy=PROXY), Space.PRIVATE),
        (server("127.0.0.1", proxy=Proxy("http", "10.0.0.1", 80)), Space.PRIVATE),
        (server("127.0.0.1", proxy=Proxy("http", "127.0.0.2", 80)), Space.LOOPBACK),
        (server("127.0.0.1", proxy=Proxy("http", "::1", 80)), Space.LOOPBACK),
        (server("127.0.0.1", proxy=Proxy("http", "LocalHost.", 80)), Space.LOOPBACK),
        (replace(server("8.8.8.8", proxy=PROXY), here=True), Space.PUBLIC),
    ],
)
def test_what_a_server_permits(who: Server, permits: Space) -> None:
    """What is not known, or odd, permits no more than a public address; and nobody may go to
    the machine of a proxy that is not on this one."""
    assert who.permits is permits


@pytest.mark.parametrize(
    ("who", "host", "address", "words"),
    [
        (
            PUBLIC,
            "10.0.0.1",
            "10.0.0.1",
            "is in the private network, server.example is not (aia_allow)",
        ),
        (
            PUBLIC,
            "ca.example",
            "10.0.0.1",
            "is in the private network (10.0.0.1), server.example is not (aia_allow)",
        ),
        (PRIVATE, "127.1", "127.0.0.1", "is on this machine, server.example is not (aia_allow)"),
        (
            UNKNOWN,
            "10.0.0.1",
            "10.0.0.1",
            "is in the private network, and where server.example is cannot be told behind a proxy"
            " (aia_allow)",
        ),
        (LOOPBACK, "192.0.2.1", "192.0.2.1", "is in a reserved network (aia_allow)"),
        (LOOPBACK, "fe80::1", "fe80::1", "is a link-local address"),
        (LOOPBACK, "a", "169.254.169.254", "is a cloud's metadata service (169.254.169.254)"),
    ],
)
def test_words(who: Server, host: str, address: str, words: str) -> None:
    """What is in the way, compared with what, and which option opens it, if one does."""
    assert verdict(who, host, address) == words


def test_ports_in_public() -> None:
    """Only 80, for every server."""
    for who in PUBLIC, PRIVATE, LOOPBACK:
        assert verdict(who, "ca.example", "8.8.8.8", port=80) == ""
        for port in 8080, 443, 22, 81:
            words = verdict(who, "ca.example", "8.8.8.8", port=port)
            assert words.startswith(f"names port {port}, ")
            assert words.endswith("(aia_allow)")


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1"])
def test_ports_elsewhere(address: str) -> None:
    """All but those of other protocols."""
    for port in range(1, 65536):
        allowed = verdict(LOOPBACK, "a", address, port=port) == ""
        assert allowed == (port not in BAD_PORTS)
    words = "names port 25, which is not for HTTP (aia_allow)"
    assert verdict(LOOPBACK, "a", address, port=25) == words


@pytest.mark.parametrize(
    ("entry", "host", "address", "port"),
    [
        ("10.0.0.1", "ca.example", "10.0.0.1", 80),
        ("10.0.0.1", "ca.example", "10.0.0.1", 8080),
        ("10.0.0.1", "a", "::ffff:10.0.0.1", 80),
        ("10.0.0.0/8", "a", "64:ff9b::10.0.0.1", 80),
        ("::ffff:0:0/96", "a", "::ffff:10.0.0.1", 80),
        ("10.0.0.0/8:8080", "a", "10.9.9.9", 8080),
        ("fd00::/8", "a", "fd00::1", 80),
        ("fd00::1", "a", "fd00::1", 80),
        ("[fd00::1]", "a", "fd00::1", 80),
        ("[fd00::1]:8080", "a", "fd00::1", 8080),
        ("[fd00::/8]:8080", "a", "fd00::1", 8080),
        ("ca.example", "ca.example", "10.0.0.1", 80),
        ("CA.Example.", "ca.example", "127.0.0.1", 80),
        ("ca.example", "CA.EXAMPLE.", "10.0.0.1", 80),
        ("*.example", "ca.example", "10.0.0.1", 80),
        ("*.example", "a.b.example", "10.0.0.1", 80),
        ("ca.example:25", "ca.example", "8.8.8.8", 25),
        ("ca.example", "ca.example", "8.8.8.8", 8080),
        ("bücher.example", "xn--bcher-kva.example", "10.0.0.1", 80),
        ("198.18.0.0/15", "a", "198.18.5.5", 80),
        ("intranet", "intranet", None, 80),
        ("127.0.0.1:8080", "2130706433", "127.0.0.1", 8080),
        (" 10.0.0.1 ", "a", "10.0.0.1", 80),
    ],
)
def test_allowed(entry: str, host: str, address: str | None, port: int) -> None:
    """An entry of aia_allow opens what it names, and that is refused without it."""
    assert verdict(PUBLIC, host, address, port=port) != ""
    assert verdict(PUBLIC, host, address, port=port, policy=allowing(entry)) == ""
    denying = Policy.parse([entry], [entry])
    assert verdict(PUBLIC, host, address, port=port, policy=denying) == "is denied (aia_deny)"


@pytest.mark.parametrize(
    ("entry", "host", "address", "port"),
    [
        ("10.0.0.1", "a", "10.0.0.2", 80),
        ("10.0.0.1:8080", "a", "10.0.0.1", 80),
        ("10.0.0.1", "a", "10.0.0.1", 25),
        ("*.example", "example", "10.0.0.1", 80),
        ("*.example", "notexample", "10.0.0.1", 80),
        ("ca.example", "x.ca.example", "10.0.0.1", 80),
        ("ca.example", "10.0.0.1", "10.0.0.1", 80),
        ("0.0.0.0/0", "a", "169.254.169.254", 80),
        ("0.0.0.0/0", "a", "::ffff:169.254.1.1", 80),
        ("::/0", "a", "fe80::1", 80),
        ("::/0", "a", "2002:808:808::1", 80),
        ("::/0", "a", "10.0.0.1", 80),
        ("ca.example", "ca.example", "169.254.169.254", 80),
        ("0.0.0.0/0", "intranet", None, 80),
    ],
)
def test_not_allowed(entry: str, host: str, address: str | None, port: int) -> None:
    """An entry opens no more than it names, and never what is never open."""
    assert verdict(PUBLIC, host, address, port=port, policy=allowing(entry)) != ""


def test_denied_in_public() -> None:
    """aia_deny closes what the rule would let through, for every server, before any lookup."""
    policy = Policy.parse([], ["ca.example", "8.8.0.0/16:80"])
    assert verdict(LOOPBACK, "ca.example", "1.1.1.1", policy=policy) == "is denied (aia_deny)"
    assert verdict(LOOPBACK, "a", "8.8.8.8", policy=policy) == "is denied (aia_deny)"
    assert verdict(LOOPBACK, "a", "1.1.1.1", policy=policy) == ""
    assert policy.denies("ca.example", 80) is not None
    assert policy.denies("other.example", 80) is None


@pytest.mark.parametrize(
    "bad",
    [
        "10.0.0.1/8",
        "10.0.0.256",
        "10.0.0.0/33",
        "http://a/",
        "a b",
        "*",
        "*a.example",
        "a.*.example",
        "a:99999",
        "a:0",
        "a:",
        "[a]:80",
        "[10.0.0.1]:80",
        "fd00::/8:x",
        "-" * 64,
        "☃.example",
        "a..b",
        "1.2.3.4.5",
        "127",
        "10.1",
        "192.168",
        "010.0.0.1",
        "0x7f.1:80",
    ],
)
@pytest.mark.parametrize("option", ["aia_allow", "aia_deny"])
def test_bad_entry(option: str, bad: str) -> None:
    """It is named, together with its option and what it should have been."""
    lists: dict[str, list[str]] = {"aia_allow": ["good"], "aia_deny": ["good"]}
    lists[option].append(bad)
    with pytest.raises(ValueError, match=f"^{option}: .*host name, an address or a net") as error:
        Policy.parse(lists["aia_allow"], lists["aia_deny"])
    assert repr(bad) in str(error.value)


def test_empty_entry() -> None:
    """That of a shell's variable which is not set says nothing."""
    assert Policy.parse([""], ["", " "]) == Policy()


@pytest.mark.parametrize(
    "entry", ["::ffff:10.1.2.3", "::ffff:a01:203", "[::ffff:10.1.2.3]:80", "::ffff:10.0.0.0/104"]
)
def test_entry_that_is_ipv4_in_ipv6(entry: str) -> None:
    """It is the same address."""
    policy = Policy.parse([], [entry])
    for address in "10.1.2.3", "::ffff:10.1.2.3":
        assert verdict(LOOPBACK, "a", address, policy=policy) == "is denied (aia_deny)"
    assert verdict(LOOPBACK, "a", "11.1.2.3", policy=policy) == ""


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("169.254.169.254", "a cloud's metadata service"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("[fe80::/10]:80", "a link-local address"),
        ("0.0.0.0", "the unspecified address"),
        ("2002::/16", "a disguised IPv4 address"),
    ],
)
def test_entry_that_could_never_matter(entry: str, kind: str) -> None:
    """To allow what is never allowed is a mistake that is told at once; to deny it is not."""
    with pytest.raises(ValueError, match=f"^aia_allow: .* is {kind}, where no download ever goes"):
        allowing(entry)
    assert Policy.parse([], [entry]).deny == (Rule.parse(entry),)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("ca.example", ""),
        ("localhost", "on the proxy's own machine"),
        ("localhost.localdomain", "on the proxy's own machine"),
        ("ip6-loopback", "on the proxy's own machine"),
        ("kubernetes.default.svc", "a name in the private network"),
        ("a.LOCALHOST.", "on the proxy's own machine"),
        ("intranet", "a name in the private network"),
        ("pki.corp", "a name in the private network"),
        ("printer.local", "a name in the private network"),
        ("router.home.arpa.", "a name in the private network"),
    ],
)
def test_name_that_a_proxy_looks_up(host: str, words: str) -> None:
    """By its form, since its address is not known."""
    assert verdict(UNKNOWN, host).removeprefix("is ").partition(",")[0] == words
    if words:
        assert verdict(LOOPBACK, host) == ""
    assert verdict(UNKNOWN, host, port=8080) != ""


@pytest.mark.parametrize("host", ["metadata.google.internal", "METADATA.", "instance-data"])
def test_metadata_by_name(host: str) -> None:
    """Also behind a proxy, for every server, and whatever aia_allow says."""
    where = ipaddress.ip_address("10.0.0.1")
    for who in UNKNOWN, server("10.0.0.1", proxy=PROXY), Server("a", where, 443, PROXY, here=True):
        words = verdict(who, host, policy=allowing("*.internal", "metadata", "instance-data"))
        assert words == "is a cloud's metadata service"


@pytest.mark.parametrize("address", ["8.8.8.8", "10.0.0.1", "127.0.0.1", "2606:4700::1"])
@pytest.mark.parametrize("who", ["8.8.8.8", "10.0.0.1", "127.0.0.1"])
def test_own_address(who: str, address: str) -> None:
    """A public address of this machine is no more public than the private network: a firewall
    may keep others from what we can reach there. A server at such a one may have that, too."""
    where = ipaddress.ip_address(address)
    asking, here = server(who), Server("a", where, 443, here=True)
    refusal = Policy().judge(asking.permits, address, 80, where, here=True)
    assert (refusal is None) == (asking.permits >= here.permits)
    assert here.permits is max(Space.PRIVATE, space_of(where))
    if refusal and space_of(where) is Space.PUBLIC:
        words = "is on this machine, server.example is not (aia_allow)"
        assert refusal.words(asking) == words
    opened = allowing(address).judge(asking.permits, address, 80, where, here=True)
    assert opened is None


@given(st.ip_addresses(), st.integers(1, 65535), st.ip_addresses() | st.none())
def test_nothing_gets_past_the_rule(address: Address, port: int, origin: Address | None) -> None:
    """Without options, what may be asked is a host for HTTP in the server's space or below."""
    who = Server("a", origin, 443)
    if Policy().judge(who.permits, str(address), port, address) is None:
        assert space_of(address) <= who.permits <= Space.LOOPBACK
        assert port not in BAD_PORTS
        assert port == 80 or space_of(address) > Space.PUBLIC


@pytest.mark.parametrize(
    ("listener", "address", "own"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("0.0.0.0", "192.168.1.1", True),
        ("0.0.0.0", "192.168.1.2", False),
        ("::", "192.168.1.1", True),
        ("::1", "127.0.0.1", False),
        ("localhost", "192.168.1.1", True),
        ("192.168.1.1", "192.168.1.1", True),
    ],
)
def test_own_listener(listener: str, address: str, own: bool) -> None:
    """An address and port that this proxy listens on, or any of this machine's if it does."""
    machine = [ipaddress.ip_address(each) for each in ("127.0.0.2", "127.0.0.1", "192.168.1.1")]

    def at(port: int) -> bool:
        where = ipaddress.ip_address(address)
        return is_own(where, port, [("10.0.0.1", 1), (listener, 8080)], machine.__contains__)

    assert at(8080) is own
    assert not at(8081)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.b.example", "b.example"),
        ("B.Example.", "b.example"),
        ("example", "example"),
        ("", ""),
        ("a.b.co.uk", "b.co.uk"),
        ("a.x.abc.com", "abc.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("1.2.3.4.5", "4.5"),
    ],
)
def test_site(host: str, expected: str) -> None:
    """What somebody had to register."""
    assert site(host) == expected


def test_groups_of_servers() -> None:
    """What is easy to have many of makes no new group: ports in public, IPv6 addresses, names."""
    assert server("8.8.8.8", port=1).group == server("8.8.8.8", port=2).group
    assert server("8.8.8.8").group != server("8.8.8.9").group
    assert server("2606:4700::1").group == server("2606:4700:0:ffff::2").group
    assert server("2606:4700::1").group != server("2606:4701::1").group
    assert server("127.0.0.1", port=1).group != server("127.0.0.1", port=2).group
    assert server("10.0.0.1", port=1).group == server("10.0.0.1", port=2).group
    assert server("10.0.0.1").group != server("10.0.0.2").group
    assert server("fd00::1").group != server("fd00::2").group
    here = [Server("a", ipaddress.ip_address("10.0.0.1"), port, here=True) for port in (1, 2)]
    assert here[0].group != here[1].group
    assert Server("a.b.example").group == Server("c.b.example").group != NOBODY.group


def test_no_password_in_a_representation() -> None:
    """A proxy may be part of what is logged when something fails."""
    assert "secret" not in repr(UNKNOWN)
