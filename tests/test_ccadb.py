"""The reports of the CCADB: every certificate is found, and every fault has its line."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mitmproxy_aia.bundle import write_bundle
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.ccadb import MOZILLA_REPORT, ROWS_SEARCHED, BadRow, Row, read_any, read_report
from mitmproxy_aia.certificates import Certificate
from tests.lab import Issued, authority, pem_bundle, pkcs7_ber, pkcs7_der

ROOT = authority("Lab Root")
A, B, C = (ROOT.issue(name, ca=True) for name in "ABC")
HEIGHT = A.pem.count(b"\n")
HEADER = ["CA Owner, in full", "Certificate Name", "PEM Info", "Comments"]


def pem(*issued: Issued) -> str:
    return pem_bundle(*issued).decode().strip()


def row(issued: Issued, comment: str = "") -> list[str]:
    """As in PublicAllIntermediateCertsWithPEMCSV."""
    return ["Lab, Ltd.", issued.name, f"'{pem(issued)}'", comment]


def report(*rows: Sequence[str], header: Sequence[str] = HEADER, newline: str = "\n") -> str:
    """Everything is quoted, as the CCADB does."""
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([header, *rows])
    return file.getvalue().replace("\n", newline)


def found(rows: Iterator[Row | BadRow]) -> list[tuple[int, str]]:
    """Where what was found: the name of a certificate, or the reason why there is none."""
    return [
        (each.line, each.reason if isinstance(each, BadRow) else each.certificate.name)
        for each in rows
    ]


def read(text: str) -> list[tuple[int, str]]:
    return found(read_any(text.encode()))


def test_url_of_mozilla() -> None:
    """What `cache import --mozilla` downloads."""
    assert MOZILLA_REPORT.startswith("https://ccadb.my.salesforce-sites.com/mozilla/")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_report(newline: str, bom: str) -> None:
    """The certificates in their order, each with the line where its row begins."""
    text = bom + report(
        row(A), row(B, "two\nlines"), [], row(C, '"quotes", commas'), newline=newline
    )
    expected = [(2, "CN=A"), (2 + HEIGHT, "CN=B"), (4 + 2 * HEIGHT, "CN=C")]
    assert read(text) == expected
    first = next(read_any(text.encode()))
    assert first == Row(2, Certificate.from_der(A.der), None)


def test_streamed(tmp_path: Path) -> None:
    """A file is read as far as is asked for."""
    path = tmp_path / "report.csv"
    path.write_text(report(row(A), row(B)), encoding="utf-8-sig")
    with path.open(encoding="utf-8-sig", newline="") as file:
        assert found(read_report(file)) == [(2, "CN=A"), (2 + HEIGHT, "CN=B")]

    def endless() -> Iterator[str]:
        yield from report().splitlines(keepends=True)
        while True:
            yield from report(row(A)).splitlines(keepends=True)[1:]

    rows = read_report(endless())
    assert [next(rows).line for _ in range(3)] == [2, 2 + HEIGHT, 2 + 2 * HEIGHT]


@pytest.mark.parametrize(
    ("header", "column"),
    [
        (["Subject", "PEM", "JSON Array of Partitioned CRLs"], 1),
        (["Owner", "X.509 Certificate (PEM)"], 1),
        (["PEM Info", "Owner"], 0),
        (["pem"], 0),
        (["PEM of the Root", "PEM of the Certificate"], 1),
        (["Owner", "Raw"], 1),
        (["Temperature", "PEMBERTON", "Raw"], 2),
    ],
)
@pytest.mark.parametrize("quote", ["", "'"])
def test_column(header: list[str], column: int, quote: str) -> None:
    """Found by its name, or by what is in it; with quotes around the PEM and without."""
    cells = [""] * len(header)
    cells[column] = f"{quote}{pem(A)}{quote}"
    assert read(report(cells, header=header)) == [(2, "CN=A")]


def test_only_columns_named_pem_count() -> None:
    """If there are any, a PEM in another one is somebody's comment."""
    text = report([pem(B), "", pem(A)], header=["Notes", "PEM of 2025", "PEM of 2026"])
    assert read(text) == [(2, "CN=A")]


