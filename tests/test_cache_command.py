"""`mitmproxy-aia cache`: what is listed, chosen, removed and exported, and what goes wrong."""

import contextlib
import datetime
import functools
import io
import json
import re
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa
from cryptography.x509.oid import NameOID

from mitmproxy_aia import times
from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli import choosing, views
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources import sqlite_cache
from mitmproxy_aia.sources.sqlite_file import open_to_write
from tests.cache_cli import NOW, URL, CacheCli, fingerprint
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority, curl, pem_bundle
from tests.lab.redis_server import RedisServer
from tests.lab.terminal import in_terminal
from tests.test_cli import COMMAND, SOURCE_ROOT

ROOT = authority("Lab Root")
A, B, C = (ROOT.issue(f"Lab {name}", ca=True) for name in "ABC")
OLD = ROOT.issue("Lab Old", ca=True, expired=True)
EVIL = ROOT.issue("Lab \x1b[2J\t\x7f", ca=True)


@pytest.fixture
def cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CacheCli:
    return CacheCli(tmp_path / "aia.sqlite3", capsys)


def shown(cache: CacheCli, *arguments: str, columns: int = 80, **environment: str) -> list[str]:
    """The lines that a terminal shows."""
    where = ["--cache", str(cache.path)]
    environment["PYTHONPATH"] = str(SOURCE_ROOT)
    status, text = in_terminal(
        [*COMMAND, "cache", *where, *arguments], columns=columns, environment=environment
    )
    assert status == 0
    return text.splitlines()


# --- list


def test_list_for_other_programs(cache: CacheCli) -> None:
    """One line for each, all in full, with tabs between: stable for grep and cut."""
    cache.put(A, EVIL, origin="http://ca.example/\t\x1b[2J")
    evil, lab = cache("list").out.splitlines()
    fields = lab.split("\t")
    assert fields[:3] == [fingerprint(A), "CN=Lab A", "CN=Lab Root"]
    assert fields[6:] == [
        r"http://ca.example/\t\x1b[2J",
        "2026-10-01T12:30:00Z",
        "2026-10-01T12:30:00Z",
    ]
    assert evil.split("\t")[1] == r"CN=Lab \x1b[2J\t\x7f"
    assert (evil + lab).replace("\t", "").isprintable()


def test_list_as_json(cache: CacheCli) -> None:
    """The documented keys; what has no key identifier has null; nothing raw in it."""
    anonymous = ROOT.issue("Lab Anonymous", ca=True, subject_key_identifier=False)
    cache.put(A, anonymous, EVIL)
    result = cache("list", "--json")
    evil, lab, nobody = json.loads(result.out)
    assert lab == {
        "subject": "CN=Lab A",
        "issuer": "CN=Lab Root",
        "sha256": fingerprint(A),
        "key_identifier": x509.SubjectKeyIdentifier.from_public_key(
            A.key.public_key()
        ).digest.hex(),
        "not_before": f"{A.certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{A.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "origin": URL,
        "first_used": "2026-10-01T12:30:00Z",
        "last_used": "2026-10-01T12:30:00Z",
    }
    assert nobody["key_identifier"] is None
    assert evil["subject"] == "CN=Lab \x1b[2J\t\x7f"
    assert result.out.replace("\n", "").isprintable()
    assert len(result.out.splitlines()) == 3 + 2
    assert list(lab) == list(views.FIELDS)
    assert lab["not_after"] == cache("list").out.splitlines()[1].split("\t")[4]


def test_list_of_an_empty_cache(cache: CacheCli) -> None:
    """Says so on stderr, and is no error; with --json it is an empty array."""
    result = cache("list")
    assert (result.out, result.status) == ("", 0)
    assert result.err == f"mitmproxy-aia: {cache.path} is empty (there is no such file yet)\n"
    assert json.loads(cache("list", "--json").out) == []
    cache.put(A)
    cache("clear", "--yes")
    assert cache("list").err == f"mitmproxy-aia: {cache.path} is empty\n"


