"""The scripts in scripts/. None of these tests installs anything or uses the network."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"


class Environment:
    """A virtual environment in which every program only writes down how it was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = path / ".installed"
        (path / "bin").mkdir(parents=True)
        (path / "pyvenv.cfg").touch()
        for name in ("python", "mitmdump", "mitmproxy", "mitmweb", "ruff", "mypy"):
            self.write(name, "")

    def write(self, name: str, then: str) -> None:
        program = self.path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.path}/calls"\n{then}\n')
        program.chmod(0o755)

    def installed(self, extras: str = "", version: str = "") -> "Environment":
        """As after an installation that went well."""
        self.stamp.write_text(f"{self.path}\n{version}\n{extras}\n")
        return self

    def calls(self) -> list[str]:
        """How its programs were called since the last time this was asked."""
        log = self.path / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def pip_calls(self) -> list[str]:
        return [call for call in self.calls() if "pip install" in call]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


def start(
    script: str | Path, *arguments: str, cwd: Path | None = None, **variables: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end with these environment variables."""
    ours = ("MITM", "VENV", "PYTHON", "MITMPROXY_VERSION")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [SCRIPTS / script, *arguments],
        cwd=cwd,
        env=inherited | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", ["run", "test", "check", "demo", "fuzz", "soak", "../.ci/run"])
def test_can_be_started(name: str) -> None:
    """A clone has the scripts with their executable bit."""
    assert (SCRIPTS / name).stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("front_end", ["mitmdump", "mitmproxy", "mitmweb"])
def test_run_starts_a_front_end_with_the_addon(environment: Environment, front_end: str) -> None:
    """MITM chooses the front end; arguments are passed on as they are."""
    environment.installed()
    assert start("run", "--set", "a=b c", MITM=front_end, VENV=environment.path).returncode == 0
    assert environment.calls() == [f"{front_end} -s {ROOT}/addon/aia.py --set a=b c"]


def test_run_refuses_another_front_end(tmp_path: Path) -> None:
    """The message says what MITM may be, and nothing is installed."""
    result = start("run", MITM="mitm proxy", VENV=tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr == "run: MITM=mitm proxy is none of mitmdump, mitmproxy, mitmweb.\n"
    assert not (tmp_path / "venv").exists()


def test_run_works_through_a_symlink_from_any_folder(
    environment: Environment, tmp_path: Path
) -> None:
    """Paths among the arguments mean what they meant to the user."""
    environment.installed()
    link = tmp_path / "my aia"
    link.symlink_to(SCRIPTS / "run")
    environment.write("mitmdump", "pwd")
    assert start(link, cwd=tmp_path, VENV="venv").stdout == f"{tmp_path}\n"
    assert environment.calls() == [f"mitmdump -s {ROOT}/addon/aia.py"]


def test_installs_once(environment: Environment) -> None:
    """An environment that is not known to be complete is installed into, once."""
    first = start("run", VENV=environment.path)
    assert "Bringing" in first.stderr
    assert len(environment.pip_calls()) == 1
    second = start("run", VENV=environment.path)
    assert second.stderr == ""
    assert environment.calls() == [f"mitmdump -s {ROOT}/addon/aia.py"]


def test_installs_again_when_the_project_changed(environment: Environment) -> None:
    """What the environment had beyond the minimum it keeps."""
    environment.installed("dev")
    os.utime(environment.stamp, (0, 0))
    start("run", VENV=environment.path)
    assert [call.split()[-1] for call in environment.pip_calls()] == [f"{ROOT}[dev]"]


def test_installs_what_is_missing_for_tests(environment: Environment) -> None:
    """An environment made by `run` is enough to run, not to test."""
    environment.installed()
    start("test", VENV=environment.path)
    assert len(environment.pip_calls()) == 1
    start("run", VENV=environment.path)
    assert environment.pip_calls() == []


def test_installs_the_version_asked_for(environment: Environment) -> None:
    """MITMPROXY_VERSION is honoured in an environment that exists."""
    environment.installed("dev", "11.0.2")
    start("run", VENV=environment.path, MITMPROXY_VERSION="11.0.2")
    assert environment.pip_calls() == []
    start("run", VENV=environment.path, MITMPROXY_VERSION="12.0.1")
    assert environment.pip_calls()[0].endswith("mitmproxy==12.0.1")


def test_failed_installation_is_tried_again(environment: Environment) -> None:
    """A start after an installation that broke off does not take it for a good one."""
    environment.installed()
    os.utime(environment.stamp, (0, 0))
    environment.write("python", 'case "$*" in *pip*install*) exit 1 ;; esac')
    result = start("run", VENV=environment.path)
    assert result.returncode == 1
    assert "pip could not install" in result.stderr
    assert not any(call.startswith("mitmdump") for call in environment.calls())
    start("run", VENV=environment.path)
    assert len(environment.pip_calls()) == 1


def test_copied_environment_is_made_anew(environment: Environment, tmp_path: Path) -> None:
    """The programs in a copied environment are those of the original."""
    environment.stamp.write_text("/somewhere/else/.venv\n\n\n")
    new = Environment(tmp_path / "new")
    python = new.path / "bin" / "python"
    new.write("python", f'[ "$1" = -c ] && echo "{python}"; exit 0')
    start("run", VENV=environment.path, PYTHON=python)
    assert f"python -m venv --clear {environment.path}" in new.calls()


def test_leaves_other_folders_alone(tmp_path: Path) -> None:
    """VENV=$HOME is a mistake and not an order to empty it."""
    (tmp_path / "precious").touch()
    result = start("run", VENV=tmp_path)
    assert result.returncode == 1
    assert "is no virtual environment" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_says_so_when_there_is_no_python(tmp_path: Path) -> None:
    """The message says what is needed and how to name it."""
    for program in ("bash", "dirname", "readlink", "env"):
        path = next(path for path in ("/bin", "/usr/bin") if Path(path, program).exists())
        (tmp_path / program).symlink_to(Path(path, program))
    result = start("run", PATH=tmp_path, VENV=tmp_path / "venv")
    assert result.returncode == 1
    assert "needs Python 3.11 or newer, and found none" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_says_so_when_the_chosen_python_will_not_do(tmp_path: Path) -> None:
    """PYTHON is an order: no other one is taken instead."""
    result = start("run", PYTHON="false", VENV=tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr == "run: PYTHON=false is not a Python 3.11 or newer.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "--cov"), (["-k", "some"], "--cov --cov-fail-under=0 -k some")],
)
def test_test_measures_coverage(
    environment: Environment, arguments: list[str], expected: str
) -> None:
    """The limit counts for all tests, not for a choice of them."""
    environment.installed("dev")
    start("test", *arguments, VENV=environment.path)
    assert environment.calls() == [f"python -m pytest {expected}"]


def test_check_runs_all_checks_and_fails_if_one_does(environment: Environment) -> None:
    """A formatting error does not hide a type error."""
    environment.installed("dev").write("ruff", "exit 1")
    assert start("check", VENV=environment.path).returncode == 1
    assert [call.split()[0] for call in environment.calls()] == ["ruff", "ruff", "mypy"]


def test_demo_is_started_with_the_lab(environment: Environment) -> None:
    """The wrapper finds the Python program and what that imports."""
    environment.installed().write("python", 'echo "$PYTHONPATH"')
    assert start("demo", VENV=environment.path).stdout.split(":")[0].strip() == str(ROOT)
    assert environment.calls() == [f"python {ROOT}/scripts/demo.py"]


def demo(tmp_path: Path, code: str = "") -> subprocess.Popen[str]:
    """The demo, or `code` that calls it, with its output in a pipe and an empty TMPDIR."""
    variables: Mapping[str, str] = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, *(["-c", code] if code else [str(SCRIPTS / "demo.py")])],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts background jobs with this signal ignored, and children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_demo_shows_all_four_steps(tmp_path: Path) -> None:
    """In a pipe: plain text of at most 80 columns, and nothing left behind."""
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert [line.split()[0] for line in output.splitlines() if line[3:6] in ("200", "502")] == [
        "502",
        "200",
        "200",
        "502",
    ]
    assert 'found "CN=Demo Intermediate"' in " ".join(output.split())
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    assert not list(tmp_path.iterdir())


def test_demo_fails_if_something_else_happens(tmp_path: Path) -> None:
    """With an addon that does nothing it does not claim success."""
    code = "\n".join(
        [
            "from scripts import demo",
            "real = demo.Proxy",
            "demo.Proxy = lambda **options: real(**options | {'addon': False})",
            "raise SystemExit(demo.main())",
        ]
    )
    with demo(tmp_path, code) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    assert "This is not what happened: the addon completes the chain" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_cleans_up_when_it_is_ended(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Ctrl-C in the middle leaves no process and no file behind."""
    with demo(tmp_path) as process:
        assert process.stdout
        while "mitmproxy as it is" not in process.stdout.readline():
            assert process.poll() is None
        # In the instant in which a process is being started it is in nobody's hands yet.
        time.sleep(0.3)
        process.send_signal(number)
        # Ends with the last process that holds the pipe or a folder in TMPDIR.
        process.communicate(timeout=30)
    assert process.returncode == status
    assert not list(tmp_path.iterdir())
