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
from pathlib import Path

import coverage
from mitmproxy.tools import main

# What `main` imports when it is called.
import mitmproxy.tools.dump  # isort: skip
import mitmproxy.tools.web.master  # noqa: F401 # isort: skip

PROGRAMS: dict[str, Callable[[], int | None]] = {
    "mitmdump": main.mitmdump,
    "mitmweb": main.mitmweb,
}
MAX_REQUEST = 100_000


def serve() -> Callable[[], int | None]:
    """Returns in each forked process, with what is to be run there; in this one it does not.

    A request is a command, its folder and its environment, and comes with two files: for what the
    program says, and for its exit status when it has ended. The answer is its process id.
    """
    requests = socket.socket(fileno=os.dup(0))
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj in running:
                    ended = int(str(key.fileobj))
                    selector.unregister(ended)
                    pid, status = running.pop(ended)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.write(status, str(code).encode())
                    os.close(status)
                    os.close(ended)
                    continue
                request, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 2)
                if not request:
                    sys.exit()
                output, status = files
                if (pid := os.fork()) == 0:
                    os.dup2(output, 1)
                    os.dup2(output, 2)
                    for file in output, status, *running, *(each for _, each in running.values()):
                        os.close(file)
                    requests.close()
                    selector.close()
                    return become(**json.loads(request))
                os.close(output)
                handle = os.pidfd_open(pid)
                running[handle] = pid, status
                selector.register(handle, selectors.EVENT_READ)
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
