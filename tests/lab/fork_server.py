"""A program that imports mitmproxy and then forks for each mitmdump that is asked for, which spares
them most of their start. It runs as long as its stdin, a socket, is open at the other end: see
`forking`."""

import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import coverage
import mitmproxy.tools.dump
import mitmproxy.tools.web.master  # noqa: F401 -- as the one before: `main` imports it when called
from mitmproxy.tools import main

PROGRAMS: dict[str, Callable[[], int | None]] = {
    "mitmdump": main.mitmdump,
    "mitmweb": main.mitmweb,
}
MAX_REQUEST = 100_000


@dataclass(frozen=True)
class Child:
    """`handle` (pidfd_open(2)) can be read when it has ended; `status` is where that is told."""

    pid: int
    handle: int
    status: int

    def reap(self) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.write(self.status, str(code).encode())
        self.close()

    def close(self) -> None:
        os.close(self.handle)
        os.close(self.status)


def serve() -> Callable[[], int | None]:
    """Returns in each forked process, with what is to be run there; in this one it does not.

    A request is a command, its folder and its environment, and comes with two files: for what the
    program says, and for its exit status when it has ended. The answer is its process id.
    """
    requests = socket.socket(fileno=os.dup(0))
    children: list[Child] = []
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if isinstance(key.data, Child):
                    selector.unregister(key.data.handle)
                    children.remove(key.data)
                    key.data.reap()
                    continue
                request, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 2)
                if not request:
                    sys.exit()
                output, status = files
                if (pid := os.fork()) == 0:
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                    os.close(output)
                    os.close(status)
                    for other in children:
                        other.close()
                    requests.close()
                    selector.close()
                    return become(**json.loads(request))
                os.close(output)
                children.append(Child(pid, os.pidfd_open(pid), status))
                selector.register(children[-1].handle, selectors.EVENT_READ, children[-1])
                requests.send(str(pid).encode())


def become(
    command: list[str], folder: str, environment: dict[str, str]
) -> Callable[[], int | None]:
    """This process as if it had just been started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    paths = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = str(Path(command[0]).parent), *paths
    # As coverage.pth does.
    if environment.get("COVERAGE_PROCESS_CONFIG"):
        coverage.process_startup()
    return PROGRAMS[Path(command[0]).name]


if __name__ == "__main__":
    # Ctrl-C is for those who have something to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    sys.exit(serve()())
