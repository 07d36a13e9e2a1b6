"""Breaks, one at a time, what the addon relies on: `curl http://control.test/SEAM/KIND`.

`/none` mends it and lets go what hangs. `/left` answers with what of the addon still runs.
"""

import asyncio
import datetime
import functools
import json
import os
import shutil
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mitmproxy import ctx, http
from mitmproxy.addons.tlsconfig import TlsConfig

import mitmproxy_aia.addon
import mitmproxy_aia.announcements
from mitmproxy_aia import completion, handshake, search, tiers, verification
from mitmproxy_aia.sources import aia, download, files, memory, slots, sqlite, transports


class Panic(BaseException):
    """As `cryptography`'s pyo3_runtime.PanicException: no Exception."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("on purpose"),
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "CancelledError": asyncio.CancelledError,
    "Panic": lambda: Panic("on purpose"),
}
RETURNED: dict[str, object] = {"None": None, "an object": object()}

Style = str
_aia = mitmproxy_aia.addon.Aia
SEAMS: dict[str, tuple[Any, str, Style]] = {
    "completion at once": (completion.Completion, "complete_at_once", "sync"),
    "completion": (completion.Completion, "complete", "async"),
    "search": (search.Search, "run", "sync"),
    "verifier for a connection": (verification.Verifier, "for_connection", "class"),
    "judge": (verification.Verifier, "judge", "sync"),
    "step": (verification.Verifier, "step", "sync"),
    "presented": (handshake, "presented", "sync"),
    "curable": (handshake, "curable", "sync"),
    "watch": (handshake, "watch", "sync"),
    "verified intermediates": (handshake, "verified_intermediates", "sync"),
    "begin": (_aia, "_begin", "sync"),
    "conclude": (_aia, "_conclude", "sync"),
    "server": (mitmproxy_aia.addon, "server_of", "sync"),
    "complete": (_aia, "_complete", "sync"),
    "learn": (_aia, "_learn", "sync"),
    "sources": (tiers.Tiers, "sources", "property"),
    "memory": (memory.MemorySource, "known_issuers", "sync"),
    "memory, keeping": (memory.MemorySource, "keep", "sync"),
    "files": (files.FilesSource, "known_issuers", "sync"),
    "cache": (sqlite.SqliteSource, "fetch_issuers", "generator"),
    "cache, keeping": (sqlite.SqliteSource, "keep", "sync"),
    "aia": (aia.AiaSource, "fetch_issuers", "generator"),
    "slots": (slots.Slots, "ask", "sync"),
    "download": (download.Downloader, "__call__", "async"),
    "answer": (download.Downloader, "_get", "async"),
    "reading": (download, "read_certificates", "sync"),
    "transport": (transports.Transports, "direct", "async"),
    "names": (socket, "getaddrinfo", "names"),
    "threads": (threading.Thread, "start", "threads"),
    "TlsConfig": (TlsConfig, "tls_start_server", "sync"),
    "layer": (handshake, "tls_layers", "layers"),
    "log": (mitmproxy_aia.announcements.logger, "log", "sync"),
    "warning": (mitmproxy_aia.announcements.logger, "warning", "sync"),
}
_OURS = "ca.fault.test"


class FaultSwitch:
    def __init__(self) -> None:
        self._mend: list[Callable[[], object]] = []
        self._let_go = asyncio.Event()
        self._let_threads_go = threading.Event()

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != "control.test":
            return
        order, _, kind = unquote(flow.request.path.removeprefix("/")).partition("/")
        answer: object = order
        if order == "left":
            answer = self._left()
        else:
            self._mend_all()
            if order == "clock":
                self._shift_clock(int(kind))
            elif order == "cache file":
                self._spoil(Path(ctx.options.confdir).expanduser() / "aia.sqlite3", kind)
            elif order == "option":
                name = kind.partition("=")[0]
                before = getattr(ctx.options, name)
                ctx.options.set(kind)
                self._mend.append(lambda: ctx.options.update(**{name: before}))
            elif order == "TlsConfig is gone":
                found = ctx.master.addons.lookup.pop("tlsconfig")
                self._mend.append(lambda: ctx.master.addons.lookup.update(tlsconfig=found))
            elif order != "none":
                self._break(order, kind)
        flow.response = http.Response.make(200, json.dumps(answer))

    def done(self) -> None:
        self._mend_all()

    def _mend_all(self) -> None:
        for mend in reversed(self._mend):
            mend()
        self._mend.clear()
        self._let_go.set()
        self._let_threads_go.set()
        self._let_go, self._let_threads_go = asyncio.Event(), threading.Event()

    def _left(self) -> list[str]:
        tasks = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
        threads = [thread.name for thread in threading.enumerate()]
        return [name for name in tasks + threads if name.startswith(("aia ", "handle_hook(aia"))]

    def _break(self, seam: str, kind: str) -> None:
        owner, name, style = SEAMS[seam]
        before = vars(owner).get(name)
        if before is None:
            self._mend.append(lambda: delattr(owner, name))
        else:
            self._mend.append(lambda: setattr(owner, name, before))
        setattr(owner, name, self._broken(style, kind, before))

    def _broken(self, style: Style, kind: str, real: Any) -> Any:
        let_go, let_threads_go = self._let_go, self._let_threads_go

        def now(*_: object, **__: object) -> Any:
            if kind in RAISED:
                raise RAISED[kind]()
            return RETURNED[kind]

        async def later(*_: object, **__: object) -> Any:
            if kind == "hang":
                await let_go.wait()
                raise RuntimeError("let go")
            return now()

        async def generate(*_: object, **__: object) -> Any:
            yield await later()

        def look_up(host: Any, *arguments: Any, **more: Any) -> Any:
            if host != _OURS:
                return real(host, *arguments, **more)
            if kind == "hang":
                let_threads_go.wait()
                raise OSError("let go")
            if kind.startswith("["):
                return json.loads(kind)
            return now()

        def start(thread: threading.Thread) -> None:
            if not thread.name.startswith("aia "):
                real(thread)
            else:
                now()

        by_style: dict[Style, Any] = {
            "sync": now,
            "async": later,
            "generator": generate,
            "class": classmethod(now),
            "property": property(now),
            "names": look_up,
            "threads": start,
            "layers": types.SimpleNamespace(ServerTLSLayer=type("Other", (), {})),
        }
        return by_style[style]

    def _shift_clock(self, days: int) -> None:
        """For all of the package that reads the wall clock."""
        shift = datetime.timedelta(days=days)

        class Shifted(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.now(tz) + shift

        false_datetime = types.ModuleType("datetime")
        vars(false_datetime).update(vars(datetime), datetime=Shifted)
        false_time = types.ModuleType("time")
        seconds = int(shift.total_seconds())
        vars(false_time).update(
            vars(time),
            time=lambda: time.time() + seconds,
            time_ns=lambda: time.time_ns() + seconds * 10**9,
        )
        for module in [*_modules()]:
            for name, false in ("datetime", false_datetime), ("time", false_time):
                real = vars(module).get(name)
                if isinstance(real, types.ModuleType):
                    setattr(module, name, false)
                    self._mend.append(functools.partial(setattr, module, name, real))

    def _spoil(self, file: Path, kind: str) -> None:
        for path in file, Path(f"{file}-wal"), Path(f"{file}-shm"):
            path.unlink(missing_ok=True)
        if kind == "junk":
            file.write_bytes(os.urandom(10_000))
        elif kind == "empty":
            file.touch()
        elif kind == "a folder":
            file.mkdir()
            self._mend.append(lambda: shutil.rmtree(file, ignore_errors=True))


def _modules() -> list[types.ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith("mitmproxy_aia.")]


addons = [FaultSwitch()]
