"""The `mitmproxy-aia` command."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mitmproxy_aia import __version__, cli
from tests.lab import authority
from tests.lab.process import clean_environment

SOURCE_ROOT = Path(__file__).resolve().parents[1] / "addon"
COMMAND = [sys.executable, "-m", "mitmproxy_aia"]


def run(
    *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=SOURCE_ROOT,
        # With the buffers of everyday life, whose rest Python writes when it ends.
        env=clean_environment() | {"PYTHONUNBUFFERED": ""},
        text=True,
        timeout=60,
        check=False,
    )


def test_prints_the_path_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    """In a source tree it is the one beside the package."""
    cli.main(["path"])
    assert capsys.readouterr().out == f"{SOURCE_ROOT / 'aia.py'}\n"


def test_prefers_the_script_inside_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a wheel installs it; whatever is called aia.py beside the package is not ours."""
    package = tmp_path / "site-packages" / "mitmproxy_aia"
    script = package / "script" / "aia.py"
    script.parent.mkdir(parents=True)
    script.touch()
    package.with_name("aia.py").touch()
    monkeypatch.setattr(cli, "_PACKAGE", package)
    assert cli.script_path() == script


def test_missing_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged installation is one line on stderr and exit status 1."""
    monkeypatch.setattr(cli, "_PACKAGE", tmp_path)
    with pytest.raises(SystemExit, match=r"^1$"):
        cli.main(["path"])
    error = capsys.readouterr().err
    assert error.startswith("mitmproxy-aia: the script is not where it was installed: ")
    assert error.endswith("aia.py\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """That of the package."""
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"mitmproxy-aia {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["path", "more"], ["cache"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse says how it is used, and the exit status is 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: mitmproxy-aia" in capsys.readouterr().err


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """`parser` and all of its commands'."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found += parsers(each)
    return found


def test_everything_has_help() -> None:
    """Every command and option says what it is for, in lines that fit a terminal."""
    found = parsers(cli._parser())
    assert len(found) == 15
    for parser in found:
        assert parser.description
        assert all(action.help for action in parser._actions if action.metavar != "COMMAND")
        for line in (parser.epilog or "").splitlines():
            assert len(line) <= 80, line


def test_python_m() -> None:
    """`python -m mitmproxy_aia` is the same command."""
    result = run("path")
    assert (result.returncode, result.stdout) == (0, f"{SOURCE_ROOT / 'aia.py'}\n")


def test_mitmproxy_is_not_imported() -> None:
    """Nor what else takes long: the command starts at once."""
    code = """
import sys
from mitmproxy_aia import cli
cli.main(["cache", "path", "--cache", "/nowhere/aia.sqlite3"])
print(sorted({"mitmproxy", "OpenSSL", "httpx", "redis"} & sys.modules.keys()))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment() | {"PYTHONPATH": str(SOURCE_ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout == "/nowhere/aia.sqlite3\n[]\n"


def test_a_closed_pipe() -> None:
    """`| head` ends the command without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    result = run("path", stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (cli.PIPE_CLOSED, "")


def test_a_closed_pipe_of_both(tmp_path: Path) -> None:
    """`2>&1 | head` does, too, when it is stderr that notices and stdout has more to say."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["cache", "list", "--json", "--cache", str(tmp_path / "none")]
    result = run(*arguments, stdout=writer, stderr=writer)
    os.close(writer)
    assert result.returncode == cli.PIPE_CLOSED


def test_a_full_disk_behind_stdout() -> None:
    """Is one line on stderr, and not a success."""
    with open("/dev/full", "w") as full:
        result = run("path", stdout=full.fileno())
    assert result.returncode == 1
    assert result.stderr == ("mitmproxy-aia: cannot write the output (No space left on device)\n")


@pytest.mark.parametrize("command", ["verify", "report"])
def test_no_verdict_on_a_full_disk(command: str, tmp_path: Path) -> None:
    """Where the exit status is a verdict, that is none: 1 would be an incomplete chain."""
    path = tmp_path / "input"
    path.write_bytes(authority().pem if command == "verify" else b'{"version": 1, "servers": []}')
    with open("/dev/full", "w") as full:
        result = run(command, str(path), stdout=full.fileno())
    assert result.returncode == 3
    assert "cannot write the output" in result.stderr


def test_no_verdict_from_a_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is an exception that nobody has foreseen."""

    def draw(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    path = tmp_path / "chain.pem"
    path.write_bytes(authority().pem)
    monkeypatch.setattr("mitmproxy_aia.cli.pictures.picture", draw)
    with pytest.raises(SystemExit, match=r"^3$"):
        cli.main(["verify", str(path)])
    assert capsys.readouterr().err.endswith("RuntimeError: a fault of ours\n")


def test_closed_streams(tmp_path: Path) -> None:
    """Whoever starts us without stdin, stdout or stderr gets the exit status all the same."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority().issue("Lab Intermediate", ca=True).pem)
    cache = f"{' '.join(COMMAND)} cache --cache {tmp_path / 'aia.sqlite3'}"
    command = f"{cache} import {path} <&- >&- 2>&- && exec {cache} list <&- >&- 2>&-"
    result = subprocess.run(["/bin/sh", "-c", command], cwd=SOURCE_ROOT, timeout=60, check=False)
    assert result.returncode == 0
