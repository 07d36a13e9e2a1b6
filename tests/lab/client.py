"""curl, the client of the lab."""

import html
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bundles import trust_file
from tests.lab.certificates import Issued
from tests.lab.process import clean_environment, find_program
from tests.lab.proxy import Proxy

_WRITE_OUT = '%{stderr}{"transfer": %{json}, "headers": %{header_json}}'


class CurlError(RuntimeError):
    """curl got no answer. `code` is its exit status, as in its manual."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"curl: ({code}) {message}")
        self.code = code


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    http_version: str
    seconds: float

    @property
    def error_text(self) -> str:
        """The message on mitmproxy's error page; empty if this is none."""
        page = self.body.decode(errors="replace")
        message = re.search(r"<h1>\d+ [^<]*</h1>\s*<p>(.*?)</p>", page, re.DOTALL)
        return html.unescape(message[1]) if message else ""


def curl(
    url: str,
    *arguments: str,
    proxy: Proxy | None = None,
    trust: Issued | None = None,
    http2: bool = False,
    timeout: float = 20.0,
) -> Reply:
    """Request `url`, through `proxy` or directly, trusting the proxy's authority or `trust`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [find_program("curl"), "--disable", "--silent", "--write-out", _WRITE_OUT]
        command += ["--max-time", str(timeout), "--http2" if http2 else "--http1.1"]
        if trust:
            command += ["--cacert", str(trust_file(Path(folder, "root.pem"), trust))]
        elif proxy:
            command += ["--cacert", str(proxy.ca_file)]
        if proxy:
            command += ["--proxy", proxy.url]
        result = subprocess.run(
            [*command, *arguments, url], capture_output=True, env=clean_environment(), check=False
        )
    facts = json.loads(result.stderr)
    transfer = facts["transfer"]
    if result.returncode:
        raise CurlError(result.returncode, transfer["errormsg"])
    return Reply(
        status=transfer["http_code"],
        body=result.stdout,
        headers={name: ", ".join(values) for name, values in facts["headers"].items()},
        http_version=transfer["http_version"],
        seconds=transfer["time_total"],
    )
