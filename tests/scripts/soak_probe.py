"""Looks into a running mitmdump, and turns its options: through the proxy, http://probe.test/.

/        what it holds now, in JSON: tasks, threads, open files, records logged by level
/objects how many Python objects there are, by type
/trim    gives what is free back to the system: what is resident then is in use, and no peak of
         a minute ago
/set/X   sets the option X ("name=value"); /run/X runs the command X

Names under .test are this machine, "dead-" ones do not exist, "slow-" ones take three seconds
to be found not to exist. No other name is looked up.
"""

import asyncio
import ctypes
import gc
import ipaddress
import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from typing import Any
from urllib.parse import unquote

from mitmproxy import ctx, http

_ERRORS_KEPT = 20
_STATES = {"01": "established", "08": "close wait", "0A": "listening"}
"""Of TCP connections, those that an open socket is likely to be in (tcp_states.h)."""
_real = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if not name or _is_address(name) or name == "localhost":
        return _real(host, *args, **kwargs)
    if name.startswith("slow-"):
        # It stands for a name server that does not answer.
        time.sleep(3)
    if not name.endswith(".test") or name.startswith(("slow-", "dead-", "x.")):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _real("127.0.0.1", *args, **kwargs)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


class Records(logging.Handler):
    """Counts what is logged, by level, and keeps the first errors."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: Counter[str] = Counter()
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels[record.levelname] += 1
        if record.levelno >= logging.ERROR and len(self.errors) < _ERRORS_KEPT:
            self.errors.append(logging.Formatter().format(record))


class Probe:
    def __init__(self) -> None:
        self._records = Records()

    def running(self) -> None:
        logging.getLogger().addHandler(self._records)

    def done(self) -> None:
        logging.getLogger().removeHandler(self._records)

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != "probe.test":
            return
        what, _, argument = unquote(flow.request.path).removeprefix("/").partition("/")
        answer: object = None
        try:
            match what:
                case "set":
                    ctx.options.set(argument)
                case "run":
                    ctx.master.commands.call_strings(argument, [])
                case "trim":
                    gc.collect()
                    ctypes.CDLL(None).malloc_trim(0)
                case "objects":
                    gc.collect()
                    answer = Counter(_type(each) for each in gc.get_objects())
                case _:
                    answer = self._state()
        except Exception as error:
            flow.response = http.Response.make(400, str(error))
        else:
            flow.response = http.Response.make(200, json.dumps(answer))

    def _state(self) -> dict[str, object]:
        return {
            "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "files": sorted(_open_files()),
            "levels": dict(self._records.levels),
            "errors": self._records.errors,
        }


def _type(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _open_files() -> list[str]:
    """Sockets as `socket:[inode] state, here to there`: one that is left has to be found."""
    found, sockets = [], _sockets()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that listed them
            continue
        found.append(f"{name} {sockets[name]}" if name in sockets else name)
    return found


def _sockets() -> dict[str, str]:
    """The TCP connections of this machine over IPv4 (proc_pid_net(5))."""
    known = {}
    with open("/proc/self/net/tcp") as table:
        for row in [*table][1:]:
            here, there, state, inode = (row.split()[column] for column in (1, 2, 3, 9))
            what = f"{_STATES.get(state, state)}, {_port(here)} to {_port(there)}"
            known[f"socket:[{inode}]"] = what
    return known


def _port(address: str) -> int:
    return int(address.partition(":")[2], 16)


socket.getaddrinfo = _getaddrinfo
addons = [Probe()]
