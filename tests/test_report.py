"""Reports: what a real proxy writes when it ends, held against the schema, and what CI makes of
it."""

import asyncio
import dataclasses
import datetime
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from mitmproxy import exceptions, types
from mitmproxy.test import taddons

import mitmproxy_aia.report
from mitmproxy_aia import Aia, cli
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli import reporting as command_line
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.history import History
from mitmproxy_aia.report import as_json
from mitmproxy_aia.report_files import ReportFiles
from mitmproxy_aia.sources import Found
from tests.cache_cli import Result
from tests.conftest import World
from tests.lab import CaIssuersServer, Issued, Proxy, TlsServer, authority
from tests.lab.terminal import in_terminal
from tests.test_addon import REMOTE_CONTROL, mitmdump, order
from tests.test_cli import COMMAND
from tests.test_history import ISSUER, LEAF, ROOT, Clock, broken, certificates, incomplete

NOW = datetime.datetime(2026, 11, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)
ODD = '<script>alert("1")</script>\x1b[31m\x07\u202e'
"""A name as a server might have it that means harm."""

Report = Callable[..., Result]


@pytest.fixture(scope="module")
def schema() -> Any:
    path = Path(mitmproxy_aia.report.__file__).with_name("report.schema.json")
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """`mitmproxy-aia report ...`"""

    def run(*arguments: str | Path) -> Result:
        status = 0
        try:
            cli.main(["report", *map(str, arguments)])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return Result(out, err, status)

    return run


def written(folder: Path, *servers: str) -> Path:
    """A report of these: "complete", "incomplete" or "broken"."""
    history = History()
    for number, verdict in enumerate(servers):
        name = f"{verdict}-{number}.example:443"
        history.note(name, broken() if verdict == "broken" else incomplete())
        if verdict == "complete":
            history.note_complete(name)
    path = folder / "report.json"
    path.write_text(as_json(history, NOW))
    return path


@pytest.fixture
def reporting(root: Issued, tmp_path: Path) -> Iterator[World]:
    """A proxy that writes report.json when it ends."""
    options: dict[str, str | int | float] = {
        "aia_report": str(tmp_path / "report.json"),
        "aia_timeout": 2,
    }
    with (
        CaIssuersServer() as ca,
        Proxy(trust=[root], scripts=[REMOTE_CONTROL], options=options) as proxy,
    ):
        yield World(root, ca, proxy)


def test_a_real_report(reporting: World, tmp_path: Path, schema: Any, report: Report) -> None:
    """Of a proxy that met an incomplete, a broken, a mended and a complete server."""
    issuer = reporting.authority()
    url = reporting.published(issuer)
    leaf = issuer.issue(aia=[url])
    with (
        TlsServer(leaf) as forgetful,
        TlsServer(leaf) as mended,
        TlsServer(authority("Stranger").issue(aia=[reporting.ca.url("/404.der")])) as refused,
        TlsServer(reporting.root.issue()) as complete,
    ):
        for server in forgetful, refused, mended, complete:
            reporting.get(server.url())
        mended.present(leaf, issuer)
        assert reporting.get(mended.url()).status == 200
    assert not (tmp_path / "report.json").exists()
    reporting.proxy.close()
    content = json.loads((tmp_path / "report.json").read_text())
    schema.validate(content)
    assert content["complete_handshakes"] == 2
    assert [server["name"] for server in content["servers"]] == [
        f"127.0.0.1:{server.port}" for server in (mended, refused, forgetful)
    ]
    assert [server["verdict"] for server in content["servers"]] == [
        "complete",
        "broken",
        "incomplete",
    ]
    now_complete, bad, missing = content["servers"]
    assert now_complete["mended"] >= now_complete["last"]
    assert now_complete["missing"][0]["found"] == "in memory"
    assert "/404.der answered 404" in bad["reason"]
    assert (bad["full_chain"], bad["path"], bad["refused"]) == ("", [], True)
    [found] = missing["missing"]
    assert (found["subject"], found["found"]) == (f"CN={issuer.name}", f"at {url}")
    assert [each["presented"] for each in missing["path"]] == [True, False, False]
    assert [each["origin"] for each in missing["path"]] == [None, url, None]
    sent = read_certificates(missing["full_chain"].encode())
    assert sent == (Certificate(leaf.der), Certificate(issuer.der))
    assert (missing["refused"], missing["protocol"], missing["mended"]) == (False, "TLS", None)
    result = report(tmp_path / "report.json", "--fail-on", "incomplete")
    assert result.status == 2
    assert result.out.splitlines()[-3:-1] == [
        "3 servers with a fault: 1 broken, 1 incomplete, 1 mended",
        "2 handshakes with complete chains",
    ]


