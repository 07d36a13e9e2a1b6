"""Redis URLs, and what may be said of a Redis: never a user, a password or its own words.

redis-py is an optional extra and takes a tenth of a second to import: whoever needs it calls
`redis_library()` first.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from mitmproxy_aia.cache import CacheError
from mitmproxy_aia.names import printable

SCHEMES = ("redis", "rediss")
DEFAULT_PORT = 6379
PARAMETERS = frozenset(
    {
        "client_name",
        "db",
        "health_check_interval",
        "max_connections",
        "password",
        "protocol",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "timeout",
        "username",
    }
)
"""Query parameters of redis-py that a URL may have, besides those beginning with `ssl_`. What
changes the kind of answers, like `decode_responses`, is not among them."""

_NO_DATABASE = "DB index is out of range"
# redis-py loses the OSError, so that its number has to be taken from the text.
_NOT_CONNECTED = re.compile(r"Error (?:(-?\d+) )?connecting to ")


def check_url(url: str) -> None:
    """Raises ValueError, with a sentence free of secrets, if `url` names no Redis. Does not
    connect. The values of parameters are only looked at if redis-py is installed."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not quoted: what stands where a port should be may be a part of the password.
        raise ValueError(
            "a Redis URL has no valid host and port"
            " (special characters of a password are written as %2F and the like)"
        ) from None
    if parts.scheme not in SCHEMES:
        raise ValueError("a Redis URL begins with redis:// or rediss://")
    if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        raise ValueError(
            "a Redis URL has an unexpected '@' or '#'"
            " (special characters of a password are written as %40, %23 and the like)"
        )
    if not parts.hostname:
        raise ValueError(f"the Redis URL {redacted(url)} names no host")
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        where = redacted(url).rpartition("/")[0]
        raise ValueError(f"the Redis URL {where}/... has a database that is not a number")
    for name in parse_qs(parts.query, keep_blank_values=True):
        if name not in PARAMETERS and not name.startswith("ssl_"):
            raise ValueError(f"the Redis URL {redacted(url)} has a parameter that is not known")
    _check_values(url)


def _check_values(url: str) -> None:
    try:
        import redis
    except ImportError:
        return
    try:
        redis.ConnectionPool.from_url(url, **client_options(url, 1.0)).make_connection()
    except Exception:
        # Not quoted: redis-py may name the value.
        raise ValueError(
            f"the Redis URL {redacted(url)} has a parameter that redis-py does not take"
        ) from None


def redacted(url: str) -> str:
    """`url` for people: `redis://host:6379/0`, without user, password and parameters."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    except ValueError:
        return "redis://..."
    if parts.scheme not in SCHEMES or "@" in parts.path + parts.query + parts.fragment:
        return "redis://..."
    if ":" in host:
        host = f"[{host}]"
    return printable(f"{parts.scheme}://{host}:{port}/{_database(parts)}")


def _database(parts: SplitResult) -> str:
    named = [*parse_qs(parts.query).get("db", []), parts.path.strip("/")]
    return next((each for each in named if each.isascii() and each.isdigit()), "0")


def redis_library() -> None:
    """Raises CacheError if redis-py is not installed."""
    try:
        import redis  # noqa: F401 -- only whether it is there
    except ImportError:
        raise CacheError(
            "a Redis cache needs the Python library redis: pip install redis"
        ) from None


def client_options(url: str, timeout: float) -> dict[str, Any]:
    """Arguments for `from_url` of a client or a pool of redis-py; those in `url` win.
    `timeout` is in seconds."""
    options: dict[str, Any] = {
        # The second version of the protocol is the one that every Redis and Valkey has, with
        # no more to negotiate than a password.
        "protocol": 2,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
    if url.startswith("rediss:"):
        # Up to redis-py 6 the default was either not to look at the name, or to fail when
        # nothing is to be verified.
        verified = parse_qs(urlsplit(url).query).get("ssl_cert_reqs") != ["none"]
        options["ssl_check_hostname"] = verified
    return options


def said_of(error: BaseException) -> str:
    """What is wrong with a Redis, to follow its name: `refused the connection`.

    The error's own text is not used. A server that does not know AUTH answers with the
    command it got, and in that is the password.
    """
    import redis

    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "does not speak TLS as expected"
    for cause in causes:
        if isinstance(cause, redis.AuthenticationError):
            return "refused the user or the password"
        if isinstance(cause, redis.ResponseError) and str(cause) == _NO_DATABASE:
            return "has no database of this number"
        if isinstance(cause, redis.ResponseError):
            return f"answered with an error ({type(cause).__name__})"
        if isinstance(cause, redis.InvalidResponse | ValueError):
            return "answered nonsense"
        if isinstance(cause, redis.TimeoutError | TimeoutError | asyncio.TimeoutError):
            return "gave no answer in time"
        if isinstance(cause, redis.ConnectionError) and (match := _NOT_CONNECTED.match(str(cause))):
            return _not_connected(int(match[1] or 0))
        if isinstance(cause, OSError):
            return _not_connected(cause.errno or 0)
    if any(isinstance(cause, redis.ConnectionError) for cause in causes):
        return "has hung up: it may be no Redis"
    return f"failed ({type(error).__name__})"


def _not_connected(number: int) -> str:
    # Negative numbers are those of getaddrinfo.
    reason = os.strerror(number) if number > 0 else "no such host" if number else ""
    return f"cannot be reached ({reason})" if reason else "cannot be reached"


def _causes(error: BaseException | None) -> list[BaseException]:
    """`error` and what led to it. redis-py wraps what asyncio and ssl raise."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
