"""What `aia_proxy` takes, and that its password is told to nobody."""

import pytest

from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.proxies import parse_proxy, upstream_proxy


@pytest.mark.parametrize("text", ["auto", "direct"])
def test_ways(text: str) -> None:
    """The two that name no proxy."""
    assert parse_proxy(text) == text


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("HTTP://Proxy.Example:3128/", Proxy("http", "proxy.example", 3128)),
        ("http://user:p%40ss%3A@10.0.0.1:1", Proxy("http", "10.0.0.1", 1, "user:p@ss:")),
        ("https://user@[::1]:443", Proxy("https", "::1", 443, "user:")),
        ("socks5://u:p@localhost:1080", Proxy("socks5", "localhost", 1080, "u:p")),
        ("http://%C3%BC:ü@h:1", Proxy("http", "h", 1, "ü:ü")),
        ("http://[fe80::1%25eth0]:80", Proxy("http", "fe80::1%eth0", 80)),
        ("http://:secret@h:1", Proxy("http", "h", 1, ":secret")),
        (f"socks5://{'u' * 255}:p@h:1", Proxy("socks5", "h", 1, f"{'u' * 255}:p")),
        ("socks5://u:%01%00@h:1", Proxy("socks5", "h", 1, "u:\1\0")),
        (f"http://{'u' * 256}:p@h:1", Proxy("http", "h", 1, f"{'u' * 256}:p")),
    ],
)
def test_proxy(text: str, proxy: Proxy) -> None:
    """A URL with what the proxy wants to be told."""
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy.example:3128",
        "ftp://user:secret@proxy.example:3128",
        "http://user:secret@proxy.example",
        "http://user:secret@:3128",
        "http://user:secret@proxy.example:0",
        "http://user:se/cret@proxy.example:3128",
        "http://user:se#cret@proxy.example:3128",
        "http://user:secret@proxy.example:3128/path",
        "http://user:secret@proxy.example:3128?query",
        "http://user:secret@proxy.example:secret",
        "http://user:secret@[proxy:3128",
        "http://user:secret@1.2.3.999:3128",
        "http://user:secret@a b:3128",
        "http://user:secret@..:3128",
        "http://user:secret@%zz:3128",
        "http://user:secret@[::1]cret:3128",
        "http://user:secret@cret[::1]:3128",
        "http://user:secret%FF@h:3128",
        "http://us%ED%A0%80er:secret@h:3128",
        "http://user:secret\udcff@h:3128",
        "http://user%3Asecret:secret@h:3128",
        "http://user:sec\nret@h:3128",
        "http://user:sec%0Aret@h:3128",
        "https://us%00er:secret@h:3128",
        "http://user:secret@[v1.a]:80",
        "socks5://:secret@h:1080",
        "socks5://:@h:1080",
        f"socks5://user:{'secret' * 43}@h:1080",
        f"socks5://{'secret' * 43}:p@h:1080",
    ],
)
def test_no_proxy(text: str) -> None:
    """The option is named, and nothing of a password."""
    with pytest.raises(ValueError, match=r"^aia_proxy") as error:
        parse_proxy(text)
    assert "cret" not in str(error.value)


def test_upstream_proxy() -> None:
    """mitmproxy's own way to the server, with its own credentials."""
    via = ("https", ("proxy.example", 3128))
    assert upstream_proxy(via, "user:secret") == Proxy(
        "https", "proxy.example", 3128, "user:secret", option="upstream_auth"
    )
    assert upstream_proxy(via, None).credentials == ""