def test_of_a_proxy_that_is_stopped(reporting: World, tmp_path: Path) -> None:
    """SIGTERM, as in a container, is an end as well."""
    os.kill(reporting.proxy.process.pid, signal.SIGTERM)
    reporting.proxy.wait()
    assert json.loads((tmp_path / "report.json").read_text())["servers"] == []


def test_the_command(reporting: World, tmp_path: Path, schema: Any) -> None:
    """aia.report writes one while the proxy runs, and says so; a bad name is an error."""
    path = tmp_path / "now.json"
    assert order(reporting, f"run/aia.report {path}").status == 200
    reporting.proxy.wait_for("a report was written to .*now.json")
    schema.validate(json.loads(path.read_text()))
    for bad, words in {
        tmp_path / "now.txt": "takes a file that ends in .json or .html",
        tmp_path / "no" / "where.json": "there is no folder",
        tmp_path: "takes a file that ends in .json or .html",
    }.items():
        reply = order(reporting, f"run/aia.report {bad}")
        assert (reply.status, words in reply.body.decode()) == (400, True)


def test_a_report_that_cannot_be_written(reporting: World, tmp_path: Path) -> None:
    """The folder is gone when the proxy ends: it says so, and ends all the same."""
    folder = tmp_path / "folder"
    folder.mkdir()
    assert order(reporting, f"aia_report={folder}/report.json").status == 200
    folder.rmdir()
    reporting.proxy.close()
    assert f"aia_report: cannot write {folder}/report.json (No such file" in reporting.proxy.log


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("report.txt", "aia_report: takes a file that ends in .json or .html"),
        ("report", "aia_report: takes a file that ends in .json or .html"),
        ("/nonexistent/report.json", "aia_report: there is no folder /nonexistent to write"),
        ("/proc/report.json", "aia_report: nothing can be written to the folder /proc"),
        ("{folder}/d.json", "aia_report: .* is a folder"),
        ("~nobody-of-that-name/report.json", "aia_report: .* begins with a user without a home"),
    ],
)
def test_a_bad_option(tmp_path: Path, value: str, message: str) -> None:
    """Refused at once, with what it takes."""
    (tmp_path / "d.json").mkdir()

    async def main() -> None:
        with taddons.context(Aia()) as context:
            with pytest.raises(exceptions.OptionsError, match=message):
                context.options.update(aia_report=value.replace("{folder}", str(tmp_path)))
            assert context.options.aia_report == ""

    asyncio.run(main())


def test_a_bad_option_at_the_start() -> None:
    """mitmdump does not run for an hour to say at its end that it cannot report."""
    command = [mitmdump(), "-s", "addon/aia.py", "-p", "0", "--set", "aia_report=report.csv"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    assert "aia_report: takes a file that ends in .json or .html" in result.stdout + result.stderr


def test_odd_names(schema: Any, tmp_path: Path, report: Report) -> None:
    """Whatever a server, a certificate or a URL is called, a report is ASCII without control
    characters, and so is the table."""
    odd = ROOT.issue(ODD, ca=True)
    leaf, issuer, root = certificates(odd.issue(ODD), odd, ROOT)
    found = (Found(issuer, f"http://a.example/{ODD}"),)
    history = History()
    history.note(f"{ODD}:443", Outcome((leaf, issuer, root), found=found, presented=(leaf,)))
    history.note("b:443", broken(note=ODD))
    text = as_json(history, NOW)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    content = json.loads(text)
    schema.validate(content)
    assert "alert(" in content["servers"][1]["missing"][0]["subject"]
    path = tmp_path / "report.json"
    path.write_text(text)
    result = report(path)
    assert result.out.replace("\n", "").isprintable()
    assert "<script>" in result.out


def test_long_names(schema: Any) -> None:
    """Of a subject as long as a certificate may be, 2,000 characters are told."""
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "\x01" * 60)
    long = Certificate(ROOT.issue(x509.Name(50 * [unit])).der)
    history = History()
    history.note("a:443", dataclasses.replace(broken(), presented=(long,)))
    text = as_json(history, NOW)
    schema.validate(json.loads(text))
    assert len(json.loads(text)["servers"][0]["presented"][0]["subject"]) == 2_000


