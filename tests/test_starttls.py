"""`check --starttls` with servers that begin in the clear."""

import subprocess
from pathlib import Path
from typing import BinaryIO

import pytest

from mitmproxy_aia.inspection import starttls
from mitmproxy_aia.inspection.targets import parse_target
from mitmproxy_aia.remedies import remedies
from tests.conftest import World
from tests.inspection_cli import InspectionCli
from tests.lab import Issued
from tests.lab.process import find_program
from tests.starttls_server import TALKS, Say, StartTlsServer, Talk


@pytest.fixture
def check(root: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> InspectionCli:
    return InspectionCli("check", tmp_path, capsys, [root], ["--timeout", "5"])


@pytest.mark.parametrize("protocol", TALKS)
def test_incomplete_chain(world: World, check: InspectionCli, protocol: str) -> None:
    """In each of the protocols a leaf alone is found to be incomplete, and completed."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    with StartTlsServer(TALKS[protocol], leaf) as server:
        result = check(f"127.0.0.1:{server.port}", "--starttls", protocol)
    assert result.status == 1
    assert f"after STARTTLS ({protocol})" in result.out
    # It is no web server, and is not told what to write for one.
    assert "nginx" not in result.out
    known = [each.server for each in remedies(starttls=protocol)]
    assert all(f"{server} " in result.out for server in known)
    assert result.out.rstrip().endswith("writes them).") == (known == [])


@pytest.mark.parametrize("protocol", TALKS)
def test_openssl_agrees(world: World, protocol: str) -> None:
    """`openssl s_client -starttls` comes through the same servers: they are no invention of
    ours."""
    with StartTlsServer(TALKS[protocol], world.root.issue()) as server:
        command = [find_program("openssl"), "s_client", "-starttls", protocol]
        command += ["-xmpphost" if protocol == "xmpp" else "-name", "127.0.0.1"]
        command += ["-connect", f"127.0.0.1:{server.port}", "-showcerts"]
        answer = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"-----BEGIN CERTIFICATE-----" in answer.stdout


def silent_after(*answers: bytes) -> Talk:
    """Says these, one for each line of the client's, and then nothing more."""

    def talk(reader: BinaryIO, say: Say) -> None:
        for position, answer in enumerate(answers):
            if position:
                reader.readline()
            say(answer)
        reader.readline()
        raise OSError("enough")

    return talk


def closed(reader: BinaryIO, say: Say) -> None:
    say(MAIL)
    reader.readline()
    raise OSError("enough")


MAIL = b"220 mail.example\r\n"
REFUSALS: dict[str, tuple[str, Talk, str]] = {
    "busy": ("smtp", silent_after(b"421 too\x1b[31m busy\r\n"), 'said "421 too\\x1b[31m busy"'),
    "no ESMTP": ("smtp", silent_after(MAIL, b"500 what?\r\n"), 'said "500 what?"'),
    "no TLS": ("smtp", silent_after(MAIL, b"250 HELP\r\n"), "does not offer STARTTLS"),
    "not now": (
        "smtp",
        silent_after(MAIL, b"250-x\r\n250 STARTTLS\r\n", b"454 not now\r\n"),
        'said "454 not now"',
    ),
    "endless reply": (
        "smtp",
        silent_after(b"220-more\r\n" * 200),
        "sent more than 100 lines in one answer",
    ),
    "endless line": ("smtp", silent_after(b"2" * 20_000), "sent more than 8 KiB in one answer"),
    "closed": ("smtp", closed, "ended the connection before it had agreed to TLS"),
    "ftp without": ("ftp", silent_after(b"220 x\r\n", b"502 no\r\n"), 'said "502 no"'),
    "imap preauth": ("imap", silent_after(b"* PREAUTH hello\r\n"), 'said "* PREAUTH hello"'),
    "imap without": ("imap", silent_after(b"* OK\r\n", b"a BAD no\r\n"), 'said "a BAD no"'),
    "imap endless": (
        "imap",
        silent_after(b"* OK\r\n", b"* X\r\n" * 200),
        "gave no answer to STARTTLS",
    ),
    "pop3 without": ("pop3", silent_after(b"+OK\r\n", b"-ERR no\r\n"), 'said "-ERR no"'),
    "postgres without": ("postgres", lambda _, say: say(b"N"), "has TLS switched off"),
    "no postgres": ("postgres", lambda _, say: say(b"H"), "is no PostgreSQL server that knows TLS"),
    "xmpp without": (
        "xmpp",
        lambda _, say: say(b"<stream:stream><stream:features/>"),
        "does not offer STARTTLS",
    ),
    "xmpp error": (
        "xmpp",
        lambda _, say: say(b"<stream:stream><stream:error/></stream:stream>"),
        "does not offer STARTTLS",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals(world: World, check: InspectionCli, what: str) -> None:
    """Each way not to begin with TLS is said in one sentence, with what the server has said."""
    protocol, talk, words = REFUSALS[what]
    with StartTlsServer(talk, world.root.issue()) as server:
        result = check(f"127.0.0.1:{server.port}", "--starttls", protocol)
    assert result.status == 3
    text = " ".join(result.out.split())
    assert words in text
    assert f"is {protocol} what it speaks?" in text
    assert "\x1b" not in result.out


def test_xmpp_failure(world: World, check: InspectionCli) -> None:
    """The server offers STARTTLS and then refuses it."""

    def talk(reader: BinaryIO, say: Say) -> None:
        say(b"<stream:stream><stream:features><starttls/></stream:features>")
        read = b""
        while b"<starttls" not in read or not read.endswith(b"/>"):
            read += reader.read(1)
        say(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>")

    with StartTlsServer(talk, world.root.issue()) as server:
        result = check(f"127.0.0.1:{server.port}", "--starttls", "xmpp")
    assert "refused STARTTLS" in result.out


def test_silence(world: World, check: InspectionCli) -> None:
    """A server that says nothing at all is given up after --timeout."""
    check.always = ["--timeout", "0.3"]
    with StartTlsServer(silent_after(b""), world.root.issue()) as server:
        result = check(f"127.0.0.1:{server.port}", "--starttls", "smtp")
    assert "gave no answer in 0.3 s" in result.out


def test_ports() -> None:
    """Each protocol has a port of its own, where none is given."""
    ports = {name: port for name, (_, port) in starttls.PROTOCOLS.items()}
    assert ports["smtp"] == 25
    assert ports["postgres"] == 5432
    assert parse_target("mail.example", ports["imap"]).port == 143
