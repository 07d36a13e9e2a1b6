"""Bundles: what is exported is deterministic, safe to read by anybody, and comes back."""

import contextlib
import datetime
import errno
import os
import random
import resource
import signal
import stat
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmproxy_aia.bundle import MAX_COMMENT, pem_blocks, read_bundle, save, write_bundle
from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources.files import FilesSource
from tests.lab import Issued, authority, pkcs7_ber, pkcs7_ber_pem
from tests.lab.process import find_program

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
ROOT = authority("Lab Root")
A, B = (ROOT.issue(name, ca=True, valid=(NOW, UNTIL)) for name in "AB")
FAKE = "-----BEGIN CERTIFICATE-----"


def entry(issued: Issued, origin: str = "http://ca.example/a.cer", day: int = 0) -> Entry:
    used = NOW + datetime.timedelta(days=day)
    return Entry(Certificate.from_der(issued.der), origin, used, used)


def text_of(*entries: Entry) -> str:
    return "".join(write_bundle(entries))


def openssl(path: Path) -> tuple[int, int]:
    """How many certificates two of OpenSSL's readers see in a file."""
    shown = [
        subprocess.run(
            [find_program("openssl"), *arguments], capture_output=True, check=True, timeout=20
        )
        for arguments in (
            ["storeutl", "-certs", "-noout", os.fspath(path)],
            ["crl2pkcs7", "-nocrl", "-certfile", os.fspath(path)],
        )
    ]
    total = shown[0].stdout.split(b"Total found:")[1]
    return int(total), len(read_certificates(shown[1].stdout))


def test_a_bundle() -> None:
    """Comments above each block; nothing in it depends on when it was written."""
    name = x509.Name.from_rfc4514_string("CN=Intermediate\\, Two,O=Lab,C=XX")
    issuer = ROOT.issue(name, ca=True, valid=(NOW, UNTIL))
    assert text_of(entry(issuer)) == (
        "# Intermediate certificates, exported by mitmproxy-aia.\n"
        "# They are proposals and not trusted: every path is verified up to a trust anchor.\n"
        "\n"
        "# subject:  CN=Intermediate\\, Two,O=Lab,C=XX\n"
        "# issuer:   CN=Lab Root\n"
        "# source:   http://ca.example/a.cer\n"
        "# notAfter: 2031-02-03 04:05:06 UTC\n" + issuer.pem.decode()
    )
    assert text_of(entry(issuer, day=0)) == text_of(entry(issuer, day=100))


def test_sorted_by_subject_then_end() -> None:
    """In whatever order the entries come; twins in time by their fingerprints."""
    early = datetime.timedelta(days=400)
    twins = [ROOT.issue("A", ca=True, valid=(NOW, UNTIL)) for _ in range(4)]
    before = ROOT.issue("A", ca=True, valid=(NOW, UNTIL - early))
    twins.sort(key=lambda issued: Certificate(issued.der).fingerprint)
    expected = [before, *twins, B]
    shuffled = [entry(issued) for issued in expected]
    random.Random(4).shuffle(shuffled)  # noqa: S311
    text = text_of(*shuffled)
    assert [c.der for c in read_certificates(text.encode())] == [each.der for each in expected]
    assert text == text_of(*reversed(shuffled))


def test_written_once() -> None:
    """One certificate that came from two places: with the first of these, always."""
    both = [entry(A, "http://b/"), entry(A, "http://a/")]
    assert text_of(*both) == text_of(*reversed(both)) == text_of(entry(A, "http://a/"))


def test_an_empty_bundle() -> None:
    """Is only its header, and says so when it is read."""
    text = text_of()
    assert text.count("\n") == 2
    with pytest.raises(ValueError, match=r"^is not a certificate"):
        read_bundle(text.encode())


def test_nameless() -> None:
    """A certificate without a subject, from nowhere: no line ends with a blank."""
    nameless = ROOT.issue(x509.Name([]), ca=True)
    text = text_of(entry(nameless, origin=""))
    assert "# subject:  (empty name)\n" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert read_bundle(text.encode()) == [(Certificate.from_der(nameless.der), None)]


