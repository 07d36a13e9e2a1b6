"""Which address space an address is in, whatever it is dressed up as."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_aia.addresses import Address, Space, bare, classify, literal, never, space_of

SPACES = {
    Space.PUBLIC: [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.31.196.1",
        "192.167.255.255",
        "223.255.255.255",
        "2000::1",
        "2606:4700::1111",
        "2001:200::1",
        "3ffe:ffff::1",
    ],
    Space.PRIVATE: [
        "10.0.0.0",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.0",
        "100.127.255.255",
        "fc00::1",
        "fdff:ffff::1",
    ],
    Space.LOOPBACK: ["127.0.0.1", "127.255.255.255", "::1"],
    Space.RESERVED: [
        "192.0.0.1",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "255.255.255.254",
        "100::1",
        "2001:2::1",
        "2001:20::1",
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fec0::1",
    ],
    Space.NEVER: [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "fe80::1",
        "febf::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
        "::7f00:1",
        "::ffff:0:8.8.8.8",
        "64:ff9b:1::808:808",
        "2001::1",
        "2002:808:808::1",
        "2001:db8::5efe:8.8.8.8",
        "2606:4700::200:5efe:8.8.8.8",
        "fe80::5efe:10.0.0.1",
    ],
}


@pytest.mark.parametrize(
    ("text", "space"), [(text, space) for space, texts in SPACES.items() for text in texts]
)
def test_space(text: str, space: Space) -> None:
    """One address in and beside each entry of the special-purpose registries."""
    assert space_of(ipaddress.ip_address(text)) is space


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1", "in the private network"),
        ("127.0.0.1", "on this machine"),
        ("192.0.2.1", "in a reserved network"),
        ("8.8.8.8", "at a public address"),
        ("169.254.169.254", "a cloud's metadata service"),
        ("169.254.1.1", "a link-local address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("0.0.0.0", "the unspecified address"),
        ("2002::1", "a disguised IPv4 address"),
        ("2001:db8::5efe:8.8.8.8", "a disguised IPv4 address"),
    ],
)
def test_words(text: str, words: str) -> None:
    """Each can follow "is"."""
    assert classify(ipaddress.ip_address(text))[1] == words


DISGUISES = {
    "mapped": "::ffff:{}",
    "mapped with a zone": "::ffff:{}%eth0",
    "NAT64": "64:ff9b::{}",
    "compatible": "::{}",
    "translated": "::ffff:0:{}",
    "local NAT64": "64:ff9b:1::{}",
    "ISATAP": "2606:4700::5efe:{}",
    "ISATAP, universal": "2606:4700::200:5efe:{}",
    "6to4": "2002:{:x}:{:x}::1",
    "Teredo": "2001:0:{:x}:{:x}::1",
}


@given(
    st.ip_addresses(v=4)
    | st.sampled_from([*map(ipaddress.IPv4Address, ["127.0.0.1", "10.1.2.3", "169.254.169.254"])]),
    st.sampled_from([*DISGUISES]),
)
def test_no_disguise_makes_an_address_more_public(address: Address, disguise: str) -> None:
    """Judged as what it hides, or never to be used."""
    number = int(address)
    form = DISGUISES[disguise]
    text = form.format(number >> 16, number & 0xFFFF) if ":x" in form else form.format(address)
    space = space_of(ipaddress.ip_address(text))
    if text == "::0.0.0.1":
        assert space is Space.LOOPBACK
    elif disguise.startswith(("mapped", "NAT64")):
        assert space is space_of(address)
    else:
        assert space is Space.NEVER


@given(st.ip_addresses())
def test_every_address_has_a_space(address: Address) -> None:
    """And what Python's own table calls private, link-local and so on is never public."""
    space = space_of(address)
    known = bare(address)
    odd = known.is_private or known.is_link_local or known.is_multicast or known.is_loopback
    assert not (odd and space is Space.PUBLIC)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("169.254.169.254/32", True),
        ("169.254.0.0/16", True),
        ("169.254.7.0/24", True),
        ("168.0.0.0/7", False),
        ("10.0.0.0/8", False),
        ("100.100.100.0/24", False),
        ("0.0.0.0/0", False),
        ("fe80::/10", True),
        ("::/96", False),
        ("::/0", False),
    ],
)
def test_network_that_is_never_used(network: str, expected: bool) -> None:
    """All of it; what lies among others is judged when it is met."""
    assert never(ipaddress.ip_network(network)) is expected


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_literal(host: str, address: str) -> None:
    """Each way in which programs read an address."""
    assert literal(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize("host", ["example", "1.example", "a.0xg", "127.0.0.1x", "", "."])
def test_name(host: str) -> None:
    """What does not end in a number is a name."""
    assert literal(host) is None


@pytest.mark.parametrize("host", ["1.2.3.4.5", "256.0.0.1", "example.1", "0x", "::1::", "1:2"])
def test_neither_name_nor_address(host: str) -> None:
    """Nobody has to guess what another program makes of it."""
    with pytest.raises(ValueError, match=r".+"):
        literal(host)
