"""`mitmproxy-aia cache add` and `import`: what goes in, what does not, and what is said of it."""

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli import filling, intake, report_download
from mitmproxy_aia.cli.terminal import CommandError
from tests.cache_cli import CacheCli, fingerprint
from tests.lab import (
    CaIssuersServer,
    Issued,
    TlsServer,
    authority,
    dead_url,
    pem_bundle,
    pkcs7_ber,
    trust_file,
)
from tests.lab.process import clean_environment
from tests.lab.terminal import in_terminal
from tests.test_cli import COMMAND, SOURCE_ROOT

ROOT = authority("Lab Root")
A, B, C = (ROOT.issue(f"Lab {name}", ca=True) for name in "ABC")
OLD = ROOT.issue("Lab Old", ca=True, expired=True)
LEAF = ROOT.issue("Lab Leaf")


@pytest.fixture
def cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CacheCli:
    return CacheCli(tmp_path / "aia.sqlite3", capsys)


@pytest.fixture
def ca(monkeypatch: pytest.MonkeyPatch) -> Iterator[CaIssuersServer]:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    with CaIssuersServer() as server:
        yield server


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def report(*rows: Issued | str) -> bytes:
    """Mozilla's form: single quotes around the PEM. A text stands in place of a PEM."""
    file = io.StringIO()
    table = csv.writer(file, quoting=csv.QUOTE_ALL)
    table.writerow(["Subject", "PEM Info"])
    for row in rows:
        pem = row if isinstance(row, str) else f"'{row.pem.decode().strip()}'"
        table.writerow(["Lab", pem])
    return file.getvalue().encode()


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


# --- add


def test_add(cache: CacheCli, tmp_path: Path) -> None:
    """Any format; each is named, and said to be new or there; the origin is the file."""
    der = written(tmp_path / "a.crt", A.der)
    bundle = written(tmp_path / "b.txt", pkcs7_ber(A, B))
    result = cache("add", der, bundle)
    assert (result.status, result.err) == (0, "")
    assert [line[:2] for line in result.words[:3]] == [
        ["new", fingerprint(A)[:16]],
        ["there", fingerprint(A)[:16]],
        ["new", fingerprint(B)[:16]],
    ]
    assert result.out.splitlines()[3:] == ["3 certificates read, 2 new"]
    assert [entry.origin for entry in cache.entries] == [str(der), str(bundle)]


def test_add_relative_path(
    cache: CacheCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The origin is the whole path: it will be read elsewhere."""
    monkeypatch.chdir(tmp_path)
    cache("add", written(Path("a.crt"), A.der))
    assert cache.entries[0].origin == str(tmp_path / "a.crt")


def test_add_from_stdin(cache: CacheCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `-`."""
    monkeypatch.setattr(sys, "stdin", Stdin(A.pem))
    assert cache("add", "-").status == 0
    assert [entry.origin for entry in cache.entries] == ["stdin"]


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        (LEAF, "no CA"),
        (ROOT.issue("Lab v3", basic_constraints=False), "no CA"),
        (ROOT.issue("Lab v3", basic_constraints=False, key_usage=None), "no CA"),
        (ROOT, "self-signed"),
        (OLD, "expired"),
    ],
)
def test_what_completes_no_chain_is_skipped(
    cache: CacheCli, tmp_path: Path, issued: Issued, reason: str
) -> None:
    """With the reason; a file with nothing else is an error, and the others are added."""
    path, good = written(tmp_path / "no", issued.pem), written(tmp_path / "good", A.pem)
    result = cache("add", path, good)
    assert result.status == 1
    assert result.out.startswith(f"skipped  {fingerprint(issued)[:16]}  ")
    assert result.out.splitlines()[0].endswith(f" ({reason})")
    assert result.out.endswith(f"2 certificates read, 1 new, 1 skipped (1 {reason})\n")
    assert result.err == (
        f"mitmproxy-aia: {path} holds no intermediate that could complete a chain\n"
    )
    assert cache.names == ["CN=Lab A"]


