"""What mitmproxy's own configuration says of the cache, so that the command means the same one."""

from __future__ import annotations

from pathlib import Path

from mitmproxy_aia.cli.terminal import CommandError

_NAMES = "config.yaml", "config.yml"
"""In the order in which mitmproxy reads them; the later one counts."""
_OPTION = "aia_cache"
_HELP = "with --cache it is not looked at"

CONFDIR = "~/.mitmproxy"
"""mitmproxy's own default."""


def configured_cache(confdir: Path) -> tuple[str, Path] | None:
    """The value of `aia_cache` in `confdir`, and the file that says so. None if none does.

    Raises CommandError if a file speaks of it and cannot be read.
    """
    found = None
    for file in (confdir / name for name in _NAMES):
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise CommandError(f"{file} cannot be read: {reason} ({_HELP})") from error
        # Most do not, and to understand YAML takes a tenth of a second.
        if _OPTION in text and (value := _value(text, file)) is not None:
            found = value, file
    return found


def _value(text: str, file: Path) -> str | None:
    from ruamel.yaml import YAML  # mitmproxy reads it with the same
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        options = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        raise CommandError(f"{where}: it is not YAML ({_HELP})") from error
    value = options.get(_OPTION) if isinstance(options, dict) else None
    if value is not None and not isinstance(value, str):
        raise CommandError(f"{file}: {_OPTION} is not a text ({_HELP})")
    return value or None
