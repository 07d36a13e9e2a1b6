"""Commented PEM bundles: what a cache is exported to, and read back from."""

from __future__ import annotations

import os
import re
import secrets
import ssl
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import cut, one_line, printable

HEADER = """\
# Intermediate certificates, exported by mitmproxy-aia.
# They are proposals and not trusted: every path is verified up to a trust anchor.
"""
MAX_COMMENT = 2_048
"""Characters of one name or source."""

_SOURCE = "# source:   "
_BEGIN = re.compile(rb"-----BEGIN (?P<label>[A-Z0-9# ]+)-----")
_END = re.compile(rb"-----END [A-Z0-9# ]+-----")
_SOURCE_LINE = re.compile(rb"^%b([^\r\n]*)" % _SOURCE.strip().encode(), re.MULTILINE)
_FIVE_DASHES = re.compile(r"-(?=----)")
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Block:
    """One PEM block. `line` is where it begins, from 1; `data` goes up to the next block;
    `source` is what its comment says."""

    line: int
    data: bytes
    source: str | None

    def certificates(self) -> tuple[Certificate, ...]:
        """One, those of a PKCS#7, or ValueError with the reason why there is none."""
        if not _END.search(self.data):
            raise ValueError("has a PEM block without an end")
        return read_certificates(self.data)


def write_bundle(entries: Iterable[Entry]) -> Iterator[str]:
    """The parts of a bundle of PEM blocks, each under comments on what it holds. Equal
    entries, in whatever order, make equal bundles, and a new one adds its lines only."""
    # Texts and DER: parsed certificates take several times the memory.
    told = {
        (
            comment(entry.certificate.full_name),
            entry.certificate.not_after.replace(tzinfo=None).isoformat(" ", "seconds"),
            entry.certificate.fingerprint,
            entry.certificate.der,
            comment(entry.certificate.full_issuer),
            comment(_source_of(entry)),
        )
        for entry in entries
    }
    yield HEADER
    written = b""
    for subject, not_after, fingerprint, der, issuer, source in sorted(told):
        if fingerprint == written:
            continue
        written = fingerprint
        yield f"\n# subject:  {subject}\n# issuer:   {issuer}\n"
        yield f"{_SOURCE}{source}".rstrip() + f"\n# notAfter: {not_after} UTC\n"
        yield ssl.DER_cert_to_PEM_cert(der)


def _source_of(entry: Entry) -> str:
    """Where it came from. Of a file on this machine it is the name alone: bundles are given to
    others, who have it elsewhere."""
    return os.path.basename(entry.origin) if os.path.isabs(entry.origin) else entry.origin


def read_bundle(data: bytes) -> list[tuple[Certificate, str | None]]:
    """The certificates of a bundle, or of any other form that `read_certificates` takes, each
    with the source that its comment names. Raises ValueError if there is not one."""
    found: dict[Certificate, str | None] = {}
    for block in pem_blocks(data):
        try:
            for certificate in block.certificates():
                found.setdefault(certificate, block.source)
        except ValueError:
            continue
    if not found:
        found = dict.fromkeys(read_certificates(data))
    return list(found.items())


def pem_blocks(data: bytes) -> Iterator[Block]:
    """Every PEM block in `data`, damaged ones included."""
    line, counted, comments = 1, 0, 0
    begins = [match.start() for match in _BEGIN.finditer(data)]
    for begin, following in pairwise([*begins, len(data)]):
        line += len(_LINE_END.findall(data, counted, begin))
        sources = _SOURCE_LINE.findall(data, comments, begin)
        source = sources[-1].decode(errors="replace").strip() if sources else None
        yield Block(line, data[begin:following], source or None)
        end = _END.search(data, begin, following)
        counted, comments = begin, end.end() if end else following


def save(path: Path, text: Iterable[str]) -> None:
    """Writes `text` to `path` so that there is either the old file or the whole new one. It
    keeps the old one's permissions. Raises OSError with one sentence that names `path`."""
    data = "".join(text).encode()
    # A link goes on pointing to the file.
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            raise OSError(0, "not a regular file")
        try:
            with open(temporary, "xb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        shown = printable(str(path), MAX_COMMENT)
        raise OSError(f"cannot write {shown} ({error.strerror})") from error


def comment(text: str) -> str:
    """`text` from a stranger, for a comment: it does not end the line, and no reader can take
    it for the beginning or the end of a PEM block. What comes out of it, goes in unchanged."""
    return cut(_FIVE_DASHES.sub(r"\\x2d", one_line(text)).strip(), MAX_COMMENT)
