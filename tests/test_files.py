"""Issuers from files: every form, whatever is wrong with a file, and files that change."""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources import Attempt, Budget, Found, files
from mitmproxy_aia.sources.files import FilesSource
from tests.lab import Issued, authority, pem_bundle, pkcs7_ber, pkcs7_der, pkcs7_pem

ROOT = authority("Lab Root")
A, B, C = (ROOT.issue(name, ca=True) for name in "ABC")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.fixture
def closed_to_us(tmp_path: Path) -> Iterator[Path]:
    """A file that exists, in a folder that may be listed, and that we may not read."""
    path = tmp_path / "open" / "closed.pem"
    path.parent.mkdir()
    path.write_bytes(A.pem)
    path.chmod(0)
    privileged = os.geteuid() == 0
    opened = [tmp_path, *tmp_path.parents] if privileged else []
    modes = {each: each.stat().st_mode for each in opened}
    for each in opened:
        each.chmod(modes[each] | 0o755)
    if privileged:
        os.seteuid(NOBODY)
    try:
        yield path
    finally:
        if privileged:
            os.seteuid(0)
        for each, mode in modes.items():
            each.chmod(mode)
        path.chmod(0o600)


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def names(source: FilesSource) -> list[str]:
    return [each.name.removeprefix("CN=") for each in source.certificates()]


def known(source: FilesSource, issuer: Issued) -> list[Found]:
    return list(source.known_issuers(certificate(issuer.issue())))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of since the last time this was asked."""
    texts = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    caplog.clear()
    return texts


def run(test: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test

    asyncio.run(bounded())


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError


async def fetch(source: FilesSource, issuer: Issued = A, *, seconds: float = 20.0) -> list[Attempt]:
    budget = Budget(time.monotonic() + seconds, 10)
    leaf = certificate(issuer.issue())
    return [attempt async for attempt in source.fetch_issuers(leaf, budget)]


def replace(path: Path, data: bytes) -> None:
    """As a careful program writes: another file takes its place."""
    new = path.with_name(".new")
    new.write_bytes(data)
    new.replace(path)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (A.der, ["A"]),
        (A.pem, ["A"]),
        (pem_bundle(A, B), ["A", "B"]),
        (pkcs7_der(A), ["A"]),
        (pkcs7_ber(A, B), ["A", "B"]),
        (pkcs7_pem(A), ["A"]),
    ],
    ids=["der", "pem", "bundle", "p7-der", "p7-ber", "p7-pem"],
)
@pytest.mark.parametrize("name", ["x.crt", "x.pem", "x"])
def test_content_decides(tmp_path: Path, data: bytes, found: list[str], name: str) -> None:
    """Every form is read, whatever the suffix."""
    path = tmp_path / name
    path.write_bytes(data)
    source = FilesSource([path])
    assert names(source) == found
    assert len(source) == len(found)
    assert known(source, A) == [Found(certificate(A), str(path), at_hand=True)]
    assert known(source, C) == []


def test_a_found_issuer_says_in_which_file(tmp_path: Path) -> None:
    """And that no cache need remember it; a name cannot break a log line."""
    path = tmp_path / "a\nb.pem"
    path.write_bytes(A.pem)
    (found,) = known(FilesSource([path]), A)
    assert found.at_hand
    assert found.place == f"in {tmp_path}/a\\nb.pem"


def test_an_expired_issuer_is_not_offered(tmp_path: Path) -> None:
    """Its twin is."""
    old = ROOT.issue("A", ca=True, expired=True)
    path = tmp_path / "twins.pem"
    path.write_bytes(pem_bundle(old, A))
    source = FilesSource([path])
    assert len(source) == 2
    assert [found.certificate for found in known(source, A)] == [certificate(A)]


def test_a_folder_is_the_files_in_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And links to files; not hidden ones, and not what lies deeper."""
    (folder / "b.der").write_bytes(B.der)
    (folder / ".hidden").write_bytes(C.pem)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "c.pem").write_bytes(C.pem)
    (folder / "link-to-folder").symlink_to(folder / "deeper")
    target = folder.parent / "a.p7c"
    target.write_bytes(pkcs7_der(A))
    (folder / "link").symlink_to(target)
    assert names(FilesSource([folder])) == ["B", "A"]
    assert warnings(caplog) == []