@pytest.mark.parametrize(
    "issued",
    [
        ROOT.issue("Lab Next", ca=True, not_yet_valid=True),
        ROOT.issue("Lab Old Style", basic_constraints=False, key_usage=["key_cert_sign"]),
        ROOT.issue(ROOT.certificate.subject, ca=True),
    ],
)
def test_what_may_complete_one_is_added(cache: CacheCli, tmp_path: Path, issued: Issued) -> None:
    """Not valid yet; a CA as OpenSSL sees it; an authority's new key under its old one."""
    assert cache("add", written(tmp_path / "a", issued.der)).status == 0
    assert len(cache.names) == 1


def test_a_self_signature_that_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is taken for one; and extensions that cannot be read, for those of an authority."""
    odd = ROOT.der.replace(
        bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    )
    certificate = Certificate.from_der(odd)
    now = certificate.not_before
    assert intake.useless(certificate, now) == "self-signed"
    # The second octet of basicConstraints' OID becomes that of subjectKeyIdentifier: twice.
    twice = A.der.replace(bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0e"))
    assert intake.useless(Certificate.from_der(twice), now) == ""


def test_add_what_is_none(cache: CacheCli, tmp_path: Path) -> None:
    """One message for each with its name; the good ones are added all the same."""
    junk = written(tmp_path / "readme\x1b", b"hello")
    good, missing = written(tmp_path / "good", A.pem), tmp_path / "missing"
    result = cache("add", junk, missing, good)
    assert result.status == 1
    assert result.err == (
        f"mitmproxy-aia: {tmp_path}/readme\\x1b is not a certificate "
        "(neither DER, PEM nor PKCS#7)\n"
        f"mitmproxy-aia: {missing} cannot be read (No such file or directory)\n"
    )
    assert cache.names == ["CN=Lab A"]


def test_add_a_folder(cache: CacheCli, tmp_path: Path) -> None:
    """What is directly in it and no certificate is named, and no error: nobody has asked for
    it. Hidden files, folders, pipes and links to nowhere are passed over or named."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    written(folder / "sub" / "c.pem", C.pem)
    written(folder / ".hidden", C.pem)
    written(folder / "a.pem", A.pem)
    written(folder / "leaf.pem", LEAF.pem)
    written(folder / "readme", b"hello")
    os.mkfifo(folder / "pipe")
    result = cache("add", folder)
    assert result.err == (
        f"mitmproxy-aia: {folder}/readme is not a certificate (neither DER, PEM nor PKCS#7)\n"
    )
    assert (result.status, cache.names) == (0, ["CN=Lab A"])
    (folder / "broken").symlink_to("nowhere")
    result = cache("add", folder)
    assert f"{folder}/broken cannot be read (No such file or directory)" in result.err
    assert result.status == 1


def test_add_an_empty_folder(cache: CacheCli, tmp_path: Path) -> None:
    """Is no success: nothing is in the cache that was to be."""
    (tmp_path / "folder").mkdir()
    result = cache("add", tmp_path / "folder")
    assert (result.status, result.out) == (1, "0 certificates read, 0 new\n")


