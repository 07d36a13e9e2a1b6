"""Reports in files: the option aia_report and the command aia.report."""

from __future__ import annotations

import asyncio
import datetime
import logging
import tempfile
from pathlib import Path

from mitmproxy import command, exceptions, types

from mitmproxy_aia.background import Background
from mitmproxy_aia.history import History
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources.caches import from_home

logger = logging.getLogger(__name__)

_FORMATS = (".json", ".html")


def report_path(text: str) -> Path | None:
    """The file that `text` names, or None if it is empty. Raises ValueError with what is wrong
    if no report could be written there."""
    if not text.strip():
        return None
    path = from_home(Path(text.strip()))
    shown = printable(text)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"takes a file that ends in {' or '.join(_FORMATS)}, and not {shown!r}")
    if path.is_dir():
        raise ValueError(f"{shown} is a folder")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"there is no folder {printable(str(folder))} to write {path.name} to")
    try:
        # Permissions do not say it all: root has them everywhere.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = f"nothing can be written to the folder {printable(str(folder))} ({error.strerror})"
        raise ValueError(why) from error
    return path


class ReportFiles:
    """Writes what is in `history`. A file is written whole, or left as it is."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._background = Background()

    @command.command("aia.report")
    def report(self, path: types.Path) -> None:
        """Write a report of the servers whose certificate chain was incomplete or broken to a
        file: what happened, what is missing and where it is."""
        try:
            target = report_path(path)
        except ValueError as error:
            raise exceptions.CommandError(f"aia.report: {error}") from error
        if target is None:
            raise exceptions.CommandError("aia.report takes the name of a file")

        def write() -> str:
            self._write(target)
            return f"a report was written to {printable(str(target))}"

        # Many servers take a while, and other connections are not to wait for that.
        self._background.run(asyncio.to_thread(write))

    def finish(self, path: Path | None) -> None:
        """Writes the report of a proxy that ends, if there is a `path`."""
        if path is None:
            return
        try:
            self._write(path)
        except OSError as error:
            logger.error(f"aia_report: {error}")

    def _write(self, path: Path) -> None:
        # Most proxies never write one, and need not wait for this when they start.
        from mitmproxy_aia import bundle, report, report_html

        written = report.as_json if path.suffix.lower() == ".json" else report_html.as_html
        bundle.save(path, [written(self._history, datetime.datetime.now(datetime.UTC))])
