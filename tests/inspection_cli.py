"""Running `mitmproxy-aia check` and `verify` in the process of the tests."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_aia import cli
from tests.cache_cli import Result
from tests.lab import Issued, trust_file


@dataclass
class InspectionCli:
    """`mitmproxy-aia COMMAND --trust FILE`. Without `trust`, certifi's roots count."""

    command: str
    folder: Path
    capsys: pytest.CaptureFixture[str]
    trust: Sequence[Issued] = ()
    always: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str | Path | int) -> Result:
        options = [self.command, *self.always]
        if self.trust:
            options += ["--trust", str(trust_file(self.folder / "roots.pem", *self.trust))]
        status = 0
        try:
            cli.main([*options, *map(str, arguments)])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        out, err = self.capsys.readouterr()
        return Result(out, err, status)

    def json(self, *arguments: str | Path | int) -> tuple[list[dict[str, Any]], int]:
        """The results, and the exit status."""
        result = self(*arguments, "--json")
        answer = json.loads(result.out)
        assert answer["version"] == 1
        return answer["results"], result.status

    def one(self, *arguments: str | Path | int) -> dict[str, Any]:
        """The only result."""
        [result], _ = self.json(*arguments)
        return result
