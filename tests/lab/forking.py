"""Starting mitmdump by forking a process that has imported mitmproxy, and not from nothing.

It is mitmdump all the same, with its arguments, its environment and a process of its own. Only
what an interpreter does before mitmproxy's `main` was done once for all.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.lab.process import NO_COVERAGE, clean_environment

_SERVER = Path(__file__).with_name("fork_server.py")
_PATIENCE = 30.0


class ForkServer:
    """Runs from construction until `close`; what it has started may outlive it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(_PATIENCE)
        self._turn = threading.Lock()
        # What is forked from it begins to measure coverage by itself.
        variables = clean_environment() | NO_COVERAGE | {"PYTHONUNBUFFERED": "1"}
        with theirs:
            self._process = subprocess.Popen(
                # -P: our folder has modules with names that are others' as well.
                [sys.executable, "-P", _SERVER],
                stdin=theirs.fileno(),
                env=variables,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._requests.close()
        self._process.wait(_PATIENCE)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> "Forked":
        """Runs a program of mitmproxy's (`fork_server.PROGRAMS`)."""
        what = {"command": command, "folder": os.getcwd(), "environment": dict(environment)}
        request = json.dumps(what).encode()
        with contextlib.ExitStack() as stack:
            output, their_output = os.pipe()
            stack.callback(os.close, their_output)
            status, their_status = os.pipe()
            stack.callback(os.close, their_status)
            with self._turn:
                socket.send_fds(self._requests, [request], [their_output, their_status])
                answer = self._requests.recv(100)
            if not answer:
                raise RuntimeError("the fork server has ended")
        return Forked(command, int(answer), output, status)


class Forked:
    """As much of a `subprocess.Popen` as `Process` needs, for what is no child of ours."""

    def __init__(self, command: Sequence[str], pid: int, output: int, status: int) -> None:
        self.args = command
        self.pid = pid
        self.stdout = os.fdopen(output, errors="replace")
        self.returncode: int | None = None
        self._status = os.fdopen(status)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired([*self.args], timeout)
            with self._status:
                self.returncode = int(self._status.read())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            # It may be gone, and waited for, before we are told so.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
