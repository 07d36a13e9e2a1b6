"""Redis URLs: what is wrong with one is said in a sentence, and never with its secrets."""

import errno
import os
import socket
import ssl
import subprocess
import sys

import pytest
import redis

from mitmproxy_aia.sources.redis_url import check_url, redacted, said_of


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6380/15",
        "redis://user:secret@localhost:6379/0",
        "redis://:secret@[::1]:6379/0",
        "rediss://localhost/?ssl_cert_reqs=none&socket_timeout=1&db=3",
        "rediss://localhost/?ssl_ca_certs=ca.pem",
    ],
)
def test_good_urls(url: str) -> None:
    """With or without a port, a database, a user, TLS and parameters of redis-py."""
    check_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://me:secret@host/", "a Redis URL begins with redis:// or rediss://"),
        ("redis://me:secret@:6379/0", "the Redis URL redis://:6379/0 names no host"),
        ("redis://me:secret@host:port/0", "no valid host and port"),
        ("redis://me:secret@[host/0", "no valid host and port"),
        ("redis://me:sec/ret@host:1/0", "no valid host and port"),
        ("redis://me:1/secret@host:1/0", "unexpected '@' or '#'"),
        ("redis://me:1#secret@host:1/0", "unexpected '@' or '#'"),
        ("redis://me:secret@host/#secret", "unexpected '@' or '#'"),
        ("redis://me:secret@host/secret", "redis://host:6379/... has a database that is not"),
        ("redis://me:secret@host/?secret=1", "redis://host:6379/0 has a parameter that is not"),
        ("redis://me:secret@host/?decode_responses=1", "has a parameter that is not known"),
        ("redis://me:secret@host/?socket_timeout=secret", "that redis-py does not take"),
        ("redis://me:secret@host/?ssl_secret=1", "that redis-py does not take"),
    ],
)
def test_bad_urls(url: str, reason: str) -> None:
    """One sentence says what is wrong, without user and password."""
    with pytest.raises(ValueError, match=r"\b(a|the) Redis URL ") as caught:
        check_url(url)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "me:" not in str(caught.value)
    assert caught.value.__suppress_context__ or not caught.value.__context__


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://me:secret@Host/2", "redis://host:6379/2"),
        ("rediss://:secret@[::1]:1/", "rediss://[::1]:1/0"),
        ("redis://host/?db=4&password=secret", "redis://host:6379/4"),
        ("redis://host/secret", "redis://host:6379/0"),
        ("redis://me:sec/ret@host:1/0", "redis://..."),
        ("redis://me:1/secret@host:1/0", "redis://..."),
        ("https://me:secret@host", "redis://..."),
    ],
)
def test_redaction(url: str, text: str) -> None:
    """Host, port and database are left; of a URL that is not understood, nothing."""
    assert redacted(url) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (redis.ResponseError("unknown command 'AUTH', with 'secret'"), "answered with an error"),
        (redis.exceptions.InvalidResponse("secret"), "answered nonsense"),
        (redis.AuthenticationError("secret"), "refused the user or the password"),
        (redis.ResponseError("DB index is out of range"), "has no database of this number"),
        (redis.ConnectionError("secret"), "has hung up: it may be no Redis"),
        (redis.RedisError("secret"), "failed (RedisError)"),
        (
            redis.ConnectionError("Error -2 connecting to secret"),
            "cannot be reached (no such host)",
        ),
        (redis.ConnectionError("Error connecting to secret"), "cannot be reached"),
        (socket.gaierror(-2, "secret"), "cannot be reached (no such host)"),
        (ConnectionResetError(errno.ECONNRESET, "secret"), "cannot be reached (Connection reset"),
        (OSError("secret"), "cannot be reached"),
        (ssl.SSLError(1, "secret"), "does not speak TLS as expected"),
        (TimeoutError("secret"), "gave no answer in time"),
    ],
)
def test_a_server_is_not_quoted(error: Exception, text: str) -> None:
    """A server may repeat the password that it was sent."""
    assert text in said_of(error)
    assert "secret" not in said_of(error)


def test_redis_py_is_optional() -> None:
    """Without it the modules load, URLs are checked, and what is missing is said once."""
    program = """
import logging, sys
sys.modules["redis"] = None
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.DEBUG)
import asyncio, time
from mitmproxy_aia.cache import CacheError
from mitmproxy_aia.sources import Budget
from mitmproxy_aia.sources.redis import RedisSource
from mitmproxy_aia.sources.redis_cache import RedisCache
from mitmproxy_aia.sources.redis_url import check_url
check_url("redis://:secret@localhost/?socket_timeout=never")
try:
    RedisCache("redis://:secret@localhost/")
except CacheError as error:
    print(error)
source = RedisSource("redis://:secret@localhost/")
class Named:
    issuer = b"CN=CA"
    ca_issuers = ()
async def fetch():
    return [each async for each in source.fetch_issuers(Named(), Budget(time.monotonic() + 9, 9))]
assert asyncio.run(fetch()) == []
source.keep([])
source.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": "addon"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    missing = "a Redis cache needs the Python library redis: pip install redis\n"
    assert ran.stdout == missing, ran.stderr
    told = [line for line in ran.stderr.splitlines(keepends=True) if "asyncio" not in line]
    assert told == [f"WARNING The cache redis://localhost:6379/0 is not used: {missing}"] or (
        "Using selector" in ran.stderr
        and told[0] == f"WARNING The cache redis://localhost:6379/0 is not used: {missing}"
    )
    assert "secret" not in ran.stderr
