"""Looking at what another package has, by name, and saying in one line what it lacks."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from mitmproxy_aia import __version__

CONFIGURATION = "openssl.cnf"
_HELP = "use a mitmproxy that it was tested with, or a newer mitmproxy-aia"
_HELP_WITH_CONFIGURATION = "change that, or name another file in OPENSSL_CONF"


class Lacking(Exception):
    """What is not as it was; words to follow the package's name."""


class NotInstalled(Lacking):
    """A library that is not there at all: its name."""


Checks = Iterable[tuple[str, Callable[[], object]]]
"""The package that is looked at, or `CONFIGURATION`, and what raises if something is not as it
was."""


def first_flaw(checks: Checks) -> str | None:
    """One line that says what is not as it has to be, or None."""
    for package, check in checks:
        try:
            check()
        except Exception as error:
            if isinstance(error, NotInstalled):
                return (
                    f"mitmproxy-aia {__version__} needs {error} in mitmproxy's environment: "
                    f"pip install {error} (the standalone binaries of mitmproxy cannot have it: "
                    "use mitmproxy from PyPI)"
                )
            lacking = isinstance(error, Lacking)
            # What the check itself could not even do is a change as well.
            what = str(error) if lacking else f"fails: {type(error).__name__}: {error}"
            helps = _HELP_WITH_CONFIGURATION if package == CONFIGURATION else _HELP
            whose = f"{package} {_version(package)}".strip()
            line = f"mitmproxy-aia {__version__} cannot work with {whose}: {what}"
            return " ".join(f"{line}; {helps}".split())
    return None


def _version(package: str) -> str:
    if package == CONFIGURATION:
        return ""  # where it is only OpenSSL knows
    module, name = {
        "mitmproxy": ("mitmproxy.version", "VERSION"),
        "pyOpenSSL": ("OpenSSL", "__version__"),
        "httpx": ("httpx", "__version__"),
        "aioquic": ("aioquic", "__version__"),
    }[package]
    try:
        return str(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError):
        return "(of unknown version)"


def get(module: str, path: str) -> Any:
    """What `path` (`Class.method`) names in `module`."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        raise Lacking(f"it has no module {module}") from None
    return part(found, path, module)


def part(found: Any, path: str, where: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            raise Lacking(f"{where} has no {path}")
        found = getattr(found, name)
    return found


def takes(function: Any, number: int, what: str) -> None:
    """That `function` can be called with `number` arguments."""
    try:
        inspect.signature(function).bind(*range(number))
    except (TypeError, ValueError):
        raise Lacking(f"{what} takes other arguments") from None
