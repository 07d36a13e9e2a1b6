"""What else is read that a stranger may have written, or a user may have mistyped."""

from __future__ import annotations

import datetime
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mitmproxy_aia.bundle import pem_blocks, read_bundle, write_bundle
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.ccadb import BadRow, read_any
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import redis_records
from mitmproxy_aia.sources.caches import where
from mitmproxy_aia.sources.redis_url import redacted
from mitmproxy_aia.sources.sqlite_rows import TABLES, Database
from tests.fuzz import lab
from tests.fuzz.choices import Choices
from tests.fuzz.der_tree import damaged
from tests.fuzz.promises import bounded, one_line, promise
from tests.lab import pem_bundle

_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_SECRET = "Geheimnis"
_NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 10**12)


def readers(data: bytes) -> None:
    """Bundles, CCADB reports, rows of Redis and SQLite, cache options: bad ones are skipped."""
    choices = Choices(data)
    reader = choices.pick(tuple(_READERS.values()))
    with bounded(len(data) + 65_536):
        reader(choices)


def _bundle(choices: Choices) -> None:
    """Written again, a bundle is the same for whoever reads it."""
    data = choices.rest()
    try:
        found = read_bundle(data)
    except ValueError as error:
        one_line(str(error))
        return
    promise(bool(found), "neither a certificate nor a reason")
    lines = [block.line for block in pem_blocks(data)]
    promise(lines == sorted(lines), "lines out of order")
    entries = [Entry(each, source or "", _NOW, _NOW) for each, source in found]
    written = "".join(write_bundle(entries))
    again = read_bundle(written.encode())
    promise({each for each, _ in again} == {each for each, _ in found}, "not what was written")
    rewritten = "".join(
        write_bundle([Entry(each, source or "", _NOW, _NOW) for each, source in again])
    )
    promise(rewritten == written, "a bundle changes when it is read and written")


def _report(choices: Choices) -> None:
    """Every row is a certificate or has a reason."""
    data = choices.rest()
    try:
        rows = list(read_any(data))
    except ValueError as error:
        one_line(str(error))
        return
    promise(len(rows) <= len(data), "rows out of nowhere")
    for row in rows:
        if isinstance(row, BadRow):
            one_line(str(row))


def _redis(choices: Choices) -> None:
    """Only what is sound comes out of an answer, and it is bounded."""
    answer = _anything(choices, 3)
    if choices.flag():
        pairs = []
        for _ in range(choices.below(8)):
            line = choices.pick((b"1", b"-1", b"99999999999999999999", b"", b"x", b"1e9"))
            der = damaged(choices.pick(lab.templates()), choices)
            expiry = choices.pick((b"9999999999", b"1", b"x"))
            pairs += [line + b" " + expiry + b" " + choices.some() + b"\n" + der, choices.some()]
        answer = [choices.below(3) - 1, pairs]
    try:
        _, entries = redis_records.read_answer(answer)
    except ValueError as error:
        one_line(str(error))
        return
    _promise_entries(entries)
    for entry in entries:
        one_line(entry.origin, 10_000)
    keys, arguments = redis_records.write_arguments(entries, _NOW)
    promise(len(arguments) == 5 * len(keys), "arguments are missing")


def _sqlite(choices: Choices) -> None:
    """Rows with anything in them are passed over."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in TABLES:
            connection.execute(statement)
        for number in range(choices.below(6)):
            der = damaged(choices.pick(lab.templates()), choices)
            row: list[object] = [bytes([number]), der, b"subject", None, 2**40, "origin", 1, 1]
            for _ in range(choices.below(3)):
                # Columns have an affinity only: there may be anything in any of them.
                row[choices.below(len(row))] = _cell(choices)
            try:
                connection.execute("INSERT INTO certificate VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                continue
        database = Database(Path("no such file"), None, connection)
        _promise_entries([*database.entries(), *database.issuers(b"subject", time.time())])
    finally:
        connection.close()


def _option(choices: Choices) -> None:
    """What `aia_cache` does not take is told in one line without its password."""
    secret = choices.flag()
    text = choices.rest().decode("utf-8", "surrogateescape")
    if secret:
        scheme, _, rest = text.partition("@")
        text = f"{scheme}://user:{_SECRET}@{rest}"
    try:
        where(text, Path("/nowhere"))
    except ValueError as error:
        promise(_SECRET not in str(error), f"tells a secret: {error}")
        one_line(str(error))
    promise(_SECRET not in redacted(text), f"redacted() tells a secret: {redacted(text)}")


_READERS: dict[str, Callable[[Choices], None]] = {
    "bundle": _bundle,
    "report": _report,
    "redis": _redis,
    "sqlite": _sqlite,
    "option": _option,
}


def _promise_entries(entries: list[Entry]) -> None:
    for entry in entries:
        promise(Certificate.from_der(entry.certificate.der) == entry.certificate, "not sound")
        promise(isinstance(entry.origin, str), f"an origin of another kind: {entry.origin!r}")
        for moment in entry.first_used, entry.last_used:
            promise(moment.tzinfo is datetime.UTC, "a time without a zone")


def _anything(choices: Choices, depth: int) -> object:
    match choices.below(6):
        case 0:
            return choices.pick(_NUMBERS)
        case 1:
            return choices.some()
        case 2:
            return None
        case 3:
            return choices.some().decode("latin-1")
        case _:
            if not depth:
                return []
            return [_anything(choices, depth - 1) for _ in range(choices.below(5))]


def _cell(choices: Choices) -> object:
    match choices.below(5):
        case 0:
            return choices.pick(_NUMBERS)
        case 1:
            return choices.pick((math.inf, -math.inf, 1.5, 1e300))
        case 2:
            return choices.some()
        case 3:
            return choices.some().decode("latin-1")
        case _:
            return None


def seeds() -> Iterator[bytes]:
    root, chain = lab.root(), lab.chain()
    entries = [Entry(Certificate(each.der), "http://ca.example/", _NOW, _NOW) for each in chain]
    for number in 0, 1:
        yield bytes([number]) + pem_bundle(*chain)
        yield bytes([number]) + "".join(write_bundle(entries)).encode()
        yield bytes([number]) + root.der
    pem = root.pem.decode()
    report = f"Name,PEM Info\r\nRoot,{json.dumps(pem)[:-1]}'\"\r\n"
    yield b"\1" + report.encode()
    yield b"\1" + f"Name,PEM\r\nRoot,'{pem}'\r\n".encode()
    yield b'\1A,PEM\r\nRoot,"' + root.pem + b'"\r\n"torn,x\r\n'
    for kind in 2, 3:
        for number in range(40):
            yield bytes([kind, 4, 3, number, 1, 3, number, 0, 2, number, 1, 2, number, number]) * 3
    for text in (
        "redis://h:6379/0?db=1",
        "rediss://[::1]",
        "redis://h/x",
        "redis://h/?password=p@q",
        "redis://h/?ssl_ca_certs=x&timeout=y",
        "redis://h/?nothing=1",
        "redis://:99999999",
        "redis://?db=0",
        "http://h",
        "memory",
        "x\ny://",
        "~/x",
        "~nobody-of-this-name/x",
    ):
        # As it is, and with a password in it.
        yield b"\4\0" + text.encode()
        yield b"\4\1" + text.replace("://", "@").encode()