def test_column_found_late() -> None:
    """Rows before the one that shows where the PEM is are not forgotten."""
    header = ["Owner", "Raw"]
    text = report(["X", ""], ["Y", pem(A)], header=header)
    assert read(text) == [(2, "has no PEM in column 2"), (3, "CN=A")]
    torn = report(header=header) + "x" * (csv.field_size_limit() + 1) + "\n"
    assert read(torn + report(["Y", pem(A)], header=header)) == [
        (2, "is not CSV (field larger than field limit (131072))"),
        (3, "has no PEM in column 2"),
        (4, "CN=A"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        report(["A", "B", "C", "D"], header=["CA Owner", "Certificate Name", "SHA-256", "URL"]),
        "a,b\n" + "x,y\n" * ROWS_SEARCHED + f'z,"{pem(A)}"\n',
        report(["x"] * 4, header=["PEM", "PEM", "PEM", "PEM"]),
        "x" * (csv.field_size_limit() + 1) + f'\nx,"{"x" * 9}"\n',
    ],
    ids=["another report", "too late", "ambiguous", "no header"],
)
def test_no_column(text: str) -> None:
    """One error for all, and not one for each row."""
    with pytest.raises(ValueError, match=r"^has no column with certificates in PEM$"):
        list(read_report(io.StringIO(text, newline="")))


def test_no_rows() -> None:
    """A report may be empty, but not without a header."""
    assert read(report()) == []
    with pytest.raises(ValueError, match=r"^has no column with"):
        list(read_report([]))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (["junk"], r"has no PEM in column 3"),
        (["Lab", "short"], r"has no PEM in column 3"),
        (["Lab", "none", "", ""], r"has no PEM in column 3"),
        (["Lab", "case", pem(A).lower(), ""], r"has no PEM in column 3"),
        (["Lab", "label", pem(A).replace("CERT", "cert"), ""], r"has no PEM in column 3"),
        (["Lab", "html", "<b>", ""], r"has no PEM in column 3"),
        (["Lab", "junk", "'-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'", ""],
         r"has a damaged PEM block \(is a damaged certificate .*"),
        (["Lab", "cut", pem(A)[:200], ""], r"has a PEM block without an end"),
        (["Lab", "bytes", pem(A).replace("M", "\ufffd", 1), ""], r"has a damaged PEM block .*"),
        (["Lab", "key", A.key_pem.decode(), ""], r"has PEM blocks, but none with a certificate"),
        (["Lab", "long", "x" * (csv.field_size_limit() + 1), ""], r"is not CSV \(field larger .*"),
    ],
    ids=lambda value: value[-1][:8] if isinstance(value, list) else "",
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_bad_row_in_the_middle(bad: list[str], reason: str, newline: str) -> None:
    """Is named by its line, and skipped."""
    text = report(row(A), bad, row(B), newline=newline)
    height = report(bad).count("\n") - 1
    first, (line, said), last = read(text)
    assert (first, last) == ((2, "CN=A"), (2 + HEIGHT + height, "CN=B"))
    assert line == 2 + HEIGHT
    assert re.fullmatch(reason, said)


def test_bytes_that_are_not_text() -> None:
    """A comment in another encoding spoils nothing; in a PEM they are a damaged block."""
    text = report(row(A, "Ã"), row(B)).encode()
    latin = text.replace("Ã".encode(), b"\xc3")
    assert found(read_any(latin)) == [(2, "CN=A"), (2 + HEIGHT, "CN=B")]
    damaged = latin.replace(b"\nM", b"\n\xff", 1)
    (line, reason), other = found(read_any(damaged))
    assert (line, other) == (2, (2 + HEIGHT, "CN=B"))
    assert reason.startswith("has a damaged PEM block")


def test_a_bad_row_as_text() -> None:
    """Reads as a sentence."""
    assert str(BadRow(7, "is not CSV")) == "line 7 is not CSV"


