"""Which CAs a trust file rejects: what `openssl x509 -trustout -addreject` has put into it.

OpenSSL honours that for the certificate it happens to find first. Here it counts for the CA,
in whatever certificate a path may have it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.der import content, elements

Identity = tuple[bytes, bytes]
"""Subject and key: `Certificate.identity`."""

_TRUSTED = re.compile(
    rb"-----BEGIN TRUSTED CERTIFICATE-----([^-]*)-----END TRUSTED CERTIFICATE-----"
)
_REJECT = 0xA0
"""[0] in OpenSSL's X509_CERT_AUX (crypto/x509/x_x509a.c)."""
LOOK_SECONDS = 60.0
"""How often the files of a folder are looked at, and read if one has changed: the folder itself
does not tell."""
_FOR_SERVERS = (
    bytes.fromhex("06082b06010505070301"),  # serverAuth
    bytes.fromhex("0604551d2500"),  # anyExtendedKeyUsage
)


def rejected_in(*places: str | None) -> frozenset[Identity]:
    """The CAs that these trust files, and the files in these folders, reject as issuers for TLS
    servers. What cannot be read is passed over: OpenSSL has read it, or nobody has."""
    found: frozenset[Identity] = frozenset()
    for place in filter(None, places):
        # Asked for each incomplete server, so without making a Path of it each time.
        path = os.path.expanduser(place)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        look = time.monotonic() // LOOK_SECONDS if stat.S_ISDIR(status.st_mode) else 0.0
        found |= _rejected_in(path, status.st_mtime_ns, status.st_size, look)
    return found


_State = tuple[Path, int, int]
"""A file, when it was changed, and its size."""


@functools.lru_cache(maxsize=8)
def _rejected_in(place: str, _changed: int, _size: int, _look: float) -> frozenset[Identity]:
    path, files, states = Path(place), list[Path](), list[_State]()
    # Whoever may not read it has not trusted it either, or finds it by its name alone. With too
    # many open files it is another matter: nothing may be taken for "rejects nobody" then.
    with contextlib.suppress(PermissionError):
        files = [*path.iterdir()] if path.is_dir() else [path]
    for file in files:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if file.is_file():
                status = file.stat()
                states.append((file, status.st_mtime_ns, status.st_size))
    return _rejected_by(tuple(states))


@functools.lru_cache(maxsize=8)
def _rejected_by(states: tuple[_State, ...]) -> frozenset[Identity]:
    found = set[Identity]()
    for file, _, _ in states:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            found.update(rejected(file.read_bytes()))
    return frozenset(found)


def rejected(data: bytes) -> Iterator[Identity]:
    """The same of the contents of a trust file."""
    for block in _TRUSTED.finditer(data):
        try:
            trusted = base64.b64decode(b"".join(block[1].split()), validate=True)
            certificate, settings = elements(trusted)
            for element in elements(content(settings)):
                if element[0] == _REJECT and {*elements(content(element))} & {*_FOR_SERVERS}:
                    yield Certificate.from_der(certificate).identity
        except (ValueError, IndexError):
            continue
