"""Chromium without a window, driven over its own protocol (Chrome DevTools, through a pipe)."""

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from tests.lab.process import clean_environment, find_program
from tests.lab.proxy import Proxy

_PATIENCE = 30.0
_SETTINGS = [
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
]


class BrowserError(RuntimeError):
    """Chromium did not do what it was told to."""


class Browser:
    """One tab that reaches `host` through `proxy`, from construction until `close`. What the
    browser wants for itself leads nowhere.

    `errors` are what the page has written to its console as an error, violations of its
    Content-Security-Policy among them.
    """

    def __init__(
        self,
        proxy: Proxy,
        host: str = "mitm.aia",
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.errors: list[str] = []
        self._numbers = iter(range(1, 1_000_000))
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._loads = 0
        self._session = ""
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp())
            # It writes on into its folder for a moment after its end.
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            its_input, self._output = os.pipe()
            self._input, its_output = os.pipe()
            # The numbers 3 and 4 are what --remote-debugging-pipe means.
            command = ["bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "bash"]
            command += [find_program("chromium"), *_SETTINGS, "--remote-debugging-pipe"]
            command += [f"--user-data-dir={folder}", "about:blank"]
            command += [f"--proxy-pac-url={_only_for(host, proxy)}"]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=clean_environment() | {"HOME": str(folder)} | dict(environment or {}),
                pass_fds=[its_input, its_output],
            )
            os.close(its_input)
            os.close(its_output)
            stack.callback(self._end)
            self._reader = threading.Thread(target=self._read, name="read-chromium")
            self._reader.start()
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """What the browser answers to a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        for answer in self._incoming(method):
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise AssertionError("unreachable")

    def look(self, *, width: int = 1000, height: int = 800, dark: bool = False) -> None:
        """The size of the window, in CSS pixels, and which colours its user likes."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def scripts(self, allowed: bool) -> None:
        """Whether pages may run scripts, from the next one on."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def open(self, url: str) -> None:
        """Goes to `url` and waits until it is loaded."""
        loads = self._loads
        result = self.call("Page.navigate", url=url)
        if "errorText" in result:
            raise BrowserError(f"{url}: {result['errorText']}")
        for _ in self._incoming(f"loading {url}"):
            if self._loads > loads:
                return

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Returns when the expression has become true."""
        self.evaluate(
            "new Promise((resolve, reject) => { const end = Date.now() + 15000; const look = () => "
            f"({condition}) ? resolve() : Date.now() > end ? reject(new Error('not in time')) : "
            "setTimeout(look, 20); look(); })"
        )

    def press(self, key: str) -> None:
        """A key: Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def screenshot(self, kind: Literal["png", "webp"] = "png", **more: object) -> bytes:
        """A picture of what is seen; `more` as Page.captureScreenshot takes it."""
        return base64.b64decode(self.call("Page.captureScreenshot", format=kind, **more)["data"])

    def _incoming(self, why: str) -> Iterator[dict[str, Any]]:
        """Messages as they come. Ends with an error when there are none for a while."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                message = self._messages.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise BrowserError(f"chromium was silent: {why}") from None
            if message is None:
                raise BrowserError(f"chromium has ended: {why}")
            self._note(message)
            yield message

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))

    def _read(self) -> None:
        with os.fdopen(self._input, "rb", buffering=0) as pipe:
            rest = b""
            while data := pipe.read(65536):
                *messages, rest = (rest + data).split(b"\0")
                for message in messages:
                    self._messages.put(json.loads(message))
        self._messages.put(None)

    def _end(self) -> None:
        self._session = ""
        with contextlib.suppress(BrowserError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._output)
        self._reader.join()


def _only_for(host: str, proxy: Proxy) -> str:
    """Which proxy to use, as a program in a URL. Nobody listens at port 9."""
    script = (
        f"function FindProxyForURL(url, host) {{ return host == '{host}'"
        f" ? 'PROXY 127.0.0.1:{proxy.port}' : 'PROXY 127.0.0.1:9'; }}"
    )
    encoded = base64.b64encode(script.encode()).decode()
    return f"data:application/x-ns-proxy-autoconfig;base64,{encoded}"