def test_two_certificates_in_one_cell() -> None:
    """Both, with the line of their row; a damaged one beside a good one is named."""
    both = ["Lab", "both", f"'{pem(A, B)}'", ""]
    damaged = ["Lab", "half", pem(A).replace("M", "!", 1) + "\n" + pem(B), ""]
    first, second, (line, reason), good = read(report(both, damaged))
    assert (first, second) == ((2, "CN=A"), (2, "CN=B"))
    assert (line, good) == (1 + 2 * HEIGHT + 1, (1 + 2 * HEIGHT + 1, "CN=B"))
    assert reason.startswith("has a damaged PEM block")


def test_a_missing_quote_at_the_end() -> None:
    """Joins two rows: both certificates are found, and what follows is as it should be."""
    text = report(row(A), row(B), row(C))
    joined = text.replace("-----'\",", "-----',", 1)
    assert read(joined) == [(2, "CN=A"), (2, "CN=B"), (2 + 2 * HEIGHT, "CN=C")]


def test_a_missing_quote_at_the_beginning() -> None:
    """One fault has one line, though it tears the PEM into many."""
    text = report(row(A), row(B), row(C), row(A))
    second = text.index("\"'-----BEGIN", text.index("END CERTIFICATE"))
    torn = text[:second] + text[second + 1 :]
    good, (line, reason), *others = read(torn)
    assert good == (2, "CN=A")
    assert (line, reason) == (2 + HEIGHT, "has a PEM block without an end")
    assert others == [(2 + 2 * HEIGHT, "CN=C"), (2 + 3 * HEIGHT, "CN=A")]


def test_a_comma_too_many() -> None:
    """The PEM is found although it has moved."""
    assert read(report(["Lab", "Ltd.", "A", pem(A), ""])) == [(2, "CN=A")]


def test_cut_short() -> None:
    """The last row of a download that broke off is named."""
    text = report(row(A), row(B))
    assert read(text[: -HEIGHT * 30]) == [
        (2, "CN=A"),
        (2 + HEIGHT, "has a PEM block without an end"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (A.der, [(0, "CN=A")]),
        (pkcs7_der(A), [(0, "CN=A")]),
        (pkcs7_ber(A, B), [(0, "CN=A"), (0, "CN=B")]),
        (pem_bundle(A, B), [(1, "CN=A"), (1 + HEIGHT, "CN=B")]),
        (b"\xef\xbb\xbfsubject=A, B\n" + A.pem, [(2, "CN=A")]),
        (
            A.pem + A.key_pem + B.pem[:90] + b"\n" + C.pem,
            [
                (1, "CN=A"),
                (1 + HEIGHT, "has PEM blocks, but none with a certificate"),
                (1 + HEIGHT + A.key_pem.count(b"\n"), "has a PEM block without an end"),
                (
                    2 + HEIGHT + (A.key_pem + B.pem[:90]).count(b"\n"),
                    "CN=C",
                ),
            ],
        ),
    ],
    ids=["der", "p7-der", "p7-ber", "bundle", "s_client", "damaged"],
)
def test_no_report(data: bytes, expected: list[tuple[int, str]]) -> None:
    """Bundles and single certificates; damaged blocks are named by line and skipped."""
    assert found(read_any(data)) == expected


def test_our_own_bundle() -> None:
    """The sources come back."""
    now = Certificate.from_der(A.der).not_before
    entries = [
        Entry(Certificate.from_der(issued.der), f"http://ca.example/{issued.name}?a,b", now, now)
        for issued in (A, B)
    ]
    rows = list(read_any("".join(write_bundle(entries)).encode()))
    assert [each.source for each in rows if isinstance(each, Row)] == [
        "http://ca.example/A?a,b",
        "http://ca.example/B?a,b",
    ]


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"<!doctype html>, <title>", b"junk", b"\xff,", b"a\x00,b", A.der[:-1], b"a\nb,c"],
)
def test_nothing_of_the_kind(data: bytes) -> None:
    """One error that says what it is not."""
    with pytest.raises(ValueError, match=r"^is (empty|a damaged|not a certificate)"):
        list(read_any(data))
