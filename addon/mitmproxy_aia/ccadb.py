"""Certificates in bulk: the CSV reports of the CCADB, and bundles of every other form.

The CCADB (https://www.ccadb.org/resources) is where authorities disclose their intermediates.
Its reports have a column of PEM, in some of them with single quotes around it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from mitmproxy_aia.bundle import Block, pem_blocks
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import printable

MOZILLA_REPORT = "https://ccadb.my.salesforce-sites.com/mozilla/MozillaIntermediateCertsCSVReport"
"""The intermediates that Firefox preloads: neither expired nor revoked, for web servers, under
a root of Mozilla's program."""
ROWS_SEARCHED = 100
"""How many rows are searched for PEM where no column has it in its name."""

_PEM_NAME = re.compile(r"\bPEM\b", re.IGNORECASE)
_BEGIN = "-----BEGIN "
_IN_A_CELL = re.compile(rb"""["',]\s*\Z""")
_REMAINS = re.compile(r"[A-Za-z0-9+/=]+\Z|-----END ")
# What is left of a PEM block in the lines after a quote that stands where it should not.


@dataclass(frozen=True)
class Row:
    """A certificate. `line` is where its row or PEM block begins, from 1; it is 0 in what has
    no lines. `source` is where the certificate came from, if that is said."""

    line: int
    certificate: Certificate
    source: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row or PEM block that is skipped. `reason` follows its name: `is cut short`."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line} {self.reason}"


_Record = tuple[int, list[str] | csv.Error]
"""The line where it begins, and its cells or why it has none."""


def read_any(data: bytes) -> Iterator[Row | BadRow]:
    """What is in a report of the CCADB, in a bundle (`bundle.read_bundle`), or in whatever else
    `read_certificates` takes. Raises ValueError, when iterated over, if it is none of these."""
    if _is_report(data):
        file = io.BytesIO(data)
        yield from read_report(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""))
        return
    armoured = False
    for block in pem_blocks(data):
        armoured = True
        yield from _certificates(block, block.line)
    if not armoured:
        for certificate in read_certificates(data):
            yield Row(0, certificate)


def read_report(lines: Iterable[str]) -> Iterator[Row | BadRow]:
    """The rows of a report, one at a time. `lines` are those of a file opened with
    encoding="utf-8-sig" and newline="". Raises ValueError if there is no column with PEM.

    Rows that a missing quote has joined are read as one, which begins where the first does.
    """
    records = _records(lines)
    _, header = next(records, (0, []))
    header = [] if isinstance(header, csv.Error) else header
    column, records = _find_pem(header, records)
    torn = False
    for line, cells in records:
        if isinstance(cells, csv.Error):
            torn = True
            yield BadRow(line, f"is not CSV ({cells})")
            continue
        # Where there are too many cells, a comma or a quote has moved the PEM to the right.
        pem = "\n".join(cells[column : None if len(cells) > len(header) else column + 1])
        if blocks := list(pem_blocks(pem.encode(errors="replace"))):
            torn = False
            for row in chain.from_iterable(_certificates(block, line) for block in blocks):
                torn = torn or isinstance(row, BadRow)
                yield row
        elif not (torn and _REMAINS.match(",".join(cells))):
            torn = True
            yield BadRow(line, f"has no PEM in column {column + 1}")


def _records(lines: Iterable[str]) -> Iterator[_Record]:
    # The limit of csv to the length of a field is left as it is, 128 KiB: it belongs to the
    # whole process, no certificate comes near it, and it ends a field that has lost its quote.
    reader = csv.reader(lines)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
        else:
            if cells:
                yield line, cells


def _find_pem(header: list[str], records: Iterator[_Record]) -> tuple[int, Iterator[_Record]]:
    """The column with PEM, by its name or else by its content, and all the records."""
    named = [column for column, name in enumerate(header) if _PEM_NAME.search(name)]
    if len(named) == 1:
        return named[0], records
    head = list(islice(records, ROWS_SEARCHED))
    for _, cells in head:
        for column, cell in enumerate(() if isinstance(cells, csv.Error) else cells):
            if _BEGIN in cell and (not named or column in named):
                return column, chain(head, records)
    raise ValueError("has no column with certificates in PEM")


def _certificates(block: Block, line: int) -> Iterator[Row | BadRow]:
    try:
        for certificate in block.certificates():
            yield Row(line, certificate, block.source)
    except ValueError as error:
        yield BadRow(line, printable(str(error)))


def _is_report(data: bytes) -> bool:
    begin = data.find(_BEGIN.encode())
    if begin >= 0:
        return _IN_A_CELL.search(data, max(0, begin - 8), begin) is not None
    try:
        header = data[:4096].splitlines()[0].decode("utf-8-sig")
    except (IndexError, UnicodeDecodeError):
        return False
    return "," in header and header.isprintable() and not header.startswith("<")
