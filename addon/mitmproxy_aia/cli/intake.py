"""From files to what a cache keeps: reading them, and leaving out what helps no chain."""

from __future__ import annotations

import datetime
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cryptography import x509

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli.terminal import CommandError, count

MAX_BYTES = 256 * 2**20
"""Of one file. The largest report of the CCADB has some 30 MiB."""
STDIN = "-"


@dataclass(frozen=True)
class Input:
    """What was read. `name` is what the user calls it, `origin` what a cache shall say of it.
    `named` is false for a file of a folder that was named."""

    name: str
    origin: str
    data: bytes
    named: bool = True


@dataclass
class Tally:
    """What became of certificates. `skipped` counts the reasons."""

    read: int = 0
    new: int = 0
    bad_rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def useful(self) -> int:
        """Those that are in the cache now, the new ones and those that were there."""
        return self.read - self.skipped.total()

    def __str__(self) -> str:
        parts = [f"{count(self.read, 'certificate')} read", f"{self.new:,} new"]
        if self.skipped:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.skipped.most_common())
            parts.append(f"{self.skipped.total():,} skipped ({reasons})")
        if self.bad_rows:
            parts.append(f"{count(self.bad_rows, 'row')} could not be read")
        return ", ".join(parts)


def inputs(paths: Iterable[str]) -> Iterator[Input | CommandError]:
    """The content of files, of the regular files directly in folders (not of hidden ones), and
    of stdin for `-`. An error for what cannot be read."""
    for path in paths:
        try:
            if path == STDIN:
                yield Input("stdin", "stdin", _limited(sys.stdin.buffer.read(MAX_BYTES + 1)))
            elif os.path.isdir(path):
                yield from _folder(path)
            else:
                yield _file(path)
        except OSError as error:
            yield CommandError(f"{path} cannot be read ({error.strerror or error})")


def _folder(path: str) -> Iterator[Input | CommandError]:
    for name in sorted(os.listdir(path)):
        inside = os.path.join(path, name)
        try:
            # A FIFO or a device is not to be waited for.
            if not name.startswith(".") and stat.S_ISREG(os.stat(inside).st_mode):
                yield _file(inside, named=False)
        except OSError as error:
            yield CommandError(f"{inside} cannot be read ({error.strerror or error})")


def _file(path: str, *, named: bool = True) -> Input:
    with open(path, "rb") as file:
        return Input(path, os.path.abspath(path), _limited(file.read(MAX_BYTES + 1)), named)


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise OSError(f"larger than {MAX_BYTES >> 20} MiB")
    return data


def useless(certificate: Certificate, now: datetime.datetime) -> str:
    """Why `certificate` is no intermediate that could complete a chain; empty if it is one.

    It only spares the cache what would never be used: what is kept is verified when it is.
    """
    if certificate.not_after < now:
        return "expired"
    if not _is_authority(certificate):
        return "no CA"
    return "self-signed" if certificate.self_signed else ""


def _is_authority(certificate: Certificate) -> bool:
    """As OpenSSL sees it (check_ca() in crypto/x509/v3_purp.c), with the benefit of the doubt."""
    if not certificate.extensions_readable:
        return True
    extensions = certificate.x509.extensions
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        pass
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return certificate.x509.version is x509.Version.v1
