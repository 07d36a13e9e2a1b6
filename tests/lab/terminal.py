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
from collections.abc import Mapping, Sequence

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
    return shown.decode().replace("\r\n", "\n")