def test_a_certificate_is_offered_once(folder: Path) -> None:
    """From the file that was named first."""
    for name in "12":
        (folder / name).write_bytes(pem_bundle(A, A))
    assert [found.origin for found in known(FilesSource([folder / "2", folder]), A)] == [
        str(folder / "2")
    ]


def test_no_paths() -> None:
    """Nothing is known, and nothing is looked for."""
    source = FilesSource([])
    assert (len(source), known(source, A)) == (0, [])
    run(_nothing_new(source))


async def _nothing_new(source: FilesSource) -> None:
    assert await fetch(source) == []


def test_each_bad_file_is_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its name and what is wrong; the good one beside them counts."""
    (folder / "good").write_bytes(A.pem)
    (folder / "empty").touch()
    (folder / "page.html").write_bytes(b"<html>")
    (folder / "cut.der").write_bytes(A.der[:-1])
    (folder / "key.pem").write_bytes(A.key_pem)
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    with (folder / "huge").open("wb") as huge:
        huge.truncate(files.MAX_BYTES + 1)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(folder / "socket"))
        source = FilesSource([folder, Path(os.devnull)])
    assert names(source) == ["A"]
    texts = warnings(caplog)
    assert len(texts) == 10
    for name, reason in {
        "empty": "is empty; skipped",
        "page.html": "is not a certificate (neither DER, PEM nor PKCS#7); skipped",
        "cut.der": "is a damaged certificate",
        "key.pem": "has PEM blocks, but none with a certificate; skipped",
        "dangling": "cannot be read (No such file or directory); skipped",
        "loop": "cannot be read (Too many levels of symbolic links); skipped",
        "pipe": "is not a regular file; skipped",
        "huge": "is larger than 256 MiB; skipped",
        "socket": "is not a regular file; skipped",
    }.items():
        assert [
            text
            for text in texts
            if text.startswith(f"aia_intermediates: {folder / name} {reason}")
        ], name
    assert f"aia_intermediates: {os.devnull} is not a regular file; skipped" in texts


def test_a_pipe_that_takes_the_place_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hang, even if it does so between the look at it and its opening."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    regular = tmp_path / "regular"
    regular.touch()
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda name: real(regular if name == path else name))
    assert len(FilesSource([path])) == 0


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    """Refused in one sentence that names the option and the path."""
    path = tmp_path / "nowhere"
    with pytest.raises(OSError, match=rf"^aia_intermediates: {path} cannot be read \(No such"):
        FilesSource([tmp_path, path])


def test_a_path_that_may_not_be_read(closed_to_us: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused if it was named itself, and skipped with a warning inside a folder."""
    denied = f"aia_intermediates: {closed_to_us} cannot be read (Permission denied)"
    with pytest.raises(OSError, match="denied") as refusal:
        FilesSource([closed_to_us])
    assert str(refusal.value) == denied
    assert warnings(caplog) == []
    assert len(FilesSource([closed_to_us.parent])) == 0
    assert warnings(caplog) == [f"{denied}; skipped"]


def test_a_new_file_helps_the_next_connection(folder: Path) -> None:
    """What is waited for brings it, and from then on it is known."""

    async def test() -> None:
        source = FilesSource([folder])
        assert known(source, A) == []
        assert await fetch(source) == []
        path = folder / "a.crt"
        path.write_bytes(A.der)
        (attempt,) = await fetch(source)
        assert str(attempt) == f"{path} gave CN=A"
        assert attempt.found == (Found(certificate(A), str(path), at_hand=True),)
        assert attempt.seconds > 0
        assert known(source, A) == list(attempt.found)

    run(test())


def test_nothing_new_is_no_attempt(folder: Path) -> None:
    """Neither what was there from the start, nor another authority's certificate, nor what
    has been there for a while, also in a file that has grown."""

    async def test() -> None:
        path = folder / "a.pem"
        path.write_bytes(A.pem)
        source = FilesSource([path])
        assert await fetch(source) == []
        path.write_bytes(pem_bundle(A, B))
        assert await fetch(source) == []
        assert len(source) == 2
        assert len(await fetch(source, B)) == 1

    run(test())


