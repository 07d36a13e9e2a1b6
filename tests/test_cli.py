"""The `mitmproxy-aia` command."""

import subprocess
import sys
from pathlib import Path

import pytest

from mitmproxy_aia import cli

SOURCE_ROOT = Path(__file__).resolve().parents[1] / "addon"


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


def test_missing_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A damaged installation is one line on stderr and exit status 1."""
    monkeypatch.setattr(cli, "_PACKAGE", tmp_path)
    with pytest.raises(SystemExit, match=r"^mitmproxy-aia: the script is not where .*aia\.py$"):
        cli.main(["path"])


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["path", "more"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse says how it is used, and the exit status is 2."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: mitmproxy-aia" in capsys.readouterr().err


def test_python_m() -> None:
    """`python -m mitmproxy_aia` is the same command."""
    command = [sys.executable, "-m", "mitmproxy_aia", "path"]
    result = subprocess.run(
        command, cwd=SOURCE_ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == f"{SOURCE_ROOT / 'aia.py'}\n"
