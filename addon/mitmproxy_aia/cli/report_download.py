"""Downloading a report of the CCADB: large, slow at times, and from a server like any other."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from mitmproxy_aia.cli.terminal import CommandError
from mitmproxy_aia.names import one_line

MAX_BYTES = 64 * 2**20
TIMEOUT = 30.0
"""Seconds of silence."""
DEADLINE = 600.0
"""Seconds for the whole of it."""
MAX_REDIRECTS = 5

_HEADERS = {"User-Agent": "mitmproxy-aia", "Accept": "text/csv, */*;q=0.5"}


def download(url: str, progress: Callable[[int, int], None]) -> bytes:
    """What is at `url`. Calls `progress` with the bytes read and their total (0 if unknown).

    Proxies and certificates are those of the environment (HTTPS_PROXY, SSL_CERT_FILE).
    Raises CommandError.
    """
    try:
        with (
            httpx.Client(
                headers=_HEADERS,
                timeout=TIMEOUT,
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
            ) as client,
            client.stream("GET", url) as response,
        ):
            return _body(url, response, progress)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = one_line(str(error)) or type(error).__name__
        raise CommandError(f"{without_password(url)} could not be downloaded ({reason})") from error


def without_password(url: str) -> str:
    """`url` as it may be shown. Raises CommandError if it is none."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CommandError(f"--url takes a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise CommandError("--url takes a URL that begins with https:// or http://")
    return str(parts.copy_with(userinfo=b""))


def _body(url: str, response: httpx.Response, progress: Callable[[int, int], None]) -> bytes:
    """Raises ValueError for an answer that is not what was asked for."""
    if response.status_code != httpx.codes.OK:
        raise ValueError(f"it answered {response.status_code}")
    if httpx.URL(url).scheme == "https" and response.url.scheme != "https":
        raise ValueError(f"it leads to {response.url.scheme}://, which anybody could change")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else 0
    deadline = time.monotonic() + DEADLINE
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise ValueError(f"it took longer than {DEADLINE:g} s")
        progress(response.num_bytes_downloaded, total)
    return bytes(body)