def test_news_do_not_stay_news(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that came long ago was known when the completion began."""
    monkeypatch.setattr(files, "NEWS", 0.0)

    async def test() -> None:
        source = FilesSource([folder])
        (folder / "a.pem").write_bytes(A.pem)
        assert len(await fetch(source)) == 1
        assert await fetch(source) == []

    run(test())


def test_news_of_a_check_that_somebody_else_has_made(folder: Path) -> None:
    """A completion that asked what is known before that check is told of them."""

    async def test() -> None:
        source = FilesSource([folder])
        assert known(source, A) == []
        (folder / "a.pem").write_bytes(A.pem)
        await fetch(source, B)
        assert len(await fetch(source)) == 1

    run(test())


def test_many_files_are_named_in_short(folder: Path) -> None:
    """Three of them, and how many more."""

    async def test() -> None:
        source = FilesSource([folder])
        for number in range(5):
            (folder / f"{number}.pem").write_bytes(ROOT.issue("Twin", ca=True).pem)
        (attempt,) = await fetch(source, ROOT.issue("Twin", ca=True))
        assert len(attempt.found) == 5
        assert attempt.where.endswith(f"{folder}/2.pem and 2 more")
        assert attempt.outcome == "gave CN=Twin, CN=Twin, CN=Twin and 2 more"

    run(test())


@pytest.mark.parametrize("way", ["written", "replaced"])
def test_a_file_that_changes_is_read_again(folder: Path, way: str) -> None:
    """However it changes, what it held before is not offered any more."""

    async def test() -> None:
        path = folder / "x.der"
        path.write_bytes(A.der)
        source = FilesSource([folder])
        (replace if way == "replaced" else Path.write_bytes)(path, B.der)
        assert len(await fetch(source, B)) == 1
        assert names(source) == ["B"]
        assert known(source, A) == []

    run(test())


@pytest.mark.parametrize("soon", [True, False])
def test_a_change_that_hides(folder: Path, monkeypatch: pytest.MonkeyPatch, soon: bool) -> None:
    """Same size and same time of modification: told by the other times, or, where it comes so
    soon that these may be the same too, by reading the file again."""
    other = next(each for each in _many_b() if len(each.der) == len(A.der))
    ticks = ("st_mtime_ns", "st_size", "st_dev", "st_ino")
    if soon:
        monkeypatch.setattr(files, "_stamp", lambda status: [getattr(status, x) for x in ticks])
    else:
        monkeypatch.setattr(files, "_SETTLED_NS", 0)

    async def test() -> None:
        path = folder / "x.der"
        path.write_bytes(A.der)
        before = path.stat()
        source = FilesSource([folder])
        while path.stat().st_ctime_ns == before.st_ctime_ns:
            path.write_bytes(other.der)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert [getattr(path.stat(), x) for x in ticks] == [getattr(before, x) for x in ticks]
        assert len(await fetch(source, other)) == 1
        assert names(source) == ["B"]

    run(test())


def _many_b() -> Iterator[Issued]:
    for _ in range(1000):
        yield ROOT.issue("B", ca=True)


def test_an_old_file_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one so young that its times may not show the next change. A look is enough."""
    reads: list[str] = []
    really_read = read_certificates

    def read(data: bytes) -> tuple[Certificate, ...]:
        reads.append("parsed")
        return really_read(data)

    def opened(path: str, flags: int) -> int:
        reads.append("opened")
        return os.open(path, flags)

    monkeypatch.setattr(files, "read_certificates", read)
    monkeypatch.setattr(files, "_open_without_waiting", opened)

    async def test() -> None:
        (folder / "a.pem").write_bytes(A.pem)
        source = FilesSource([folder])
        assert reads == ["opened", "parsed"]
        await fetch(source)
        assert reads == ["opened", "parsed", "opened"]
        monkeypatch.setattr(files, "_SETTLED_NS", 0)
        await fetch(source)
        assert len(reads) == 4
        await fetch(source)
        assert len(reads) == 4

    run(test())


def test_a_file_in_a_folder_that_goes_away(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its certificates are dropped with one warning; it is read when it is back. One without
    certificates goes unnoticed."""

    async def test() -> None:
        path, junk = folder / "a.pem", folder / "junk"
        path.write_bytes(A.pem)
        junk.touch()
        source = FilesSource([folder])
        assert len(warnings(caplog)) == 1
        path.unlink()
        junk.unlink()
        for expected in ([f"aia_intermediates: {path} is gone"], []):
            assert await fetch(source) == []
            assert warnings(caplog) == expected
            assert (len(source), known(source, A)) == (0, [])
        path.write_bytes(A.pem)
        assert len(await fetch(source)) == 1

    run(test())


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_named_path_that_goes_away(
    folder: Path, caplog: pytest.LogCaptureFixture, named: str
) -> None:
    """One warning that names it, and not each file in it; it is read when it is back."""

    async def test() -> None:
        paths = [folder / "a.pem", folder / "b.pem"]
        for path, issued in zip(paths, (A, B), strict=True):
            path.write_bytes(issued.pem)
        path = folder if named == "folder" else paths[0]
        source = FilesSource([path])
        path.rename(folder.parent / "elsewhere")
        gone = f"aia_intermediates: {path} cannot be read (No such file or directory); skipped"
        for expected in ([gone], []):
            assert await fetch(source) == []
            assert warnings(caplog) == expected
            assert len(source) == 0
        (folder.parent / "elsewhere").rename(path)
        assert len(await fetch(source)) == 1
        assert warnings(caplog) == []

    run(test())


def test_a_bad_file_is_named_again_when_it_has_changed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when it was only touched, and not when it is mended."""

    async def test() -> None:
        path = folder / "x.pem"
        path.write_bytes(b"junk")
        source = FilesSource([folder])
        assert len(warnings(caplog)) == 1
        for change, expected in (
            (lambda: None, 0),
            (lambda: os.utime(path, (1, 1)), 0),
            (lambda: replace(path, b"junk"), 0),
            (lambda: replace(path, b"more"), 1),
            (lambda: path.write_bytes(A.pem), 0),
            (lambda: path.write_bytes(b"junk"), 1),
        ):
            change()
            await fetch(source)
            assert len(warnings(caplog)) == expected

    run(test())


def test_a_file_that_is_being_written(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts for what is complete in it, and in the end for all of it."""

    async def test() -> None:
        path = folder / "bundle.pem"
        path.write_bytes(pem_bundle(A, B))
        source = FilesSource([path])
        for data, found, warned in (
            (b"", [], 1),
            (A.pem[:100], [], 1),
            (A.pem + B.pem[:100], ["A"], 0),
            (A.pem + B.pem, ["A", "B"], 0),
        ):
            path.write_bytes(data)
            await fetch(source)
            assert names(source) == found
            assert len(warnings(caplog)) == warned

    run(test())


def test_a_change_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In one line, and nothing is said when nothing has changed."""
    caplog.set_level(logging.INFO)

    async def test() -> None:
        source = FilesSource([folder])
        (folder / "a.pem").write_bytes(pem_bundle(A, B))
        await fetch(source)
        await fetch(source)
        assert caplog.messages == ["aia_intermediates changed: 2 certificates"]

    run(test())


def test_what_is_gone_is_noticed_by_lookups_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup starts a check if the last one was long ago, and does not wait for it."""

    async def test() -> None:
        path = folder / "a.pem"
        path.write_bytes(A.pem)
        source = FilesSource([folder])
        path.unlink()
        monkeypatch.setattr(files, "CHECK_EVERY", 3600.0)
        known(source, A)
        assert len(asyncio.all_tasks()) == 1
        monkeypatch.setattr(files, "CHECK_EVERY", 0.0)
        assert len(known(source, A)) == 1
        await until(lambda: not known(source, A))

    run(test())


def test_a_lookup_outside_an_event_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives what is known."""
    monkeypatch.setattr(files, "CHECK_EVERY", 0.0)
    (folder / "a.pem").write_bytes(A.pem)
    assert len(known(FilesSource([folder]), A)) == 1


class Gate:
    """Holds up every check of the files until it is opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.checks = 0
        self._really_read = files._read_all
        monkeypatch.setattr(files, "_read_all", self._read_all)

    def _read_all(self, paths: list[Path], before: files._Shelf, *, came: float) -> files._Shelf:
        self.checks += 1
        shelf = self._really_read(paths, before, came=came)
        self.open.wait(10)
        return shelf


def test_all_who_ask_at_once_share_a_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that had passed by the new file already."""

    async def test() -> None:
        source = FilesSource([folder])
        gate = Gate(monkeypatch)
        first = asyncio.create_task(fetch(source))
        await until(lambda: gate.checks == 1)
        (folder / "a.pem").write_bytes(A.pem)
        others = [asyncio.create_task(fetch(source)) for _ in range(20)]
        await asyncio.sleep(0)
        gate.open.set()
        assert len(await first) <= 1
        assert [len(attempts) for attempts in await asyncio.gather(*others)] == [1] * 20
        assert gate.checks == 2

    run(test())


@pytest.mark.parametrize("limit", ["patience", "deadline"])
def test_files_that_hang_are_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """The completion goes on without them and the event loop is never held up; what they give
    later is for the next one."""

    async def test() -> None:
        source = FilesSource([folder])
        gate = Gate(monkeypatch)
        (folder / "a.pem").write_bytes(A.pem)
        if limit == "patience":
            monkeypatch.setattr(files, "PATIENCE", 0.05)
            assert await fetch(source) == []
        else:
            monkeypatch.setattr(files, "PATIENCE", 3600.0)
            assert await fetch(source, seconds=0.05) == []
            assert await fetch(source, seconds=-1) == []
        assert gate.checks == 1
        gate.open.set()
        monkeypatch.undo()
        assert len(await fetch(source)) == 1

    run(test())


def test_who_gives_up_takes_nothing_from_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that they share goes on."""

    async def test() -> None:
        source = FilesSource([folder])
        gate = Gate(monkeypatch)
        (folder / "a.pem").write_bytes(A.pem)
        patient = asyncio.create_task(fetch(source))
        await until(lambda: gate.checks == 1)
        assert await fetch(source, seconds=0.05) == []
        gate.open.set()
        assert len(await patient) == 1

    monkeypatch.setattr(files, "PATIENCE", 3600.0)
    run(test())


def test_no_threads_left(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was read before stays in force, and the reason is a warning."""

    async def test() -> None:
        (folder / "a.pem").write_bytes(A.pem)
        source = FilesSource([folder])
        executor = ThreadPoolExecutor()
        executor.shutdown()
        asyncio.get_running_loop().set_default_executor(executor)
        assert await fetch(source) == []
        assert len(known(source, A)) == 1
        assert [text.split(" (")[0] for text in warnings(caplog)] == [
            "aia_intermediates: not looked at"
        ]

    run(test())


def test_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for any more, and a check that is under way changes nothing."""
    monkeypatch.setattr(files, "CHECK_EVERY", 0.0)

    async def test() -> None:
        source = FilesSource([folder])
        gate = Gate(monkeypatch)
        (folder / "a.pem").write_bytes(A.pem)
        waiting = asyncio.create_task(fetch(source))
        await until(lambda: gate.checks == 1)
        source.close()
        gate.open.set()
        assert await waiting == []
        assert await fetch(source) == []
        assert known(source, A) == []
        assert gate.checks == 1

    run(test())


def test_a_second_event_loop(folder: Path) -> None:
    """One source may see several, one after the other."""
    source = FilesSource([folder])
    run(_nothing_new(source))
    (folder / "a.pem").write_bytes(A.pem)

    async def test() -> None:
        assert len(await fetch(source)) == 1

    run(test())


def test_keeping_changes_nothing(folder: Path) -> None:
    """The files are the user's."""
    source = FilesSource([folder])
    source.keep([Found(certificate(A), "http://ca.example/")])
    assert (len(source), list(folder.iterdir())) == (0, [])