def test_list_on_a_terminal(cache: CacheCli) -> None:
    """A table of 80 columns; the expired are marked in colour, and without."""
    long = ROOT.issue("Lab Intermediate with a name that goes on and on", ca=True)
    cache.put(A, OLD, EVIL, long, origin="http://ca.example/a/very/long/path/to/it.der")
    lines = shown(cache, "list")
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    assert plain[0].split("  ")[0] == "SHA-256"
    assert [line[10:].split("  ")[0] for line in plain[1:5]] == [
        r"Lab \x1b[2J\t\x7f",
        "Lab A",
        "Lab Intermediate with a na…",
        "Lab Old",
    ]
    assert all(line.isprintable() and len(line) <= 80 for line in plain)
    starts = {line.index("ca.example/") for line in plain[1:5]}
    assert starts == {plain[0].index("ORIGIN")}
    assert plain[5:] == ["", "4 certificates, 1 expired (!)"]
    assert lines[4].startswith("\x1b[31m")
    assert f"{OLD.certificate.not_valid_after_utc:%Y-%m-%d}!  2026-10-01" in plain[4]
    assert not any("\x1b" in line for line in lines[1:4])
    assert shown(cache, "list", NO_COLOR="1") == plain


def test_list_on_a_wide_terminal(cache: CacheCli) -> None:
    """There is room for the issuer."""
    cache.put(A)
    titles, row, *_ = shown(cache, "list", columns=130, NO_COLOR="1")
    assert titles.split()[:3] == ["SHA-256", "SUBJECT", "ISSUER"]
    assert row.split()[1:5] == ["Lab", "A", "Lab", "Root"]


def test_list_of_nothing_on_a_terminal(cache: CacheCli) -> None:
    """Is no table without rows."""
    assert shown(cache, "list") == [
        f"mitmproxy-aia: {cache.path} is empty (there is no such file yet)"
    ]


# --- show


@pytest.mark.parametrize(
    "text",
    [
        fingerprint(A),
        fingerprint(A)[:12],
        ":".join(re.findall("..", fingerprint(A).upper())),
        "CN=Lab A",
        "lab a",
    ],
)
def test_show(cache: CacheCli, text: str) -> None:
    """By the beginning of the fingerprint or a part of the subject; the PEM is the last."""
    cache.put(A, B)
    result = cache("show", text)
    assert result.status == 0
    assert [item.der for item in read_certificates(result.out.encode())] == [A.der]
    assert all(len(line) < 80 for line in result.out.splitlines())
    facts = dict(line.split(":", 1) for line in result.out.split("\n\n")[0].splitlines())
    assert facts["Subject"].strip() == "CN=Lab A"
    assert facts["Issuer"].strip() == "CN=Lab Root"
    assert facts["SHA-256"].strip() == fingerprint(A)
    assert facts["Key"].strip() == "EC, secp256r1"
    assert facts["Origin"].strip() == URL
    assert facts["caIssuers"].strip() == "none"


def test_show_as_json(cache: CacheCli) -> None:
    """One object, with the PEM."""
    cache.put(A)
    fields = json.loads(cache("show", "--json", "Lab A").out)
    assert fields["sha256"] == fingerprint(A)
    assert fields["pem"].strip() == A.pem.decode().strip()