def test_add_too_much(cache: CacheCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without an end does not fill the memory."""
    monkeypatch.setattr(intake, "MAX_BYTES", 2**20)
    assert cache("add", "/dev/zero").err == (
        "mitmproxy-aia: /dev/zero cannot be read (larger than 1 MiB)\n"
    )


def test_add_many(cache: CacheCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a large file are counted and not named."""
    monkeypatch.setattr(filling, "MOST_LISTED", 2)
    path = written(tmp_path / "bundle.pem", pem_bundle(A, B, OLD))
    assert cache("add", path).out == "3 certificates read, 2 new, 1 skipped (1 expired)\n"
    assert cache.names == ["CN=Lab A", "CN=Lab B"]


# --- import


@pytest.mark.parametrize("option", [[], ["--ccadb"]])
def test_import_a_report(
    cache: CacheCli, tmp_path: Path, option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken row is named by its line and skipped; nothing else is lost, in any batch."""
    monkeypatch.setattr(filling, "BATCH", 1)
    rows = report(A, "no PEM", B, OLD)
    path = written(tmp_path / "report.csv", rows)
    result = cache("import", *option, path)
    line = rows[: rows.index(b"no PEM")].count(b"\n") + 1
    assert result.err == f"{path}:{line}: has no PEM in column 2\n"
    assert result.out == (
        "3 certificates read, 2 new, 1 skipped (1 expired), 1 row could not be read\n"
    )
    assert result.status == 0
    assert cache.names == ["CN=Lab A", "CN=Lab B"]
    again = cache("import", path)
    assert (again.status, again.out.split(", ")[1]) == (0, "0 new")


def test_import_what_was_exported(cache: CacheCli, tmp_path: Path) -> None:
    """With the origins that the bundle names."""
    cache.put(A, origin="http://ca.example/a.der")
    path = tmp_path / "bundle.pem"
    cache("export", path)
    cache("clear", "--yes")
    assert cache("import", "--ccadb", path, path).out == "2 certificates read, 1 new\n"
    assert [entry.origin for entry in cache.entries] == ["http://ca.example/a.der"]


def test_import_der(cache: CacheCli, tmp_path: Path) -> None:
    """It has no lines. Its origin is the file."""
    path = written(tmp_path / "a.der", A.der)
    assert cache("import", path).status == 0
    assert cache.entries[0].origin == str(path)


def test_import_nothing(cache: CacheCli, tmp_path: Path) -> None:
    """Exit status 1 only if no file at all had a certificate."""
    junk, missing = written(tmp_path / "junk", b"hello"), tmp_path / "missing"
    result = cache("import", junk, missing)
    assert result.status == 1
    assert result.out == "0 certificates read, 0 new\n"
    assert result.err == (
        f"mitmproxy-aia: {junk} is not a certificate (neither DER, PEM nor PKCS#7)\n"
        f"mitmproxy-aia: {missing} cannot be read (No such file or directory)\n"
    )
    assert cache("import", junk, written(tmp_path / "a.pem", A.pem)).status == 0


def test_import_without_a_file(cache: CacheCli) -> None:
    """Is a wrong usage."""
    result = cache("import")
    assert result.status == 2
    assert "name a FILE, or --mozilla" in result.err


def test_import_on_a_terminal(cache: CacheCli, tmp_path: Path) -> None:
    """A bar in one line of the terminal, which makes room for complaints and is gone in the
    end."""
    path = written(tmp_path / "report.csv", report(A, "no PEM", B))
    status, text = in_terminal(
        [*COMMAND, "cache", "import", "--cache", str(cache.path), str(path)],
        environment={"PYTHONPATH": str(SOURCE_ROOT)},
    )
    assert status == 0
    bars = re.findall(r"\r\x1b\[K([^\r\n]*%[^\r\n]*)", text)
    assert bars
    assert all(re.fullmatch(r"…?\S+  \[#*\.*\] +\d+%  \d read", bar) for bar in bars)
    assert all(len(bar) < 80 for bar in bars)
    # What can be seen in the end: of each line, what was written after it was last cleared.
    seen = [line.split("\r\x1b[K")[-1] for line in text.strip().split("\n")]
    line = A.pem.count(b"\n") + 2
    assert seen == [
        f"{path}:{line}: has no PEM in column 2",
        "2 certificates read, 2 new, 1 row could not be read",
    ]


# --- import --mozilla


def test_import_from_the_network(
    cache: CacheCli, ca: CaIssuersServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mozilla's report, or what --url names instead; the origin is the URL without its
    password."""
    url = ca.serve("/report", report(A, B))
    monkeypatch.setattr(filling, "MOZILLA_REPORT", url)
    assert cache("import", "--mozilla").out == "2 certificates read, 2 new\n"
    other = ca.serve("/other", report(C)).replace("http://", "http://me:secret@")
    assert cache("import", "--mozilla", "--url", other).out == "1 certificate read, 1 new\n"
    assert ca.requests[-1].headers["Authorization"].startswith("Basic ")
    assert [entry.origin for entry in cache.entries] == [url, url, ca.url("/other")]


def test_a_redirect_is_followed(cache: CacheCli, ca: CaIssuersServer) -> None:
    """Reports move."""
    ca.serve("/new", report(A))
    assert cache("import", "--url", ca.redirect("/old", "/new")).status == 0


def test_a_download_without_a_length(cache: CacheCli, ca: CaIssuersServer) -> None:
    """Is read to its end."""
    assert cache("import", "--url", ca.serve("/report", [report(A)])).status == 0


def test_failed_download(cache: CacheCli, ca: CaIssuersServer, tmp_path: Path) -> None:
    """One line that names the URL; the files are imported all the same."""
    path = written(tmp_path / "a.pem", A.pem)
    result = cache("import", "--url", ca.url("/no"), path)
    assert (result.status, result.out) == (0, "1 certificate read, 1 new\n")
    assert result.err == (
        f"mitmproxy-aia: {ca.url('/no')} could not be downloaded (it answered 404)\n"
    )


def test_unfit_downloads(
    cache: CacheCli, ca: CaIssuersServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing at all, silence, too much, too slow, no end of redirects, and no report."""

    def error(url: str) -> str:
        result = cache("import", "--url", url)
        assert (result.status, result.err.count("\n")) == (1, 1)
        return result.err.removeprefix(f"mitmproxy-aia: {url} ").strip()

    assert "Connection refused" in error(dead_url("/"))
    assert error(ca.junk("/junk")) == "is not a certificate (neither DER, PEM nor PKCS#7)"
    assert "redirects" in error(ca.redirect("/loop", "/loop"))
    with monkeypatch.context() as patched:
        patched.setattr(report_download, "TIMEOUT", 0.2)
        assert error(ca.hang("/hang")) == "could not be downloaded (timed out)"
    with monkeypatch.context() as patched:
        patched.setattr(report_download, "MAX_BYTES", 2**20)
        assert error(ca.flood("/flood")) == "could not be downloaded (it is larger than 1 MiB)"
    monkeypatch.setattr(report_download, "DEADLINE", -1)
    assert error(ca.serve("/slow", b"x")) == "could not be downloaded (it took longer than -1 s)"


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "http://host:port/", "report.csv"])
def test_no_url(cache: CacheCli, url: str) -> None:
    """Named as the option's."""
    result = cache("import", "--url", url)
    assert result.status == 1
    assert result.err.startswith("mitmproxy-aia: --url takes a URL")


def test_https(
    cache: CacheCli, ca: CaIssuersServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's certificate is verified, with the roots that SSL_CERT_FILE names if set."""
    with TlsServer(LEAF, body=report(A)) as server:
        url = server.url("/report", host="localhost")
        result = cache("import", "--url", url)
        assert result.status == 1
        assert "certificate verify failed" in result.err
        monkeypatch.setenv("SSL_CERT_FILE", str(trust_file(tmp_path / "roots.pem", ROOT)))
        assert cache("import", "--url", url).status == 0


def test_https_that_leads_to_http() -> None:
    """Is refused: what anybody on the way could have changed is not what was asked for."""
    response = httpx.Response(200, request=httpx.Request("GET", "http://ca.example/"))
    with pytest.raises(ValueError, match=r"^it leads to http://"):
        report_download._body("https://ca.example/", response, lambda done, total: None)
    body = report_download._body("http://ca.example/", response, lambda done, total: None)
    assert body == b""


def test_progress_of_a_download(ca: CaIssuersServer) -> None:
    """Bytes so far and altogether, if that is known."""
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        calls.append((done, total))

    report_download.download(ca.serve("/a", bytes(1000)), note)
    report_download.download(ca.serve("/b", [bytes(1000)]), note)
    assert calls[0][1] == calls[-2][0] == 1000
    assert calls[-1] == (1000, 0)
    with pytest.raises(CommandError):
        report_download.download(ca.url("/no"), note)


def test_download_on_a_terminal(cache: CacheCli, ca: CaIssuersServer) -> None:
    """Has a bar, too."""
    url = ca.serve("/report", report(A))
    status, text = in_terminal(
        [*COMMAND, "cache", "import", "--cache", str(cache.path), "--url", url],
        environment={"PYTHONPATH": str(SOURCE_ROOT)},
    )
    assert status == 0
    assert re.search(r"\[#{30}\] 100%  0\.0 MB", text)


def test_two_at_once(cache: CacheCli, tmp_path: Path) -> None:
    """Imports into one cache at the same time do not disturb each other."""
    paths = [
        written(
            tmp_path / f"{n}.pem", pem_bundle(*(ROOT.issue(f"{n} {i}", ca=True) for i in range(20)))
        )
        for n in range(3)
    ]
    processes = [
        subprocess.Popen(
            [*COMMAND, "cache", "import", "--cache", cache.path, path],
            cwd=SOURCE_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for path in paths
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert said == ["20 certificates read, 20 new\n"] * 3
    assert len(cache.names) == 60
