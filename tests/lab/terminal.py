"""A terminal for programs that look different, or ask, when a person is there."""

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.lab.process import clean_environment

# Makes the terminal the controlling one, so that its Ctrl-C reaches the program.
_LOG_IN = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


def in_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    when: str = "",
    typed: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> tuple[int, str]:
    """Runs `command` in a terminal of its own, and returns its exit status and all that the
    terminal showed, with line ends as they are in a file. Once `when` (a pattern) is on it,
    `typed` is typed."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    inherited = clean_environment()
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        inherited.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", _LOG_IN, *command],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env=inherited | {"TERM": "xterm"} | dict(environment or {}),
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if not select.select([leader], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(leader, 65536)
            except OSError:  # Linux's way to say that nobody has it open any more
                break
            shown += data
            if typed and re.search(when.encode(), shown):
                os.write(leader, typed.encode())
                typed = ""
        return process.wait(max(0.1, deadline - time.monotonic())), _text(shown)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(leader)


def _text(shown: bytes) -> str:
    return shown.decode(errors="replace").replace("\r\n", "\n")


class Screen:
    """A program in a terminal of its own, from construction until `close`. What it shows is
    collected without what moves the cursor and sets colours."""

    def __init__(self, command: Sequence[str | Path], *, columns: int = 120) -> None:
        self._leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, columns))
        self._shown = b""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOG_IN, *map(str, command)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env=clean_environment() | {"TERM": "xterm"},
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            # It may have to write before it can end.
            self._read_until(lambda: self._process.poll() is not None, 5.0)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._leader)

    @property
    def text(self) -> str:
        """All that was shown so far."""
        return re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9])|[\x0e\x0f]", "", _text(self._shown))

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def wait_for(self, pattern: str, timeout: float = 15.0, *, after: int = 0) -> re.Match[str]:
        """The first match in `text` from offset `after` on."""
        self._read_until(lambda: re.compile(pattern).search(self.text, after) is not None, timeout)
        match = re.compile(pattern).search(self.text, after)
        if match is None:
            raise RuntimeError(f"{pattern!r} is not shown:\n{self.text[after:]}")
        return match

    def _read_until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self._shown += os.read(self._leader, 65536)
                except OSError:  # Linux's way to say that nobody has it open any more
                    return
