"""A real mitmdump, in a process of its own."""

import contextlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from tests.lab.bundles import trust_file
from tests.lab.certificates import Issued
from tests.lab.forking import ForkServer
from tests.lab.process import Process

ADDON = Path(__file__).resolve().parents[2] / "addon" / "aia.py"

_IN_USE = "ddress already in use"
_ATTEMPTS = 3


class Proxy:
    """mitmdump on a free loopback port, from construction until `close`.

    `trust` are the roots it trusts upstream. `options` are passed with --set, in the words of
    mitmproxy ("true", "false"). `addon=False` is stock mitmproxy. `mode` is mitmproxy's, for
    example "reverse:https://127.0.0.1:4433". It listens at `host`, an IPv4 address of this
    machine. With `listen=False` it serves nobody, as for `-nC flows`, and ends by itself: see
    `wait`. `fresh` is for what counts before mitmproxy does anything: other files to import, a
    configuration of OpenSSL, a network of this thread only.
    """

    fork_server: ClassVar[ForkServer | None] = None
    """What starts those that need not be fresh; if there is none, all are."""
    authority: ClassVar[Issued | None] = None
    """Theirs, which their clients have to trust; if there is none, each makes one of its own."""

    def __init__(
        self,
        *arguments: str,
        trust: Sequence[Issued] = (),
        addon: bool = True,
        options: Mapping[str, str | int | float] | None = None,
        scripts: Sequence[Path] = (),
        mode: str = "regular",
        listen: bool = True,
        host: str = "127.0.0.1",
        confdir: Path | None = None,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        program: Literal["mitmdump", "mitmweb"] = "mitmdump",
        fresh: bool = False,
    ) -> None:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.confdir = confdir or folder
            settings: dict[str, str | int | float | Path] = {
                "confdir": self.confdir,
                "termlog_verbosity": "debug",
                "flow_detail": 1,
            }
            if trust:
                roots = trust_file(folder / "roots.pem", *trust)
                settings["ssl_verify_upstream_trusted_ca"] = roots
            command: list[str | Path] = [Path(python).parent / program]
            if listen:
                command += ["--listen-host", host, "--listen-port", "0", "--mode", mode]
            for name, value in (settings | dict(options or {})).items():
                command += ["--set", f"{name}={value}"]
            for script in [*([ADDON] if addon else []), *scripts]:
                command += ["-s", script]
            # The log is to arrive when it is written and not when the pipe is full.
            listening = rf"listening at (?:.* and )?{re.escape(host)}:(\d+)"
            variables = {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
            ready = not fresh and python == sys.executable
            start = self.fork_server.start if ready and self.fork_server else None
            if ready and self.authority and not confdir:
                pem = self.authority.key_pem + self.authority.pem
                (folder / "mitmproxy-ca.pem").write_bytes(pem)
                self.ca_file.write_bytes(self.authority.pem)
            for attempt in range(1, _ATTEMPTS + 1):
                self.process = stack.enter_context(
                    Process([*command, *arguments], environment=variables, start=start)
                )
                try:
                    self.port = int(self.wait_for(listening)[1]) if listen else 0
                    break
                except RuntimeError:
                    # Where it listens on TCP and UDP, it takes a free port of the one and then
                    # wants the same of the other.
                    if attempt == _ATTEMPTS or _IN_USE not in self.log:
                        raise
            self._host = host
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The proxy itself, as a client of it is configured."""
        return f"http://{self._host}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The authority that its clients have to trust."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    @property
    def log(self) -> str:
        return self.process.log

    def lines(self) -> list[str]:
        return self.process.lines()

    def wait_for(self, pattern: str, timeout: float = 15.0, *, after: int = 0) -> re.Match[str]:
        """The first match in the log: see `Process.wait_for`."""
        return self.process.wait_for(pattern, timeout, after=after)

    def wait(self, timeout: float = 15.0) -> int:
        """The exit status of a mitmdump that ends by itself."""
        return self.process.wait(timeout)