def test_times(schema: Any) -> None:
    """In UTC and to the second."""
    history = History(now=Clock())
    history.note("a:443", incomplete())
    content = json.loads(as_json(history, NOW))
    schema.validate(content)
    assert content["written"] == "2026-11-02T03:04:05Z"
    assert content["started"] == "2026-11-01T12:00:01Z"
    assert content["servers"][0]["first"] == "2026-11-01T12:00:02Z"


def test_the_schema_says_all(schema: Any) -> None:
    """No key that is written is undocumented, and the schema finds what is wrong."""
    history = History()
    history.note("a:443", incomplete())
    content = json.loads(as_json(history, NOW))
    definitions = schema.schema["$defs"]
    assert content.keys() == schema.schema["properties"].keys()
    assert content["servers"][0].keys() == definitions["server"]["properties"].keys()
    assert content["servers"][0]["presented"][0].keys() == (
        definitions["certificate"]["properties"].keys()
    )
    spoilers: list[Callable[[Any], object]] = [
        lambda server: server.update(verdict="fine"),
        lambda server: server.pop("reason"),
        lambda server: server.update(last="yesterday"),
        lambda server: server["missing"][0].pop("found"),
        lambda server: server["path"][0].update(sha256="?"),
    ]
    for spoil in spoilers:
        spoiled = json.loads(as_json(history, NOW))
        spoil(spoiled["servers"][0])
        assert not schema.is_valid(spoiled)


@pytest.mark.parametrize(
    ("servers", "fail_on", "status"),
    [
        (("complete",), "incomplete", 0),
        (("complete", "incomplete"), "incomplete", 1),
        (("incomplete", "broken", "complete"), "incomplete", 2),
        (("complete", "incomplete"), "broken", 0),
        (("broken", "incomplete"), "broken", 2),
        (("broken", "incomplete"), "", 0),
    ],
)
def test_exit_status(
    tmp_path: Path, report: Report, servers: tuple[str, ...], fail_on: str, status: int
) -> None:
    """What CI looks at."""
    flags = ["--fail-on", fail_on] if fail_on else []
    assert report(written(tmp_path, *servers), *flags).status == status
    result = report(tmp_path / "report.json", *flags, "--json")
    assert (result.status, json.loads(result.out)["status"]) == (status, status)


@pytest.mark.parametrize("complete", [0, 1])
def test_nothing_has_happened(tmp_path: Path, report: Report, complete: int) -> None:
    """Where every server was out of reach, or the addon was not there, CI is not to go on."""
    content = json.loads(as_json(History(), NOW)) | {"complete_handshakes": complete}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    result = report(path, "--fail-on", "incomplete")
    assert result.status == (0 if complete else 3)
    assert ("tells of no chain at all" in result.err) == (not complete)
    assert report(path).status == 0


def test_the_table(tmp_path: Path, report: Report) -> None:
    """The worst comes first, and each says what is missing or why."""
    result = report(written(tmp_path, "complete", "incomplete", "broken"))
    head, *rows, empty, summary, _, _ = result.out.splitlines()
    assert head.split() == ["VERDICT", "SERVER", "DETAIL"]
    assert [row.split()[:2] for row in rows] == [
        ["BROKEN", "broken-2.example:443"],
        ["INCOMPLETE", "incomplete-1.example:443"],
        ["mended", "complete-0.example:443"],
    ]
    assert "unable to get local issuer" in rows[0]
    assert "forgot CN=Lab Intermediate" in rows[1]
    assert empty == ""
    assert summary == "3 servers with a fault: 1 broken, 1 incomplete, 1 mended"
    path = written(tmp_path)
    started = json.loads(path.read_text())["started"]
    assert report(path).out == (
        "0 servers with a fault\n0 handshakes with complete chains\n"
        f"seen from {started} to 2026-11-02T03:04:05Z\n"
    )


def test_protocols(tmp_path: Path, report: Report) -> None:
    """What is not TLS is said, so that two rows of one server can be told apart."""
    history = History()
    for protocol in "TLS", "QUIC":
        history.note("a.example:443", incomplete(), protocol=protocol)
    file = tmp_path / "report.json"
    file.write_text(as_json(history, NOW))
    _, *rows = report(file).out.splitlines()[:3]
    assert [row.split()[1:4] for row in rows] == [
        ["a.example:443", "(QUIC)", "forgot"],
        ["a.example:443", "forgot", "CN=Lab"],
    ]


