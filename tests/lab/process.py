"""Running a program and reading what it says."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, Self

_PATIENCE = 15.0
NO_COVERAGE = {"COVERAGE_PROCESS_CONFIG": ""}
"""In the environment of a program of ours whose coverage is not to be measured."""


class Running(Protocol):
    """What there is to know of a program: as much of a `subprocess.Popen` as is needed here."""

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> IO[str] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...


class Process:
    """A running program. Its stdout and stderr are collected together, line by line.

    `start` has another way to start it than from nothing: it takes the command and the whole
    environment.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        start: Callable[[Sequence[str], Mapping[str, str]], Running] | None = None,
    ) -> None:
        self._name = Path(command[0]).name
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        words = [*map(str, command)]
        variables = clean_environment() | dict(environment or {})
        self._process: Running
        if start:
            self._process = start(words, variables)
        else:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=pass_fds,
                text=True,
                errors="replace",
            )
        self._reader = threading.Thread(target=self._read, name=f"read-{self._process.pid}")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything said so far."""
        return "".join(self._lines)

    def lines(self) -> list[str]:
        return self.log.splitlines()

    def wait_for(
        self, pattern: str, timeout: float = _PATIENCE, *, after: int = 0
    ) -> re.Match[str]:
        """The first match in the log, from offset `after` on, as soon as there is one.

        A program that ends or stays silent instead is an error that quotes the whole log.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            while not (match := re.compile(pattern, re.MULTILINE).search(self.log, after)):
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    what = "ended" if self._ended else f"was silent for {timeout:g} s"
                    raise RuntimeError(f"{self._name} {what} before {pattern!r}:\n{self.log}")
                self._news.wait(left)
            return match

    def wait(self, timeout: float = _PATIENCE) -> int:
        """The exit status of a program that ends by itself."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{self._name} runs on after {timeout:g} s:\n{self.log}") from None
        self._reader.join()
        return status

    def stop(self, timeout: float = 5.0) -> None:
        """End the program: politely, and if it does not listen, at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def clean_environment() -> dict[str, str]:
    """Our environment without proxies: the lab never leaves the loopback interface."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def find_program(name: str) -> str:
    """The path of a program that must be installed."""
    # Debian keeps nginx in a folder that only root has on the PATH.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise FileNotFoundError(f"the lab needs the program {name!r}: apt-get install {name}")
    return path