def test_show_of_several(cache: CacheCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ambiguous: the candidates are named, but not thousands of them."""
    cache.put(A, B, EVIL)
    result = cache("show", "Lab")
    assert (result.out, result.status) == ("", 1)
    assert "'Lab' fits 3 certificates, name one by its SHA-256:\n" in result.err
    assert f"  {fingerprint(B)[:16]}  {B.certificate.not_valid_after_utc.date()}  CN=Lab B\n" in (
        result.err
    )
    assert result.err.replace("\n", "").isprintable()
    monkeypatch.setattr(choosing, "MOST_NAMED", 1)
    assert cache("show", "Lab").err.splitlines()[2] == "  and 2 more"


@pytest.mark.parametrize("text", ["nobody", "00", "f" * 64, "0" * 65, fingerprint(A)[8:24]])
def test_show_of_nothing(cache: CacheCli, text: str) -> None:
    """Named in one line, exit status 1."""
    cache.put(A)
    result = cache("show", text)
    assert (result.out, result.status) == ("", 1)
    hint = " (of a fingerprint it takes 4 digits)" if text == "00" else ""
    assert result.err == f"mitmproxy-aia: {text!r} fits no certificate in {cache.path}{hint}\n"


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text(cache: CacheCli, text: str) -> None:
    """Would be part of every subject: it is a wrong usage."""
    result = cache("remove", "--all", text)
    assert result.status == 2
    assert "would fit every certificate" in result.err


def test_a_whole_fingerprint_ends_the_search(cache: CacheCli) -> None:
    """There can be no second one: the rest of a large cache is not read."""
    entries = [Entry(Certificate.from_der(each.der), URL, NOW, NOW) for each in (A, B)]
    unread = iter(entries)
    [choice] = choosing.choose(unread, [fingerprint(A)])
    assert choice.entries == [entries[0]]
    assert next(unread) == entries[1]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "RSA, 2048 bits"),
        (lambda: dsa.generate_private_key(2048), "DSA, 2048 bits"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
    ],
)
def test_show_of_other_keys(
    cache: CacheCli, make: Callable[[], "rsa.RSAPrivateKey"], kind: str
) -> None:
    """In the words of the field."""
    key = make()
    cache.put(ROOT.issue("Lab Key", ca=True, key=key))
    assert f"Key:           {kind}\n" in cache("show", "Lab Key").out


def test_show_of_what_cannot_be_read(cache: CacheCli) -> None:
    """Keys and names of which nobody can make anything are named as such."""
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, x509.name._ASN1Type.UTF8String)])
        for text in ("Lab Subject", "Lab Issuer!")
    ]
    issued = ROOT.issue(names[0], ca=True, issuer_name=names[1])
    broken = issued.der.replace(b"Lab Subject", b"\xff\xff\xff Subject"[:11])
    broken = broken.replace(b"Lab Issuer!", b"\xff" * 11)
    # id-ecPublicKey becomes the OID of something that nobody knows.
    broken = broken.replace(
        bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
    )
    certificate = Certificate.from_der(broken)
    with contextlib.closing(open_to_write(cache.path)) as database:
        database.add([Entry(certificate, URL, NOW, NOW)])
    result = cache("show", certificate.fingerprint.hex())
    assert result.status == 0
    assert re.search(r"^Subject: +\(a name of \d+ bytes that cannot be read\)$", result.out, re.M)
    assert re.search(r"^Issuer: +\(a name of \d+ bytes that cannot be read\)$", result.out, re.M)
    assert re.search(r"^Key: +of a kind that cannot be read$", result.out, re.M)
    assert cache("list").status == 0
    exported = cache("export", "-")
    assert exported.status == 0
    assert "# subject:  (a name of" in exported.out


def test_show_of_a_name_without_anything(cache: CacheCli) -> None:
    """And of a certificate with neither key identifier."""
    cache.put(
        ROOT.issue(
            x509.Name([]),
            ca=True,
            subject_key_identifier=False,
            authority_key_identifier=False,
            expired=True,
            aia=["http://ca.example/\x1b"],
        )
    )
    out = cache("show", "(empty name)").out
    assert "Subject:       (empty name)\n" in out
    assert "Key id:        none\nIssuer key id: none\ncaIssuers:     http://" in out
    assert "Z (expired)\n" in out
    assert "\x1b" not in out


# --- remove, clear, prune


def test_remove(cache: CacheCli) -> None:
    """Each is named as it goes; what fits none or several stays, and the status says so."""
    cache.put(A, B, C, OLD)
    result = cache("remove", fingerprint(A)[:8], "lab old")
    assert (result.status, result.err) == (0, "")
    assert [line[-1] for line in result.words] == ["A", "Old", "removed"]
    assert cache.names == ["CN=Lab B", "CN=Lab C"]
    result = cache("remove", "Lab", "nobody", "Lab B")
    assert result.status == 1
    assert [line[:2] for line in result.words] == [["removed", fingerprint(B)[:16]]]
    assert "'Lab' fits 2 certificates" in result.err
    assert "'nobody' fits no certificate" in result.err
    assert cache.names == ["CN=Lab C"]


def test_remove_all_that_fits(cache: CacheCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --all, also more than are named."""
    monkeypatch.setattr(choosing, "MOST_NAMED", 1)
    cache.put(A, B, C)
    result = cache("remove", "--all", "lab")
    assert result.status == 0
    assert result.out.splitlines()[1:] == ["removed  and 2 more", "3 certificates removed"]
    assert cache.names == []
    assert cache("remove", "--all", "lab").status == 1


def test_clear_without_a_terminal(cache: CacheCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to ask: it takes --yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    cache.put(A, B)
    result = cache("clear")
    assert result.status == 2
    assert "add --yes" in result.err
    assert len(cache.names) == 2
    assert cache("clear", "--yes").out == f"2 certificates removed from {cache.path}\n"
    assert cache.names == []


@pytest.mark.parametrize(
    ("typed", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\x04", 1, 1), ("\x03", 130, 1)]
)
def test_clear_on_a_terminal(cache: CacheCli, typed: str, status: int, left: int) -> None:
    """Asks first. Ctrl-D is a no, and Ctrl-C is the end, without a traceback."""
    cache.put(A)
    ended, text = in_terminal(
        [*COMMAND, "cache", "clear", "--cache", str(cache.path)],
        when=r"\[y/N\] ",
        typed=typed,
        environment={"PYTHONPATH": str(SOURCE_ROOT)},
    )
    assert f"Remove all certificates from {cache.path}? [y/N] " in text
    assert "Traceback" not in text
    assert ended == status
    assert len(cache.names) == left


def test_prune(cache: CacheCli) -> None:
    """What has expired goes."""
    cache.put(A, OLD)
    assert cache("prune").out == f"1 expired certificate removed from {cache.path}\n"
    assert cache("prune").out == f"0 expired certificates removed from {cache.path}\n"
    assert cache.names == ["CN=Lab A"]


# --- export


def test_export(cache: CacheCli, tmp_path: Path) -> None:
    """The same bytes whenever the cache holds the same, to a file and to stdout."""
    cache.put(B, A, OLD)
    path = tmp_path / "intermediates.pem"
    assert cache("export", path).out == f"3 certificates written to {path}\n"
    other = CacheCli(tmp_path / "other.sqlite3", cache.capsys)
    other.put(OLD, A, B)
    assert other("export", "-").out == path.read_text()
    assert {each.der for each in read_certificates(path.read_bytes())} == {A.der, B.der, OLD.der}
    assert f"# source:   {URL}\n" in path.read_text()


def test_export_without_the_expired(cache: CacheCli, tmp_path: Path) -> None:
    """If that is asked for."""
    cache.put(A, OLD)
    out = cache("export", "-", "--not-expired").out
    assert [each.der for each in read_certificates(out.encode())] == [A.der]


@pytest.mark.parametrize("target", ["there.pem", "-"])
def test_export_of_nothing(cache: CacheCli, tmp_path: Path, target: str) -> None:
    """Is an error: an empty bundle in place of a committed one would break every CI run."""
    path = tmp_path / "there.pem"
    path.write_text("as it was")
    result = cache("export", path if target == path.name else target)
    assert (result.out, result.status) == ("", 1)
    assert result.err == (
        f"mitmproxy-aia: {cache.path} holds nothing to export; nothing was written\n"
    )
    assert path.read_text() == "as it was"


def test_export_to_where_it_cannot(cache: CacheCli, tmp_path: Path) -> None:
    """Named in one line."""
    cache.put(A)
    path = tmp_path / "no" / "file.pem"
    result = cache("export", path)
    assert result.status == 1
    assert result.err == f"mitmproxy-aia: cannot write {path} (No such file or directory)\n"


def test_export_to_a_full_disk(cache: CacheCli) -> None:
    """By way of stdout: one line on stderr, and not a success."""
    cache.put(A)
    command = f"exec {' '.join(COMMAND)} cache export --cache {cache.path} - >/dev/full"
    result = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=SOURCE_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (
        1,
        "mitmproxy-aia: cannot write the output (No space left on device)\n",
    )


# --- which cache


def test_path(cache: CacheCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the file, in full; by default mitmproxy's; a URL without its password."""
    assert cache("path").out == f"{cache.path}\n"
    assert cache.on("redis://me:secret@127.0.0.1:6379/3", "path").out == (
        "redis://127.0.0.1:6379/3\n"
    )
    assert cache.on("", "path", "--confdir", tmp_path).out == f"{tmp_path / 'aia.sqlite3'}\n"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.on("", "path").out == f"{tmp_path / '.mitmproxy' / 'aia.sqlite3'}\n"


def test_configured_cache(cache: CacheCli, tmp_path: Path) -> None:
    """What mitmproxy's own configuration says is meant, unless --cache says otherwise."""

    def path() -> str:
        return cache.on("", "path", "--confdir", tmp_path).out.strip()

    config = tmp_path / "config.yaml"
    config.write_text("# aia_cache: commented.sqlite3\nanticache: true\n")
    assert path() == str(tmp_path / "aia.sqlite3")
    config.write_text(f"anticache: true\naia_cache: {tmp_path}/mine.sqlite3\n")
    assert path() == f"{tmp_path}/mine.sqlite3"
    assert cache("path", "--confdir", tmp_path).out == f"{cache.path}\n"
    config.write_text("aia_cache: redis://me:secret@127.0.0.1:6379/3\n")
    assert path() == "redis://127.0.0.1:6379/3"
    (tmp_path / "config.yml").write_text("aia_cache: ~/later.sqlite3\n")
    assert path() == str(Path("~/later.sqlite3").expanduser())
    (tmp_path / "config.yml").write_text("aia_cache:\n")
    assert path() == "redis://127.0.0.1:6379/3"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"aia_cache: ftp://host/", "aia_cache in {}: takes the path of a file"),
        (b"aia_cache: memory", "aia_cache in {}: what a proxy has in memory cannot be seen"),
        (b"aia_cache: [a]", "{}: aia_cache is not a text"),
        (b"a: 1\naia_cache: [", "{}, line 2: it is not YAML (with --cache it is not"),
        (b"aia_cache: \xff", "{} cannot be read: it is not UTF-8"),
        (b"aia_cache: \x01", "{}: it is not YAML"),
        (None, "{} cannot be read: Is a directory"),
    ],
)
def test_bad_configuration(
    cache: CacheCli, tmp_path: Path, content: bytes | None, error: str
) -> None:
    """The file is named, and what is wrong in it; --cache does without it."""
    config = tmp_path / "config.yaml"
    if content is None:
        config.mkdir()
    else:
        config.write_bytes(content)
    result = cache.on("", "list", "--confdir", tmp_path)
    assert result.status == 1
    assert result.err.startswith(f"mitmproxy-aia: {error.format(config)}"), result.err
    assert cache("path", "--confdir", tmp_path).status == 0


def test_configuration_of_a_text(cache: CacheCli, tmp_path: Path) -> None:
    """What mitmproxy would not start with is not more than nothing."""
    (tmp_path / "config.yaml").write_text("aia_cache")
    assert cache.on("", "path", "--confdir", tmp_path).out == f"{tmp_path / 'aia.sqlite3'}\n"


def test_the_proxy_means_the_same_cache(cache: CacheCli, root: Issued, tmp_path: Path) -> None:
    """mitmdump and the command, with nothing but a config.yaml between them."""
    (tmp_path / "config.yaml").write_text(f"aia_cache: {tmp_path}/mine.sqlite3\n")
    issuer = root.issue("Configured", ca=True)
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], confdir=tmp_path) as proxy,
        TlsServer(issuer.issue(aia=[ca.serve("/int", issuer.der)])) as server,
    ):
        assert curl(server.url(), proxy=proxy).status == 200
    listed = cache.on("", "list", "--confdir", tmp_path)
    assert "CN=Configured" in listed.out