@pytest.mark.parametrize(
    "origin", ["http://ca.example/i?x=1&y=%20#z", "some folder/x.crt", "[::1]:443", "Ünïcödé"]
)
def test_there_and_back(origin: str) -> None:
    """The source of each is recovered."""
    text = text_of(entry(A, origin), entry(B, "other"))
    assert read_bundle(text.encode()) == [
        (Certificate.from_der(A.der), origin),
        (Certificate.from_der(B.der), "other"),
    ]
    windows = text.replace("\n", "\r\n").encode()
    assert read_bundle(windows) == read_bundle(text.encode())


def test_source_on_this_machine() -> None:
    """A bundle is given to others: where its maker has the file is of no use to them."""
    text = text_of(entry(A, os.path.abspath(os.path.join("home", "me", "x y.crt"))))
    assert "\n# source:   x y.crt\n" in text
    assert os.getcwd() not in text


def test_read_back_as_aia_intermediates(tmp_path: Path) -> None:
    """The option takes what was exported, and so does OpenSSL."""
    path = tmp_path / "intermediates.pem"
    save(path, write_bundle([entry(A), entry(B)]))
    assert [each.der for each in FilesSource([path]).certificates()] == [A.der, B.der]
    assert openssl(path) == (2, 2)


@pytest.mark.parametrize(
    "name",
    [
        f"x\n{FAKE}",
        f"x\r{FAKE}\r\nAAAA",
        f"\u2028{FAKE}\x85\x0b\x0c{FAKE}",
        FAKE,
        # OpenSSL reads 254 characters at a time: the next piece would look like a new line.
        *("x" * (254 - len("# subject:  O=") + shift) + FAKE for shift in (-1, 0, 1)),
        "-" * 64,
        "x\n# source:   http://evil.example/",
        "-----END CERTIFICATE-----",
    ],
)
def test_names_cannot_fake_anything(tmp_path: Path, name: str) -> None:
    """Neither a block, nor its end, nor a comment; for no reader."""
    organization = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    hostile = ROOT.issue(organization, ca=True)
    path = tmp_path / "bundle.pem"
    save(path, write_bundle([entry(hostile, name), entry(A), entry(B)]))
    data = path.read_bytes()
    assert data.count(b"-----BEGIN ") == data.count(b"-----END ") == 3
    assert len(data.splitlines()) == len(data.split(b"\n")) - 1
    assert openssl(path) == (3, 3)
    sources = {certificate.der: source for certificate, source in read_bundle(data)}
    assert len(sources) == 3
    assert sources[A.der] == sources[B.der] == "http://ca.example/a.cer"


