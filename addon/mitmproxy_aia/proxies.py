"""Which proxy a download goes through: what `aia_proxy` and mitmproxy's own options say."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from mitmproxy_aia.addresses import literal
from mitmproxy_aia.egress import Proxy

Way = Literal["auto", "direct"]
AUTO: Way = "auto"
DIRECT: Way = "direct"

_SCHEMES = ("http", "https", "socks5")
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_PLACE = re.compile(r"(.*@)?(\[[^\[\]]*:[^\[\]]*\]|[^\[\]:@]*):[0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SOCKS_MOST = 255
"""Bytes (RFC 1929 section 2)."""


def parse_proxy(text: str) -> Proxy | Way:
    """What `aia_proxy` says. Raises ValueError, with a sentence that holds no password."""
    for way in (AUTO, DIRECT):
        if text == way:
            return way
    wanted = f"{AUTO}, {DIRECT} or scheme://user:password@host:port ({', '.join(_SCHEMES)})"
    if not text.isprintable():
        # urlsplit leaves some of it out, be it in a password.
        raise ValueError("aia_proxy: there is a line break or the like in its URL")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # Not quoted: what stands where a port should be may be a part of the password.
        raise ValueError(
            "aia_proxy: its URL has no valid host and port"
            " (special characters of a password are written as %2F and the like)"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"aia_proxy takes {wanted}")
    if not parts.hostname or not port:
        raise ValueError(f"aia_proxy: its URL names no host or no port; it takes {wanted}")
    if not _PLACE.fullmatch(parts.netloc):
        raise ValueError(f"aia_proxy: its URL does not end in host:port; it takes {wanted}")
    try:
        is_host = literal(parts.hostname) is not None or bool(_HOST.fullmatch(parts.hostname))
    except ValueError:
        is_host = False
    if not is_host:
        raise ValueError("aia_proxy: what stands for a host in its URL is no name and no address")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"aia_proxy: there is more in its URL than a proxy; it takes {wanted}")
    # Zones are written in two ways (RFC 6874 section 2).
    host = parts.hostname.replace("%25", "%")
    return Proxy(parts.scheme, host, port, _credentials(parts))


def _credentials(parts: SplitResult) -> str:
    """Raises ValueError, with a sentence that does not hold them."""
    if parts.username is None:
        return ""
    try:
        user, password = (
            unquote_to_bytes(text).decode() for text in (parts.username, parts.password or "")
        )
    except UnicodeError:
        raise ValueError("aia_proxy: its user or password is not text in UTF-8") from None
    if ":" in user:
        # There is no way to say so (RFC 7617 section 2).
        raise ValueError("aia_proxy: its user has a colon in it")
    if parts.scheme != "socks5" and _CONTROL.search(user + password):
        # Nor may it be said (ibid.).
        raise ValueError("aia_proxy: there is a control character in its user or password")
    if parts.scheme == "socks5" and not user:
        raise ValueError("aia_proxy: there is a password without a user in its URL")
    if parts.scheme == "socks5" and max(map(len, (user.encode(), password.encode()))) > _SOCKS_MOST:
        raise ValueError(f"aia_proxy: its user or password has more than {_SOCKS_MOST} bytes")
    return f"{user}:{password}"


def upstream_proxy(via: tuple[str, tuple[str, int]], upstream_auth: str | None) -> Proxy:
    """The proxy through which mitmproxy reaches a server, with what it says to it."""
    scheme, (host, port) = via[0], via[1][:2]
    return Proxy(scheme, host, port, upstream_auth or "", option="upstream_auth")