def test_where_the_options_stand(cache: CacheCli, tmp_path: Path) -> None:
    """Before the command or after it; the later one counts."""
    assert cache("path", "--cache", tmp_path / "b").out == f"{tmp_path / 'b'}\n"


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("memory", "--cache: what a proxy has in memory cannot be seen from outside"),
        ("ftp://host/", "--cache: takes the path of a file"),
        ("redis://:secret@host:port/", "--cache: "),
        ("~nobody-of-that-name/x", "--cache: "),
        ("/dev/null", "/dev/null is not a file"),
    ],
)
def test_caches_that_are_none(cache: CacheCli, where: str, error: str) -> None:
    """Named in one line, without passwords."""
    result = cache.on(where, "list")
    assert (result.out, result.status) == ("", 1)
    assert result.err.startswith(f"mitmproxy-aia: {error}")
    assert result.err.count("\n") == 1
    assert "secret" not in result.err


COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["show", "x"],
    ["remove", "x"],
    ["prune"],
    ["export", "-"],
]


@pytest.mark.parametrize("arguments", [*COMMANDS, ["clear", "--yes"], ["add", "."]])
@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + bytes(2000)])
def test_a_file_that_is_no_cache(
    cache: CacheCli,
    arguments: list[str],
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Foreign or damaged: named in one line, and left as it is."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.pem").write_bytes(A.pem)
    monkeypatch.chdir(folder)
    cache.path.write_bytes(content)
    result = cache(*arguments)
    assert result.status == 1
    assert result.err.startswith(f"mitmproxy-aia: {cache.path} is ")
    assert result.err.count("\n") == 1
    assert cache.path.read_bytes() == content


