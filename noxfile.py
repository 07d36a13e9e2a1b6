"""`nox` runs the tests with each Python and the oldest and newest mitmproxy that it can have.

nox -l                                # what that is
nox -- tests/test_end_to_end.py       # some of the tests, with all of them
nox -s "tests(python='3.12', mitmproxy='newest')"
nox -s oldest                         # the lower bound of each dependency

Pythons are looked for on the PATH; with pyenv: PYENV_VERSION=3.11.7:3.12.1:3.13.0 nox
"""

import nox

nox.options.default_venv_backend = "venv"
# A Python that is not there is a failure and not a pass.
nox.options.error_on_missing_interpreters = True

# mitmproxy 11.1 needs Python 3.12.
OLDEST, NEWEST = "11.0.0", "newest"
MATRIX = (
    ("3.11", OLDEST),
    ("3.11", "11.0.2"),
    ("3.12", OLDEST),
    ("3.12", NEWEST),
    ("3.13", OLDEST),
    ("3.13", NEWEST),
)


@nox.session
@nox.parametrize("python,mitmproxy", MATRIX)
def tests(session: nox.Session, mitmproxy: str) -> None:
    """The tests."""
    version = [] if mitmproxy == NEWEST else [f"mitmproxy=={mitmproxy}"]
    run(session, *version)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The tests, with the oldest of everything that pyproject.toml allows."""
    run(session, "--constraint", "tests/constraints/oldest.txt")


def run(session: nox.Session, *installed: str) -> None:
    session.install("--quiet", "--editable", ".[dev]", *installed)
    session.run("python", "-m", "pytest", "-q", *session.posargs)