letters = st.characters() | st.sampled_from("-\n\r# \\") | st.sampled_from(string.ascii_letters)
strange = st.lists(
    st.text(letters, max_size=20)
    | st.sampled_from([FAKE, "-----END CERTIFICATE-----", "\n# source: ", "-" * 7]),
    max_size=6,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(strange)
def test_any_source_stays_in_its_line(source: str) -> None:
    """It comes back as it was written, and writing that again changes nothing."""
    text = text_of(entry(A, source), entry(B, "other"))
    assert text.count("-----BEGIN ") == 2
    assert len(text.splitlines()) == len(text_of(entry(A), entry(B)).splitlines())
    (a, once), (b, other) = read_bundle(text.encode())
    assert (a.der, b.der, other) == (A.der, B.der, "other")
    assert text_of(entry(A, once or ""), entry(B, "other")) == text
    if source.isprintable():
        plain = [each.replace(r"\x2d", "-") for each in (once or "", source.strip())]
        assert plain[0] == plain[1]
    if source.isprintable() and "-----" not in source:
        assert (once or "") == source.strip()


def test_a_long_source_is_cut() -> None:
    """At a length that no reader minds."""
    ((_, source),) = read_bundle(text_of(entry(A, "x" * 10_000)).encode())
    assert source == "x" * (MAX_COMMENT - 1) + "…"


def test_read_anything() -> None:
    """Other forms, without sources; twice is once; PKCS#7 gives its source to all."""
    a, b = Certificate.from_der(A.der), Certificate.from_der(B.der)
    assert read_bundle(A.der) == [(a, None)]
    assert read_bundle(pkcs7_ber(A, B)) == [(a, None), (b, None)]
    assert read_bundle(A.pem + b"# source: x\n" + A.pem + B.pem) == [(a, None), (b, None)]
    assert read_bundle(b"# source: x\n#source: y\n" + pkcs7_ber_pem(A, B)) == [(a, "x"), (b, "x")]
    assert read_bundle(b"#\n# source: \xff\n# source:y  \n" + A.pem) == [(a, "y")]


def test_damaged_blocks_are_passed_over() -> None:
    """As long as one is good; a source is not taken from inside a block or for another."""
    bad = A.pem.replace(b"M", b"!", 1)
    data = b"# source: x\n" + bad + b"# source: y\n" + A.pem[:90] + b"\n# source: z\n" + B.pem
    assert read_bundle(data) == [(Certificate.from_der(B.der), None)]
    for nothing in (bad, A.key_pem, b"junk", b""):
        with pytest.raises(ValueError, match=r"^(has|is) "):
            read_bundle(nothing)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_blocks_know_their_lines(newline: str) -> None:
    """Counted as editors count."""
    pem = A.pem.decode()
    text = f"# one\n\n{pem}text\n{pem[:100]}\n{pem}".replace("\n", newline)
    height = pem.count("\n")
    blocks = list(pem_blocks(text.encode()))
    assert [block.line for block in blocks] == [3, 4 + height, 5 + height + pem[:100].count("\n")]
    with pytest.raises(ValueError, match=r"^has a PEM block without an end$"):
        blocks[1].certificates()


def test_save_makes_a_new_file(tmp_path: Path) -> None:
    """With the permissions that any program gives, and nothing left beside it."""
    ordinary, path = tmp_path / "ordinary", tmp_path / "bundle.pem"
    ordinary.touch()
    save(path, ["ä", "\n"])
    assert path.read_bytes() == "ä\n".encode()
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, ordinary]


def test_save_replaces_a_file(tmp_path: Path) -> None:
    """Whoever is reading the old one reads on; its permissions and links to it stay."""
    path, link = tmp_path / "bundle.pem", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o604)
    link.symlink_to(path.name)
    with path.open() as reader:
        save(link, ["new"])
        assert reader.read() == "old"
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """No file can become longer than a hundred bytes; not even the one that pytest's own
    output may go to, which is why this is no fixture."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    """Untouched, nothing beside it, and an error that names it."""
    path = tmp_path / "bundle.pem"
    path.write_text("old")
    with small_disk(), pytest.raises(OSError, match="cannot write") as failure:
        save(path, ["new" * 1000])
    assert str(failure.value) == f"cannot write {path} ({os.strerror(errno.EFBIG)})"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cache_that_fails_while_it_is_saved(tmp_path: Path) -> None:
    """Its own error is what is raised."""

    def entries() -> Iterator[Entry]:
        yield entry(A)
        raise CacheError("the cache is gone")

    with pytest.raises(CacheError, match=r"^the cache is gone$"):
        save(tmp_path / "bundle.pem", write_bundle(entries()))
    assert list(tmp_path.iterdir()) == []


def test_save_where_it_cannot(tmp_path: Path) -> None:
    """A folder that does not exist, a folder in its place, and what is no file at all."""
    pipe, path = tmp_path / "pipe", tmp_path / "nowhere" / "x\n.pem"
    os.mkfifo(pipe)
    for target, reason in (
        (path, rf"^cannot write {tmp_path}/nowhere/x\\n.pem \(No such file or directory\)$"),
        (tmp_path, rf"^cannot write {tmp_path} \(not a regular file\)$"),
        (pipe, rf"^cannot write {pipe} \(not a regular file\)$"),
        (Path(os.devnull), rf"^cannot write {os.devnull} \(not a regular file\)$"),
    ):
        with pytest.raises(OSError, match=reason):
            save(target, ["x"])
    assert list(tmp_path.iterdir()) == [pipe]
