"""SQLite caches that cannot be used: one warning, nothing known, nothing broken, and back later."""

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Found, sqlite_errors, sqlite_file, sqlite_rows, sqlite_writer
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from mitmproxy_aia.sources.sqlite_errors import Damaged
from tests.lab import Issued, authority

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
ONLY_MEMORY = "new issuers are remembered in memory only"
FOREIGN = "CREATE TABLE song (title); INSERT INTO song VALUES ('a');"
NOBODY = 65534


def entry(issued: Issued) -> Entry:
    return Entry(Certificate.from_der(issued.der), "http://ca.example/", NOW, NOW)


def until(condition: Callable[[], object]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Scene:
    """A source, an issuer to look up, and the warnings so far."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.path = path
        self.cache = SqliteCache(path)
        self.source = SqliteSource(path)
        self._caplog = caplog
        self.ca = authority("CA")
        self._leaf = Certificate.from_der(self.ca.issue().der)

    @property
    def warnings(self) -> list[str]:
        records = self._caplog.records
        assert {record.levelno for record in records} <= {logging.WARNING}
        return [record.getMessage() for record in records]

    def known(self) -> int:
        return len(self.source.known_issuers(self._leaf))

    def keep(self, *issued: Issued) -> None:
        self.source.keep([Found(Certificate.from_der(each.der), "a test") for each in issued])

    def warned(self, *parts: str) -> None:
        """Waits for the one warning, which has these parts."""
        until(lambda: self.warnings)
        until(lambda: self.source._writer._suspicion is None)
        (warning,) = self.warnings
        assert all(part in warning for part in (str(self.path), *parts)), warning

    def sql(self, script: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.executescript(script)


@pytest.fixture
def scene(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    scene = Scene(tmp_path / "aia.sqlite3", caplog)
    yield scene
    scene.source.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are looked at again at once, and locks not waited for."""
    monkeypatch.setattr(sqlite_writer, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sqlite_file.open_to_write, "__kwdefaults__", {"patience": 0.01})


def spoil(path: Path, start: int = 100) -> None:
    """Overwrites all from `start` on. Everybody has closed the file."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (size - start))


@pytest.mark.parametrize("start", [16, 100, 4096])
@pytest.mark.parametrize("first", ["lookup", "keep"])
def test_a_damaged_file_is_set_aside(scene: Scene, start: int, first: str) -> None:
    """Whoever notices: its header, its schema or its rows. It is kept, and a new one begun."""
    scene.cache.add([entry(scene.ca), entry(authority("other"))])
    spoil(scene.path, start)
    damaged = scene.path.read_bytes()
    if first == "lookup":
        assert scene.known() == 0
        until(lambda: scene.warnings)
        until(lambda: not scene.source._writer.resting)
    scene.keep(scene.ca)
    until(lambda: scene.known())
    scene.warned("is damaged", "set aside as aia.sqlite3.corrupt and a new one begun")
    assert scene.path.with_name("aia.sqlite3.corrupt").read_bytes() == damaged
    assert [each.certificate.name for each in scene.cache.entries()] == ["CN=CA"]


def test_damage_while_it_is_in_use(scene: Scene) -> None:
    """What the old file had is written again when it is next kept."""
    scene.keep(scene.ca)
    until(lambda: scene.known())
    scene.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(scene.path)
    # The reader has the good pages in its memory until somebody else writes.
    scene.source._close_file()
    assert scene.known() == 0
    until(lambda: scene.warnings and not scene.source._writer.resting)
    scene.keep(scene.ca)
    until(lambda: scene.known())
    scene.warned("is damaged", "set aside")


def test_two_processes_that_notice(tmp_path: Path) -> None:
    """The second leaves alone what the first has begun."""
    path = tmp_path / "aia.sqlite3"
    SqliteCache(path).add([entry(authority())])
    identity = sqlite_errors.identity_of(path)
    path.with_name("aia.sqlite3-wal").write_bytes(b"its log")
    assert sqlite_file.set_aside(path, identity) == tmp_path / "aia.sqlite3.corrupt"
    assert sqlite_file.set_aside(path, identity) is None
    assert sqlite_file.set_aside(path, None) is None
    SqliteCache(path).add([entry(authority())])
    assert sqlite_file.set_aside(path, identity) is None
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "aia.sqlite3",
        "aia.sqlite3.corrupt",
        "aia.sqlite3.corrupt-wal",
    ]


def test_many_processes_that_notice(tmp_path: Path) -> None:
    """Of four at once one sets the file aside, and all rows of all are in the new one."""
    path = tmp_path / "aia.sqlite3"
    SqliteCache(path).add([entry(authority())])
    spoil(path)
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.scripts.sqlite_writer", str(path), "10", "source"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": "addon:."},
            cwd=Path(__file__).parent.parent,
        )
        for _ in range(4)
    ]
    outputs = [writer.communicate(timeout=60) for writer in writers]
    fingerprints = {line for output, _ in outputs for line in output.split()}
    errors = "".join(errors for _, errors in outputs)
    assert errors.count("set aside as") == 1, errors
    kept = {each.certificate.fingerprint.hex() for each in SqliteCache(path).entries()}
    assert len(fingerprints) == 40, errors
    assert kept == fingerprints
    # If one still had it open, the files beside it were there, and went with it.
    aside = {each.name.removesuffix("-wal").removesuffix("-shm") for each in tmp_path.iterdir()}
    assert aside == {"aia.sqlite3", "aia.sqlite3.corrupt"}


@pytest.mark.parametrize("way", ["read", "write"])
def test_replaced_while_it_is_opened(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of the new file is not taken for one of the old file: that is what SQLite does."""
    path = tmp_path / "aia.sqlite3"
    SqliteCache(path).add([entry(authority("Old"))])
    real, others = sqlite_file._connect, []

    def replaced(path: Path, parameters: str, patience: float) -> sqlite3.Connection:
        """Once SQLite has opened the file by its name, and before it has read it."""
        connection = real(path, parameters, patience)
        if parameters == "mode=rw":
            monkeypatch.setattr(sqlite_file, "_connect", real)
            sqlite_file.set_aside(path, sqlite_errors.identity_of(path))
            others.append(sqlite_file.open_to_write(path))
            others[0].add([entry(authority("New"))])
        return connection

    monkeypatch.setattr(sqlite_file, "_connect", replaced)
    opened = (sqlite_file.open_to_read if way == "read" else sqlite_file.open_to_write)(path)
    assert opened is not None
    assert opened.current
    assert [each.certificate.name for each in opened.entries()] == ["CN=New"]
    opened.close()
    others[0].close()
    assert [each.certificate.name for each in SqliteCache(path).entries()] == ["CN=New"]


@pytest.mark.parametrize("way", ["read", "write"])
def test_gone_while_it_is_opened(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set aside by another process between two looks at it: that is no fault of the new one."""
    path = tmp_path / "aia.sqlite3"
    SqliteCache(path).add([entry(authority("Old"))])
    real = sqlite_file._connect

    def gone(path: Path, parameters: str, patience: float) -> sqlite3.Connection:
        if parameters == "mode=rw":
            monkeypatch.setattr(sqlite_file, "_connect", real)
            sqlite_file.set_aside(path, sqlite_errors.identity_of(path))
        return real(path, parameters, patience)

    monkeypatch.setattr(sqlite_file, "_connect", gone)
    opened = (sqlite_file.open_to_read if way == "read" else sqlite_file.open_to_write)(path)
    assert (opened is None) is (way == "read")
    if opened:
        assert opened.current
        opened.close()


def test_replaced_while_it_is_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may find anything wrong then. What was to be written goes into the new file."""
    real = sqlite_rows.Database.add

    def add(self: sqlite_rows.Database, *arguments: Any, **options: Any) -> int:
        monkeypatch.setattr(sqlite_rows.Database, "add", real)
        sqlite_file.set_aside(scene.path, sqlite_errors.identity_of(scene.path))
        raise CacheError("disk I/O error")

    monkeypatch.setattr(sqlite_rows.Database, "add", add)
    scene.keep(scene.ca)
    until(lambda: scene.known())
    assert scene.warnings == []


@pytest.mark.parametrize("way", ["read", "write"])
def test_replaced_again_and_again(scene: Scene, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up for now, and nothing stays open."""
    scene.cache.add([entry(scene.ca)])
    monkeypatch.setattr(sqlite_rows.Database, "current", False)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(sqlite_errors.Locked, match="is being replaced by another process"):
        (sqlite_file.open_to_read if way == "read" else sqlite_file.open_to_write)(scene.path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_damaged_ones_are_numbered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is overwritten, and they do not become ever more."""
    monkeypatch.setattr(sqlite_file, "MOST_SET_ASIDE", 2)
    for name in ("aia.sqlite3.corrupt", "aia.sqlite3.corrupt-2"):
        scene.path.write_bytes(b"")
        aside = sqlite_file.set_aside(scene.path, sqlite_errors.identity_of(scene.path))
        assert aside == scene.path.with_name(name)
    scene.path.write_bytes(b"SQLite format 3\0 and no more")
    scene.keep(scene.ca)
    scene.warned("is damaged, and so were 2 before it", ONLY_MEMORY)


def test_the_command_line_leaves_a_damaged_file(scene: Scene) -> None:
    """It says so; only a proxy sets it aside."""
    scene.cache.add([entry(scene.ca)])
    spoil(scene.path)
    with pytest.raises(CacheError, match=r"aia\.sqlite3 is damaged: "):
        list(scene.cache.entries())
    with pytest.raises(CacheError, match=r"aia\.sqlite3 is damaged: "):
        scene.cache.add([])
    assert len(list(scene.path.parent.iterdir())) == 1


@pytest.mark.parametrize("first", ["lookup", "keep"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("just a text", "is not a SQLite file"),
        ("PRAGMA application_id = 7; PRAGMA journal_mode = WAL;" + FOREIGN, "another program"),
        (FOREIGN, "belongs to another program"),
        ("PRAGMA user_version = 7", "belongs to another program"),
        ("newer", "was written by a newer version of mitmproxy-aia"),
        ("damaged", "belongs to another program, and is damaged"),
    ],
)
def test_a_foreign_file_is_left_alone(scene: Scene, first: str, content: str, reason: str) -> None:
    """Whatever it is, it is not changed, renamed or used."""
    if content == "just a text":
        scene.path.write_text(content * 100)
    elif content == "newer":
        scene.cache.add([entry(scene.ca)])
        scene.sql(f"PRAGMA user_version = {sqlite_file.SCHEMA + 1}")
    elif content == "damaged":
        scene.sql(FOREIGN)
        spoil(scene.path)
    else:
        scene.sql(content)
    before = scene.path.read_bytes()
    if first == "lookup":
        assert scene.known() == 0
    else:
        scene.keep(scene.ca)
    scene.warned(reason, ONLY_MEMORY)
    assert scene.known() == 0
    scene.source.close()
    assert scene.path.read_bytes() == before
    assert list(scene.path.parent.iterdir()) == [scene.path]


@pytest.mark.parametrize("first", ["lookup", "keep"])
def test_a_foreign_log_is_left_alone(scene: Scene, first: str) -> None:
    """What a killed process of another program has left beside its file stays there."""
    with contextlib.closing(sqlite3.connect(scene.path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA application_id = 7; PRAGMA journal_mode = WAL;" + FOREIGN)
        copies = {each.name: each.read_bytes() for each in scene.path.parent.iterdir()}
    for name, content in copies.items():
        scene.path.with_name(name).write_bytes(content)
    if first == "lookup":
        assert scene.known() == 0
    else:
        scene.keep(scene.ca)
    scene.warned("belongs to another program")
    assert {each.name: each.read_bytes() for each in scene.path.parent.iterdir()} == copies


def test_not_a_file(scene: Scene) -> None:
    """A folder in its place, or a file in place of its folder."""
    scene.path.mkdir()
    assert scene.known() == 0
    scene.warned("is not a file", ONLY_MEMORY)
    with pytest.raises(CacheError, match="cannot be used: Not a directory"):
        list(SqliteCache(Path(__file__) / "aia.sqlite3").entries())
    with pytest.raises(CacheError, match="cannot be used: "):
        SqliteCache(Path(__file__) / "aia.sqlite3").add([])


@pytest.mark.usefixtures("impatient")
def test_a_locked_file(scene: Scene) -> None:
    """One warning while it lasts, in the thread; afterwards everything is there."""
    scene.cache.add([entry(scene.ca)])
    other = sqlite3.connect(scene.path, isolation_level=None)
    other.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")
    late = authority("late")
    for _ in range(5):
        assert scene.known() == 0
        scene.keep(late)
        time.sleep(0.05)
    scene.warned("is locked by another process", ONLY_MEMORY)
    other.close()
    until(lambda: scene.known())
    until(lambda: len(list(scene.cache.entries())) == 2)
    assert len(scene.warnings) == 1


@pytest.mark.usefixtures("impatient")
def test_the_same_fault_again(scene: Scene) -> None:
    """Once it has worked in between, it is worth a second warning."""
    scene.cache.add([])
    for number in range(1, 3):
        other = sqlite3.connect(scene.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        scene.keep(authority(f"{number}"))
        until(lambda number=number: len(scene.warnings) == number)  # type: ignore[misc]
        other.close()
        until(lambda number=number: len(list(scene.cache.entries())) == number)  # type: ignore[misc]


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_is_full(scene: Scene) -> None:
    """In the middle of running: what was known is still known, and the rest is written later."""
    scene.keep(scene.ca)
    until(lambda: scene.known())
    late = [authority(f"{number}") for number in range(40)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        scene.keep(*late)
        until(lambda: scene.warnings)
        time.sleep(0.1)
        assert scene.known() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    until(lambda: len(list(scene.cache.entries())) == 41)
    scene.warned("I/O error", ONLY_MEMORY)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """No thread can be started until it is called, as in a process that has too many."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", start)
        yield context.undo


def test_a_thread_that_cannot_start(scene: Scene, no_threads: Callable[[], None]) -> None:
    """Nothing is raised, one warning says so, and the next `keep` writes what had to wait."""
    scene.keep(scene.ca)
    scene.keep(authority("second"))
    scene.warned("cannot be written: can't start new thread", ONLY_MEMORY)
    assert not scene.path.exists()
    no_threads()
    scene.keep(authority("third"))
    until(lambda: len(list(scene.cache.entries())) == 3)
    assert len(scene.warnings) == 1


@pytest.mark.usefixtures("no_threads")
def test_closing_what_could_not_start(scene: Scene) -> None:
    """Nor does that raise anything."""
    scene.keep(scene.ca)
    scene.source.close()
    scene.source.close()
    assert not scene.path.exists()


def test_no_thread_while_much_is_waiting(
    scene: Scene, no_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again also when no more can wait."""
    monkeypatch.setattr(sqlite_writer, "MOST_PENDING", 1)
    scene.keep(scene.ca)
    no_threads()
    scene.keep(authority("too much"))
    until(lambda: scene.known())


def test_a_fault_seen_when_no_thread_can_start(
    scene: Scene, no_threads: Callable[[], None]
) -> None:
    """A lookup that meets it raises nothing, and a later one has it mended."""
    scene.cache.add([entry(scene.ca), entry(authority("other"))])
    spoil(scene.path)
    assert scene.known() == 0
    no_threads()
    assert scene.known() == 0
    until(lambda: scene.path.with_name("aia.sqlite3.corrupt").exists())


def test_a_full_disk_in_words(scene: Scene) -> None:
    """SQLite's own word for it is the same whether disk or database is full."""
    with contextlib.closing(sqlite_file.open_to_write(scene.path)) as database:
        database._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(CacheError, match="cannot be written: the disk is full"):
            database.add([entry(authority(f"{number}")) for number in range(40)])
        database._connection.execute("PRAGMA max_page_count = 80000")
        assert database.add([entry(scene.ca)]) == 1


@pytest.fixture
def public_scene(caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    """In a folder where an ordinary user may look; the test is one, until it is over."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103
        scene = Scene(Path(folder, "aia.sqlite3"), caplog)
        yield scene
        if os.getuid() == 0:
            os.seteuid(0)
        os.chmod(folder, 0o755)  # noqa: S103
        scene.source.close()


def become_nobody() -> None:
    """Root may write everywhere."""
    if os.getuid() == 0:
        os.seteuid(NOBODY)


def test_a_read_only_folder_is_read(public_scene: Scene) -> None:
    """As baked into a container image: the cache is used, and one warning tells the rest."""
    scene = public_scene
    scene.cache.add([entry(scene.ca)])
    scene.path.chmod(0o444)
    scene.path.parent.chmod(0o555)
    become_nobody()
    assert scene.known() == 1
    assert [each.certificate.name for each in scene.cache.entries()] == ["CN=CA"]
    scene.keep(authority("new"))
    scene.warned("is read-only", ONLY_MEMORY)
    assert scene.known() == 1


def test_a_read_only_file_that_changes(public_scene: Scene) -> None:
    """Who may write it does; who may not sees it without a restart."""
    scene = public_scene
    scene.cache.add([entry(scene.ca)])
    scene.path.chmod(0o444)
    scene.path.parent.chmod(0o555)
    become_nobody()
    assert scene.known() == 1
    if os.getuid() == 0:
        os.seteuid(0)
    scene.path.parent.chmod(0o755)
    scene.path.chmod(0o644)
    scene.cache.clear()
    scene.path.chmod(0o444)
    scene.path.parent.chmod(0o555)
    become_nobody()
    assert scene.known() == 0
    if os.getuid() == 0:
        os.seteuid(0)
    scene.path.parent.chmod(0o755)
    scene.path.unlink()
    become_nobody()
    assert scene.known() == 0
    assert scene.warnings == []


def test_a_read_only_file(public_scene: Scene) -> None:
    """In a folder that can be written: the same."""
    scene = public_scene
    scene.cache.add([entry(scene.ca)])
    scene.path.chmod(0o444)
    scene.path.parent.chmod(0o777)
    become_nobody()
    assert scene.known() == 1
    scene.keep(authority("new"))
    scene.warned("is read-only", ONLY_MEMORY)
    assert scene.known() == 1


def test_a_file_that_may_not_be_read(public_scene: Scene) -> None:
    """Nothing is known, and one warning says why."""
    scene = public_scene
    scene.cache.add([entry(scene.ca)])
    scene.path.chmod(0)
    become_nobody()
    assert scene.known() == 0
    scene.warned("cannot be opened", ONLY_MEMORY)
    with pytest.raises(CacheError, match="cannot be opened"):
        list(scene.cache.entries())


def test_a_folder_that_may_not_be_written(public_scene: Scene) -> None:
    """No file can be made in it."""
    scene = public_scene
    scene.path.parent.chmod(0o555)
    become_nobody()
    scene.keep(scene.ca)
    scene.warned("cannot be used: Permission denied", ONLY_MEMORY)


def test_a_python_without_sqlite(tmp_path: Path) -> None:
    """Everything can be imported and used; one warning, and CacheError for the command line."""
    script = f"""
import sys, logging, time
sys.modules["sqlite3"] = sys.modules["_sqlite3"] = None
logging.basicConfig(format="%(levelname)s %(message)s")
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from mitmproxy_aia.certificates import Certificate
from tests.lab import authority
path = {str(tmp_path / "aia.sqlite3")!r}
source = SqliteSource(path)
ca = Certificate.from_der(authority().der)
for _ in range(3):
    assert source.known_issuers(ca) == []
    source.keep([Found(ca, "a script")])
source.close()
for use in (lambda cache: list(cache.entries()), lambda cache: cache.add([])):
    try:
        use(SqliteCache(path))
    except OSError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": "addon:."},
        cwd=Path(__file__).parent.parent,
        timeout=60,
    )
    reason = f"{tmp_path / 'aia.sqlite3'} cannot be used: this Python has no sqlite3 module"
    assert result.stderr == f"WARNING {reason}; {ONLY_MEMORY}\n"
    assert result.stdout == f"{reason}\n" * 2


def test_a_file_that_goes_while_it_is_judged(tmp_path: Path) -> None:
    """Another process has set it aside: it was damaged, and nothing is to be renamed."""
    (tmp_path / "damaged").write_bytes(b"no SQLite file" * 100)
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "damaged")) as connection,
        pytest.raises(Damaged),
        sqlite_errors.explained(tmp_path / "gone"),
    ):
        connection.execute("PRAGMA user_version")


def test_damage_that_another_process_has_mended(scene: Scene) -> None:
    """The new file is used, without a word."""
    scene.cache.add([entry(scene.ca)])
    scene.source._writer.examine(Damaged("it is damaged", sqlite_errors.Identity(1, 1)))
    until(lambda: not scene.source._writer.resting)
    assert scene.known() == 1
    assert scene.warnings == []


def test_one_at_a_time(scene: Scene) -> None:
    """Whoever would make the file waits for who is doing it, but not for ever."""
    folder = os.open(scene.path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(CacheError, match="is locked by another process"):
        sqlite_file.open_to_write(scene.path, patience=0.05)
    assert not scene.path.exists()
    os.close(folder)
    scene.cache.add([])


def test_made_by_another_while_we_waited(scene: Scene) -> None:
    """It is not made a second time."""
    scene.path.touch()
    folder = os.open(scene.path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    scene.keep(scene.ca)
    time.sleep(0.1)
    for statement in sqlite_rows.TABLES:
        scene.sql(statement)
    scene.sql(f"PRAGMA application_id = {sqlite_errors.APPLICATION_ID}; PRAGMA user_version = 1")
    os.close(folder)
    until(lambda: scene.known())
    assert scene.warnings == []


def test_without_locks_for_folders(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none; it works all the same."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert scene.cache.add([entry(scene.ca)]) == 1


def test_a_creation_that_was_killed(scene: Scene) -> None:
    """Its journal says that there was nothing yet: the file is made once more."""
    made = scene.path.with_name("made")
    SqliteCache(made).add([entry(scene.ca)])
    # A file that was being written, and the journal that takes it back to nothing.
    with contextlib.closing(sqlite3.connect(scene.path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA cache_size = 1; BEGIN;")
        for statement in sqlite_rows.TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {sqlite_errors.APPLICATION_ID}")
        connection.execute("CREATE TABLE filler AS SELECT zeroblob(99999) AS x")
        journal = Path(f"{scene.path}-journal").read_bytes()
        connection.execute("ROLLBACK")
    scene.path.write_bytes(made.read_bytes())
    Path(f"{scene.path}-journal").write_bytes(journal)
    assert scene.known() == 0
    scene.keep(scene.ca)
    until(lambda: scene.known())
    assert scene.warnings == []