@pytest.mark.parametrize(
    ("cache", "at_hand", "words"), [("", False, "at"), ("memory", False, "at"), ("", True, "in")]
)
def test_where_it_is(tmp_path: Path, report: Report, cache: str, at_hand: bool, words: str) -> None:
    """And not that the proxy had it already, which does not help whoever mends the server."""
    outcome = incomplete()
    [found] = outcome.found
    found = dataclasses.replace(found, origin="x", cache=cache, at_hand=at_hand)
    history = History()
    history.note("a:443", dataclasses.replace(outcome, found=(found,)))
    path = tmp_path / "report.json"
    path.write_text(as_json(history, NOW))
    assert f"forgot CN=Lab Intermediate {words} x\n" in report(path).out


def test_on_a_terminal(tmp_path: Path) -> None:
    """In colour, and no wider than it is."""
    path = written(tmp_path, "incomplete", "broken")
    status, shown = in_terminal([*COMMAND, "report", str(path), "--fail-on", "broken"])
    assert status == 2
    assert "\x1b[31mBROKEN" in shown
    assert "\x1b[33mINCOMPLETE" in shown
    plain = shown.replace("\x1b[31m", "").replace("\x1b[33m", "").replace("\x1b[0m", "")
    assert max(map(len, plain.splitlines())) <= 80 + len("\x1b[1m")


def test_from_a_pipe(tmp_path: Path) -> None:
    """`... | mitmproxy-aia report -`"""
    path = written(tmp_path, "broken")
    command = [*COMMAND, "report", "-", "--fail-on", "broken"]
    with path.open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stdout.startswith(b"VERDICT")


def spoiled(**changes: Any) -> str:
    history = History()
    history.note("a:443", incomplete())
    content = json.loads(as_json(history, NOW))
    content["servers"][0] |= changes
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no report: it is not JSON"),
        ("[" * 100_000, "is no report: it is not JSON"),
        ("<!doctype html>", "It looks like HTML"),
        ("[]", "is no report of mitmproxy-aia"),
        ('{"version": 1}', "is no report of mitmproxy-aia"),
        ('{"version": 2, "servers": []}', "is a report of version 2, and this program reads 1"),
        ('{"version": 1, "servers": [{}]}', "is a damaged report (KeyError: 'name')"),
        ('{"version": 1, "servers": 7}', "is a damaged report"),
        ('{"version": 1, "servers": ["text"]}', "is a damaged report"),
        (spoiled(verdict="fine"), "'fine' is no verdict"),
        (spoiled(verdict=["x"]), "is a damaged report"),
        (spoiled(missing=7), "is a damaged report"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_cannot_be_read(
    tmp_path: Path, report: Report, text: str, words: str, flags: tuple[str, ...]
) -> None:
    """Status 3 and one sentence that names the file: CI must not take it for fine."""
    path = tmp_path / "report.json"
    path.write_text(text)
    result = report(path, *flags)
    assert (result.status, result.out) == (3, "")
    assert words in result.err
    assert str(path) in result.err
    assert len(result.err.splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path, report: Report) -> None:
    """The proxy may have been killed before it wrote one."""
    result = report(tmp_path / "none.json", "--fail-on", "broken")
    assert result.status == 3
    assert result.err == (
        f"mitmproxy-aia: cannot read {tmp_path}/none.json (No such file or directory)\n"
    )
    assert report("--fail-on", "never", tmp_path / "none.json").status == 3


def test_a_report_that_is_too_large(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read into memory to find that out."""
    monkeypatch.setattr(command_line, "MAX_REPORT", 2**20)
    path = tmp_path / "report.json"
    path.write_bytes(bytes(2**20 + 1))
    result = report(path)
    assert (result.status, result.err) == (3, f"mitmproxy-aia: {path} is larger than 1 MiB\n")


def test_a_report_without_a_number_that_it_can_do_without(tmp_path: Path, report: Report) -> None:
    """The servers are what counts."""
    path = written(tmp_path, "incomplete")
    content = json.loads(path.read_text()) | {"complete_handshakes": "many"}
    del content["started"]
    path.write_text(json.dumps(content))
    assert report(path).out.endswith("1 server with a fault: 1 incomplete\n")


def test_the_command_without_a_name() -> None:
    """mitmproxy passes on an empty argument."""
    with pytest.raises(exceptions.CommandError, match="takes the name of a file"):
        ReportFiles(History()).report(types.Path(""))


def test_a_full_history_is_told(schema: Any) -> None:
    """How many servers had to make room."""
    history = History(capacity=1)
    for name in "a:443", "b:443":
        history.note(name, dataclasses.replace(broken(), presented=certificates(LEAF, ISSUER)))
    content = json.loads(as_json(history, NOW))
    schema.validate(content)
    assert (content["forgotten_servers"], len(content["servers"])) == (1, 1)
    assert len(content["servers"][0]["presented"]) == 2