def test_a_locked_file(cache: CacheCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Can be read; what would write says that it is locked."""
    impatient = functools.partial(open_to_write, patience=0.05)
    monkeypatch.setattr(sqlite_cache, "open_to_write", impatient)
    cache.put(A)
    with contextlib.closing(sqlite3.connect(cache.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = cache("clear", "--yes")
        assert result.status == 1
        assert result.err == f"mitmproxy-aia: {cache.path} is locked by another process\n"
        assert cache("list").status == 0


def test_redis(cache: CacheCli, tmp_path: Path) -> None:
    """All of it works there, too; when it is down, one line says so, without the password."""
    path = tmp_path / "a.pem"
    path.write_bytes(pem_bundle(A, B))
    with RedisServer(password="secret") as server:
        on = functools.partial(cache.on, server.url)
        assert on("add", path).out.endswith("2 certificates read, 2 new\n")
        assert [each["sha256"] for each in json.loads(on("list", "--json").out)] == [
            fingerprint(A),
            fingerprint(B),
        ]
        assert on("show", "Lab A").status == 0
        assert on("remove", "Lab A").status == 0
        assert on("prune").out.startswith("0 expired certificates removed from redis://127.0.0.1")
        assert on("export", tmp_path / "b.pem").status == 0
        assert on("clear", "--yes").out.startswith("1 certificate removed")
        assert on("list").err == f"mitmproxy-aia: redis://127.0.0.1:{server.port}/0 is empty\n"
        server.stop()
        result = on("list")
    assert result.status == 1
    assert result.err.startswith("mitmproxy-aia: the cache redis://127.0.0.1")
    assert result.err.count("\n") == 1
    assert "secret" not in result.err


def test_odd_names_make_no_warnings(cache: CacheCli) -> None:
    """Those of `cryptography` are about what the user can not mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "Germany", _validate=False)])
        cache.put(ROOT.issue(name, ca=True))
    for arguments in (["list"], ["show", "Germany"], ["export", "-"]):
        result = cache(*arguments)
        assert (result.status, result.err) == (0, ""), arguments
        assert "C=Germany" in result.out


def test_moments_long_ago() -> None:
    """Have a year of four digits, too."""
    moment = datetime.datetime(800, 12, 25, tzinfo=datetime.UTC)
    assert times.iso(moment) == "0800-12-25T00:00:00Z"


def test_a_subject_is_found_in_any_case() -> None:
    """Names in other scripts, too."""
    issued: Issued = ROOT.issue("Lab ÄÖÜ", ca=True)
    entry = Entry(Certificate.from_der(issued.der), URL, NOW, NOW)
    assert choosing.choose([entry], ["äöü"])[0].entries == [entry]
