"""What is in the wheel, and that mitmproxy runs the addon from it and from a source tree."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority, curl

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = ["--quiet", "--no-index", "--no-deps"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH into which the wheel has been installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    pip("install", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority()


@pytest.fixture(scope="module")
def incomplete(root: Issued) -> Iterator[TlsServer]:
    """A server that sends only its leaf. The intermediate can be downloaded."""
    with CaIssuersServer() as ca_issuers:
        intermediate = root.issue("Lab Intermediate", ca=True)
        url = ca_issuers.serve("/intermediate.cer", intermediate.der)
        with TlsServer(intermediate.issue(aia=[url])) as server:
            yield server


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], *OFFLINE, *arguments[1:]]
    subprocess.run(command, check=True, timeout=60)


def build_wheel(source: Path, folder: Path) -> Path:
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, source)
    [wheel] = folder.glob("*.whl")
    return wheel


def content(wheel: Path) -> set[str]:
    """The files in a wheel, without those that describe it."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def command(installed: Path, *arguments: str) -> str:
    """What the console command of the installed wheel prints."""
    return subprocess.run(
        [installed / "bin" / "mitmproxy-aia", *arguments],
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


def test_wheel_has_one_package_and_no_top_level_script(wheel: Path) -> None:
    """`aia` is the name of another package on PyPI; ours must not bring a module of that name."""
    assert {name.split("/")[0] for name in content(wheel)} == {"mitmproxy_aia"}


def test_script_is_alone_in_its_folder(wheel: Path) -> None:
    """mitmproxy puts the script's folder on sys.path: what lies there shadows other modules."""
    beside = {name for name in content(wheel) if name.startswith("mitmproxy_aia/script/")}
    assert beside == {"mitmproxy_aia/script/aia.py"}


def test_wheel_has_the_whole_package(wheel: Path) -> None:
    """Every module of the source tree is in the wheel, and nothing else but the script is."""
    package = ROOT / "addon" / "mitmproxy_aia"
    sources = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert content(wheel) == sources | {"mitmproxy_aia/script/aia.py"}


def test_wheel_says_that_it_is_typed_and_licensed(wheel: Path) -> None:
    """The classifier "Typed" is true, and the licence travels along."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mitmproxy_aia/py.typed", "mitmproxy_aia/report.schema.json"} <= {*names}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """Who packages from the source distribution gets what we release, and the tests with it."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    subprocess.run(
        [*build, "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    [source] = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (source / "tests" / "lab" / "__init__.py").is_file()
    assert os.access(source / "scripts" / "run", os.X_OK)
    assert content(build_wheel(source, tmp_path / "built")) == content(wheel)


def test_path_command_prints_the_installed_script(installed: Path) -> None:
    """`mitmproxy-aia path` prints one line: the script of the package it belongs to."""
    assert command(installed, "path") == f"{installed / 'mitmproxy_aia' / 'script' / 'aia.py'}\n"


def test_mitmdump_runs_the_installed_script(
    installed: Path, root: Issued, incomplete: TlsServer
) -> None:
    """`mitmdump -s "$(mitmproxy-aia path)"` completes a chain."""
    script = Path(command(installed, "path").strip())
    environment = {"PYTHONPATH": str(installed)}
    with Proxy(
        trust=[root], addon=False, scripts=[script], environment=environment, fresh=True
    ) as proxy:
        assert curl(incomplete.url(), proxy=proxy).status == 200


def test_mitmdump_runs_a_source_tree_by_its_relative_path(
    root: Issued, incomplete: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mitmdump -s ../addon/aia.py` needs no installation and no certain working directory."""
    # A copy, because the package of this tree may be installed. It says which one it is.
    addon = shutil.copytree(ROOT / "addon", tmp_path / "addon")
    with (addon / "mitmproxy_aia" / "__init__.py").open("a") as module:
        module.write('\nimport logging\nlogging.warning("this is the copy")\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with Proxy(trust=[root], addon=False, scripts=[Path("../addon/aia.py")], fresh=True) as proxy:
        assert curl(incomplete.url(), proxy=proxy).status == 200
        assert "this is the copy" in proxy.log


def test_lower_bounds() -> None:
    """What `nox -s oldest` installs is the oldest that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["redis"] + extras["metrics"]
    bounds = dict(each.split(">=") for each in wanted if ">=" in each)
    lines = (ROOT / "tests" / "constraints" / "oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert bounds.keys() == pins.keys()
    for name, bound in bounds.items():
        assert f"{pins[name]}.".startswith(f"{bound}."), name
