"""What a person types, and which server that is."""

import pytest

from mitmproxy_aia.inspection.targets import Target, canonical_host, parse_target


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("www.example.com", "www.example.com", 443, "www.example.com:443"),
        (" WWW.Example.com:8443 ", "www.example.com", 8443, "WWW.Example.com:8443"),
        ("example.com.", "example.com", 443, "example.com.:443"),
        ("https://user@www.example.com:444/a:b?c#d", "www.example.com", 444, None),
        ("https://[::1]/", "::1", 443, "[::1]:443"),
        ("imaps://mail.example", "mail.example", 443, "mail.example:443"),
        ("10.1.2.3:1", "10.1.2.3", 1, "10.1.2.3:1"),
        ("2001:DB8:0::1", "2001:db8::1", 443, "[2001:DB8:0::1]:443"),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535, "[2001:db8::1]:65535"),
        ("fe80::1%eth0", "fe80::1%eth0", 443, "[fe80::1%eth0]:443"),
        ("bücher.example", "xn--bcher-kva.example", 443, "bücher.example:443"),
        ("\uff25xample\uff0ecom", "example.com", 443, None),
        ("_sip.host_1.example", "_sip.host_1.example", 443, None),
    ],
)
def test_targets(text: str, host: str, port: int, shown: str | None) -> None:
    """Names, addresses, ports and whole URLs."""
    target = parse_target(text, 443)
    assert (target.host, target.port) == (host, port)
    assert shown is None or target == Target(host, port, shown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no host name"),
        (":443", "is no host name"),
        ("a..b", "is no host name"),
        ("a b", "is no host name"),
        ("-x\x1b", "is no host name"),
        ("a" * 64, "is no host name"),
        (".".join(["a" * 60] * 5), "is no host name"),
        ("1.2.3", "is no host name"),
        ("300.1.1.1", "is no host name"),
        ("[1.2.3.4", "is no host name"),
        ("ü" * 70, "is no host name"),
        ("a\u200db.example", "is no host name"),
        ("host:", "has no port from 1 to 65535"),
        ("host:0", "has no port"),
        ("host:65536", "has no port"),
        ("host:٣", "has no port"),
        ("[::1]:x", "has no port"),
        ("[::1]x", "is no host name"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    """One sentence that quotes it, without control characters."""
    with pytest.raises(ValueError, match=words) as raised:
        parse_target(text, 443)
    assert str(raised.value).isprintable()


def test_address_in_brackets_is_for_targets() -> None:
    """A name or an address alone."""
    assert canonical_host("::0001") == "::1"
    with pytest.raises(ValueError, match="is no host name"):
        canonical_host("[::1]")
