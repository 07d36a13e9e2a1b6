"""What a download that has failed means to a person, in words that follow its URL."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace

import httpx

from mitmproxy_aia.egress import Proxy
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources.download_errors import (
    DownloadError,
    Missing,
    NotTried,
    Refused,
    Uncertain,
    UsedUp,
)
from mitmproxy_aia.sources.proxy_tls import Distrusted
from mitmproxy_aia.sources.resolver import TooManyLookups
from mitmproxy_aia.sources.socks import HUNG_UP, NO_ENTRY, NO_SOCKS

FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
"""What a download is expected to fail of."""
OF_NAMES = (socket.EAI_AGAIN, socket.EAI_MEMORY)
OF_NETWORKS = (
    *(errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL),
    *(errno.ENOBUFS, errno.ENOMEM),
)
"""What this machine, or its network, may lack now and have in a moment."""


def told(error: Exception, where: str = "", proxy: Proxy | None = None) -> DownloadError:
    """The same as an error that says what came of the download, and whether that says anything of
    the URL. `where` is where it was led to, `proxy` what was between."""
    if isinstance(error, Refused):
        refusal = replace(error.refusal, what=where + error.refusal.what)
        return Refused(refusal, redirected=bool(where))
    if type(error) is DownloadError and proxy is not None and proxy.answers:
        # Proxies have pages and redirects of their own, for people.
        return Uncertain(where + str(error))
    if isinstance(error, DownloadError):
        return type(error)(where + str(error))
    if isinstance(error, TooManyLookups):
        return UsedUp(f"{where}was not tried ({error})")
    if too_many_files(error):
        return NotTried(f"{where}was not tried ({in_words(error)})")
    on_the_way = proxy is not None and isinstance(error, (httpx.TransportError, OSError))
    kind = Uncertain if on_the_way or _perhaps_ours(error) else DownloadError
    return kind(where + in_words(error))


def too_late(seconds: float, where: str, proxy: Proxy | None) -> DownloadError:
    """That there was no answer for so long."""
    if proxy is None:
        return DownloadError(f"{where}gave no answer in {seconds:g} s")
    return Uncertain(f"{where}gave no answer in {seconds:g} s through the proxy ({proxy.option})")


def answered(status: int, proxy: Proxy | None) -> DownloadError:
    """That the answer has this status and no certificate."""
    what = f"answered {status}"
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        return Missing(what)
    if proxy is None or not proxy.answers:
        return DownloadError(what)
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return no_entry(proxy)
    # Its own rules, or those that it has for a gateway, which it is as well.
    return Uncertain(f"{what}, or the proxy did ({proxy.option})")


def no_entry(proxy: Proxy) -> NotTried:
    """It says nothing of the URL, and may be mended at any moment."""
    what = "refused our credentials" if proxy.credentials else "wants credentials"
    code = "407; " if proxy.answers else ""
    return NotTried(f"was not downloaded: the proxy {what} ({code}{proxy.option})")


def said_by(proxy: Proxy, error: httpx.TransportError) -> DownloadError:
    """What a proxy has against it, or has done instead of an answer."""
    text = str(error) if isinstance(error, httpx.ProxyError) else in_words(error)
    if text == NO_ENTRY:
        return no_entry(proxy)
    what = f"was not downloaded: the proxy {text} ({proxy.option})"
    if text in (NO_SOCKS, HUNG_UP):
        return NotTried(what)
    return Uncertain(what)


def too_many_files(error: BaseException) -> bool:
    """Whether it failed of a limit to the files of this process or machine."""
    return any(
        isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)
        for cause in _causes(error)
    )


def _perhaps_ours(error: BaseException) -> bool:
    return any(
        cause.errno in (OF_NAMES if isinstance(cause, socket.gaierror) else OF_NETWORKS)
        for cause in _causes(error)
        if isinstance(cause, OSError)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It and what has led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def in_words(error: Exception) -> str:
    """What a failed request means to a person."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return f"could not be reached ({cause.strerror})"
        if isinstance(cause, Distrusted):
            return str(cause)
        if isinstance(cause, ssl.SSLError):
            return "does not speak TLS"
        if isinstance(cause, OSError) and cause.errno:
            return f"could not be reached ({os.strerror(cause.errno)})"
    if isinstance(error, OSError):
        return f"could not be reached ({error})"
    if isinstance(error, httpx.ConnectError):
        return "could not be reached"
    # httpx calls it a protocol error, too, when a server ends a connection too early.
    closed = any(words in str(error) for words in ("disconnected", "peer closed"))
    if isinstance(error, httpx.ProtocolError) and not closed:
        return f"does not speak HTTP ({printable(str(error))})"
    if isinstance(error, httpx.TransportError):
        return f"broke off ({printable(str(error)) or type(error).__name__})"
    return f"is not a URL that can be fetched ({printable(str(error))})"
