"""Which URLs are asked at all, whoever is to be asked."""

from __future__ import annotations

import re

import httpx

from mitmproxy_aia.addresses import literal
from mitmproxy_aia.limits import MAX_URL
from mitmproxy_aia.slices import moment

_QUOTED = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
TOO_LONG = f"longer than {MAX_URL} characters"

# Some programs, and so perhaps a proxy that we go through, take 10.0.0.%31 or 127.0.0.1.. for
# an address. What we judge is to be what everybody reads.
_HOST = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_OCTAL = re.compile(rb"(?:^|\.)0[0-9]")
"""0127.1 is 87.0.0.1 here (inet_aton(3)), and 127.0.0.1 for a proxy written in Java."""


async def parsed(url: str) -> httpx.URL:
    """Raises httpx.InvalidURL or ValueError if it is none."""
    if len(url) > MAX_URL or _size(url) > MAX_URL:
        raise httpx.InvalidURL(TOO_LONG)
    await moment()
    return httpx.URL(url)


def _size(url: str) -> int:
    """Characters, when what has no place in a URL is written as %20, %C3%BC and the like (RFC 3986
    section 2)."""
    quoted = "".join(_QUOTED.findall(url))
    return len(url) - len(quoted) + 3 * len(quoted.encode(errors="surrogatepass"))


async def joined(base: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect from `base` leads. Raises the same."""
    target = await parsed(location)
    # That reads both once more.
    await moment()
    target = base.join(target)
    if len(str(target)) > MAX_URL:
        raise httpx.InvalidURL(TOO_LONG)
    return target


def flaw_of(url: httpx.URL) -> str | None:
    """Why `url` is not one that we would ask, in words that follow it. Raises ValueError if its
    host is neither a name nor an address."""
    if url.scheme != "http" or not url.host:
        return "is not an http:// URL"
    if ":" not in url.host and not _HOST.fullmatch(url.raw_host):
        return "names a host that is no name"
    if "%" in url.host:
        # RFC 6874. What stands behind it may be anything, and proxies read it as they like.
        return "names an address in a zone, which is known to one machine only"
    if _OCTAL.search(url.raw_host) and literal(url.host) is not None:
        return "names an address that others may read as another"
    if url.port is not None and not 0 < url.port <= 65535:
        return f"names the port {url.port}, which does not exist"
    return None
