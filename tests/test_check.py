"""`mitmproxy-aia check` against real servers: the verdict, what is missing and where it is."""

import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.conftest import World
from tests.inspection_cli import InspectionCli
from tests.lab import Issued, TlsServer, authority, common_name, curl, nginx, openssl_s_server
from tests.lab.process import clean_environment
from tests.lab.terminal import in_terminal
from tests.test_cli import COMMAND, SOURCE_ROOT


@pytest.fixture
def check(root: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> InspectionCli:
    return InspectionCli("check", tmp_path, capsys, [root])


def at(server: TlsServer, host: str = "127.0.0.1") -> str:
    return f"{host}:{server.port}"


def sha256(issued: Issued) -> str:
    return Certificate(issued.der).fingerprint.hex()


@pytest.mark.parametrize("tls", [(), ("--tls12",)])
def test_incomplete(world: World, check: InspectionCli, tls: tuple[str, ...]) -> None:
    """root -> [intermediate] -> leaf: what is missing, where it is, and what to do about it."""
    intermediate = world.authority()
    url = world.published(intermediate)
    leaf = intermediate.issue("www", aia=[url])
    with TlsServer(leaf) as server:
        result = check(at(server), *tls)
        facts = check.one(at(server), *tls)
    assert result.status == 1
    assert result.out.splitlines()[0].split() == [at(server), "INCOMPLETE"]
    assert "As sent     unable to get local issuer certificate\n" in result.out
    assert f"FORGOTTEN  ○ CN={intermediate.name} " in result.out
    assert f"             │ at {url}\n" in result.out
    assert "trusted    ◆ CN=Lab Root " in result.out
    assert "ssl_certificate /etc/nginx/fullchain.pem;" in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert facts["verdict"] == "incomplete"
    assert facts["connection"]["tls"] == ("TLSv1.2" if tls else "TLSv1.3")
    assert facts["faults"][0]["text"] == "unable to get local issuer certificate"
    assert [each["sha256"] for each in facts["presented"]] == [sha256(leaf)]
    assert [each["sha256"] for each in facts["path"]] == [
        *map(sha256, (leaf, intermediate, world.root))
    ]
    assert [each["origin"] for each in facts["path"]] == [None, url, None]
    assert [each["presented"] for each in facts["path"]] == [True, False, False]
    assert [each["where"] for each in facts["attempts"]] == [url]
    assert read_certificates(facts["full_chain"].encode()) == (
        Certificate(leaf.der),
        Certificate(intermediate.der),
    )


def test_complete(world: World, check: InspectionCli) -> None:
    """root -> intermediate -> leaf, and a root that is sent for nothing: exit status 0."""
    intermediate = world.authority()
    url = world.published(intermediate)
    with TlsServer(intermediate.issue(aia=[url]), intermediate, world.root) as server:
        result = check(at(server))
        facts = check.one(at(server))
    assert result.status == 0
    assert result.out.splitlines()[0].split() == [at(server), "complete"]
    assert "verified by OpenSSL: nothing is missing" in result.out
    assert "in the trust store, and sent for nothing" in result.out
    assert "What to do" not in result.out
    assert facts["faults"] == facts["attempts"] == []
    assert len(facts["path"]) == 3


def test_broken(world: World, check: InspectionCli) -> None:
    """Nobody has the intermediate: OpenSSL's words, and what was tried."""
    url = world.ca.url(world.path())
    with TlsServer(world.authority().issue(aia=[url])) as server:
        result = check(at(server))
        facts = check.one(at(server))
    assert result.status == 2
    assert "Completed   unable to get local issuer certificate\n" in result.out
    assert f"{url} answered 404" in " ".join(result.out.split())
    assert "MISSING    ✗ CN=Lab Intermediate" in result.out
    assert facts["reason"] == f"unable to get local issuer certificate (AIA: {url} answered 404)"
    assert facts["path"] == []
    assert facts["full_chain"] == ""
    # It may be the trust that lacks something.
    advice = " ".join(result.out.partition("What to do")[2].split())
    assert advice.startswith("Whoever issued the certificate can give you CN=Lab Intermediate")
    assert "--intermediates FILE" in advice
    assert "--trust FILE" in advice


def test_issuer_of_an_intermediate_is_missing(world: World, check: InspectionCli) -> None:
    """What names no URL of its issuer has a root above it, most often; what names one has an
    intermediate there, which somebody has as a file."""
    root, url = authority("Other Root"), world.ca.url(world.path())
    advice = []
    for aia in [], [url]:
        upper = root.issue("Upper", ca=True, aia=aia)
        with TlsServer(upper.issue(), upper) as server:
            result = check(at(server))
        assert result.status == 2
        advice.append(" ".join(result.out.partition("What to do")[2].split()))
    assert advice[0].startswith("If your browser trusts CN=Other Root, or")
    assert advice[1].startswith("Whoever issued the certificate can give you CN=Other Root:")


@pytest.mark.parametrize("fault", ["expired", "name", "self-signed"])
def test_trust_is_not_all_that_lacks(world: World, check: InspectionCli, fault: str) -> None:
    """What else is wrong would still be wrong with another root, or with the intermediate."""
    issuer = world.authority()
    if fault == "expired":
        leaf, words = issuer.issue(expired=True), "certificate has expired"
    elif fault == "name":
        leaf, words = issuer.issue(hosts=["other.example"]), "IP address mismatch"
    else:
        leaf, words = authority("Self", hosts=["other.example"]), "self-signed certificate"
    with TlsServer(leaf) as server:
        result = check(at(server))
    assert result.status == 2
    assert "What to do" not in result.out
    assert f'no other path could cure "{words}' in " ".join(result.out.split())


def test_unknown_root(world: World, check: InspectionCli) -> None:
    """[Other Root] -> intermediate -> leaf: a whole chain to a root that nobody trusts."""
    other = authority("Other Root")
    intermediate = other.issue("Other CA", ca=True)
    with TlsServer(intermediate.issue(), intermediate, other) as server:
        result = check(at(server))
    assert result.status == 2
    assert "UNTRUSTED  ✗ CN=Other Root" in result.out
    assert "What to do  If your browser trusts CN=Other Root, or" in result.out


def test_wrong_name(world: World, check: InspectionCli) -> None:
    """A complete chain for other names is broken; it says which. Nothing is downloaded."""
    intermediate = world.authority()
    downloads = world.ca.downloads.total()
    leaf = intermediate.issue(hosts=["a.example", "10.9.8.7"], aia=[world.published(intermediate)])
    with TlsServer(leaf, intermediate) as server:
        result = check(at(server))
        assert check(at(server), "--sni", "a.example").status == 0
        assert check(at(server), "--sni", "b.example").status == 2
    assert result.status == 2
    assert "IP address mismatch: the certificate is for a.example, 10.9.8.7" in result.out
    assert "nothing was tried: no other path could cure this" in result.out
    assert "trusted    ◆ CN=Lab Root" in result.out
    assert "What to do" not in result.out
    assert world.ca.downloads.total() == downloads


def test_no_name(world: World, check: InspectionCli) -> None:
    """A leaf without names, and one with too many to tell."""
    with TlsServer(world.root.issue(hosts=[])) as server:
        assert "the certificate is for no name at all" in check(at(server)).out
    with TlsServer(world.root.issue(hosts=[f"h{n}.example" for n in range(30)])) as server:
        text = " ".join(check(at(server)).out.split())
        assert "h9.example, and 20 more" in text


def test_expired(world: World, check: InspectionCli) -> None:
    """An expired leaf is broken however complete its chain is, and says since when."""
    intermediate = world.authority()
    leaf = intermediate.issue("old", expired=True)
    with TlsServer(leaf, intermediate) as server:
        result = check(at(server))
    day = f"{leaf.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert result.status == 2
    assert f"certificate has expired: CN=old, on {day}" in result.out
    assert f"EXPIRED {day}" in result.out


def test_several_faults(world: World, check: InspectionCli) -> None:
    """Not yet valid, another name, and incomplete: all is said at once."""
    leaf = world.authority().issue("new", not_yet_valid=True, hosts=["a.example"])
    with TlsServer(leaf) as server:
        result = check(at(server))
        facts = check.one(at(server))
    assert result.status == 2
    for words in "certificate is not yet valid", "IP address mismatch", "unable to get local":
        assert words in result.out
    assert "not sent, and not looked for" in result.out
    for words in "certificate is not yet valid", "IP address mismatch":
        assert words in facts["reason"]


def test_not_yet_valid(world: World, check: InspectionCli) -> None:
    """It says from when on."""
    leaf = world.root.issue("new", not_yet_valid=True)
    with TlsServer(leaf) as server:
        text = " ".join(check(at(server)).out.split())
    assert f"CN=new, from {leaf.certificate.not_valid_before_utc:%Y-%m-%d} on" in text


def test_astray(world: World, check: InspectionCli) -> None:
    """root -> CA -> leaf, and an expired CA of the same key in front of it: nothing is missing,
    and yet OpenSSL fails. What leads astray is named."""
    good = world.authority()
    expired = world.root.issue(good.certificate.subject, ca=True, key=good, expired=True)
    with TlsServer(good.issue(), expired) as server:
        offered = check(at(server), "--intermediates", _saved(check.folder / "good.der", good))
    assert offered.status == 1
    assert "Needless" in offered.out
    assert f"in {check.folder / 'good.der'}" in "".join(offered.out.split("\n")).replace("  ", "")


def _saved(path: Path, issued: Issued) -> Path:
    path.write_bytes(issued.der)
    return path


def test_led_astray(world: World, check: InspectionCli) -> None:
    """root -> CA -> leaf is presented, but a CA of the same key from an unknown root stands before
    it: nothing is missing, and yet OpenSSL fails."""
    good = world.authority()
    stranger = authority("Stranger").issue(good.certificate.subject, ca=True, key=good)
    with TlsServer(good.issue(), stranger, good) as server:
        one = check(at(server))
        two = check(at(server), at(server, "localhost"), "--jobs", "1")
    assert one.status == two.status == 1
    assert "also what leads astray" in " ".join(one.out.split())
    assert f"Needless    CN={good.name} (sent, and not used)" in one.out
    assert "FORGOTTEN" not in one.out
    assert "The server sent all that is needed" in two.out


def test_purpose(world: World, check: InspectionCli) -> None:
    """A leaf that is for clients only, with a whole chain: no other path could cure that."""
    with TlsServer(world.root.issue(extended_key_usage=["clientAuth"])) as server:
        result = check(at(server))
    assert result.status == 2
    assert re.search("As sent     .*certificate purpose\n", result.out)
    assert "trusted    ◆" in result.out


def test_path_that_is_refused(world: World, check: InspectionCli) -> None:
    """root -> upper (pathlen:0) -> lower -> leaf: all is there, and OpenSSL says why not."""
    upper = world.authority(path_length=0)
    lower = world.authority(upper)
    with TlsServer(lower.issue(), lower, upper) as server:
        result = check(at(server))
    assert result.status == 2
    assert "Completed   path length constraint exceeded\n" in result.out
    assert "unreached  ✗ CN=Lab Root" in result.out


def test_limits_are_told(world: World, check: InspectionCli) -> None:
    """Eight intermediates, of which each has to be downloaded for the next."""
    issuer = world.root
    for _ in range(8):
        aia = [] if issuer is world.root else [world.published(issuer)]
        issuer = world.authority(issuer, aia=aia)
    with TlsServer(issuer.issue(aia=[world.published(issuer)])) as server:
        result = check(at(server))
    assert result.status == 2
    assert "nothing was asked beyond 6 downloads in a row" in result.out


def test_names_that_cannot_be_read(
    world: World, check: InspectionCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge certificate is not parsed to tell its names."""
    monkeypatch.setattr("mitmproxy_aia.certificates.MAX_READABLE", 100)
    with TlsServer(world.root.issue(hosts=["a.example"])) as server:
        text = " ".join(check(at(server)).out.split())
    assert "the certificate is for names that cannot be read" in text


def test_fullchain(world: World, check: InspectionCli, tmp_path: Path) -> None:
    """What is written satisfies a client that knows nothing but the root."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    file = tmp_path / "full chain.pem"
    with TlsServer(leaf) as server:
        result = check(at(server), "--fullchain", file)
    assert result.status == 1
    assert "cat 'full chain.pem'" in result.out or "full chain.pem" in result.out
    written = read_certificates(file.read_bytes())
    assert written == (Certificate(leaf.der), Certificate(intermediate.der))
    assert file.read_text().startswith("# CN=Lab Leaf\n-----BEGIN CERTIFICATE-----\n")


def test_nothing_is_written_of_a_broken_chain(
    world: World, check: InspectionCli, tmp_path: Path
) -> None:
    """A file that is there stays as it is."""
    file = tmp_path / "full.pem"
    file.write_text("mine")
    with TlsServer(world.authority().issue()) as server:
        result = check(at(server), "--fullchain", file)
    assert (result.status, file.read_text()) == (2, "mine")
    assert f"{file} was not written: there is no verified chain" in result.err
    with TlsServer(world.root.issue()) as server:
        result = check(at(server), "--fullchain", tmp_path / "no" / "full.pem", "--json")
    assert result.status == 3
    assert "cannot write" in result.err


def test_names_and_addresses(world: World, check: InspectionCli) -> None:
    """--connect says where, --sni which name; the name is what the certificate must have."""
    leaf = world.root.issue(hosts=["www.example.com", "xn--bcher-kva.example"])
    with TlsServer(leaf) as server:
        assert check("www.example.com", "--connect", at(server)).status == 0
        assert check(at(server), "--sni", "www.example.com").status == 0
        found = check.one(f"bücher.example:{server.port}", "--connect", "127.0.0.1")
        shown = check("www.example.com", "--connect", at(server), "--sni", "bücher.example")
    assert found["verdict"] == "complete"
    assert found["name"] == f"bücher.example:{server.port}"
    assert found["connection"]["name"] == "xn--bcher-kva.example"
    assert "asked for xn--bcher-kva.example" in shown.out


def test_ipv6(world: World, check: InspectionCli) -> None:
    """An address in brackets, as it stands in a URL."""
    with TlsServer(world.root.issue(hosts=["::1"]), host="::1") as server:
        result = check(f"https://[::1]:{server.port}/path?query")
        assert check.one("::1", "--connect", f"[::1]:{server.port}")["verdict"] == "complete"
    assert result.status == 0
    assert f"Connected   [::1]:{server.port}, TLS" in result.out


def test_name_that_openssl_does_not_take(world: World, check: InspectionCli) -> None:
    """From OpenSSL 4 on one letter is none; then it is said."""
    with TlsServer(world.root.issue(hosts=["a"])) as server:
        result = check(at(server), "--sni", "a")
    if result.status != 0:
        assert result.status == 3
        words = "cannot be asked for a: OpenSSL does not take the host name 'a'"
        assert words in " ".join(result.out.split())


def test_other_programs(world: World, check: InspectionCli) -> None:
    """nginx and openssl s_server, incomplete."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    with nginx(leaf) as running:
        assert check(f"localhost:{running.port}").status == 1
    with openssl_s_server(leaf, intermediate) as running:
        assert check(f"127.0.0.1:{running.port}").status == 0


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_client_certificate(world: World, check: InspectionCli, tls: str) -> None:
    """A server that wants a certificate of its clients has presented its own before."""
    leaf = world.root.issue()
    with TlsServer(leaf, tls=tls, client_ca=world.root) as server:  # type: ignore[arg-type] # is one
        result = check(at(server))
    assert result.status == 0


def test_trusted_leaf(
    check: InspectionCli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A self-signed leaf that is trusted is the whole path, and all that is sent."""
    leaf = authority("Own", ca=False, hosts=["127.0.0.1"])
    own = InspectionCli("check", tmp_path, capsys, [leaf])
    with TlsServer(leaf) as server:
        assert check(at(server)).status == 2
        facts = own.one(at(server))
    assert [each["sha256"] for each in facts["path"]] == [sha256(leaf)]
    assert read_certificates(facts["full_chain"].encode()) == (Certificate(leaf.der),)


def test_default_trust(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --trust the roots of certifi count, as in mitmproxy, and it says so."""
    with TlsServer(world.root.issue()) as server:
        result = InspectionCli("check", tmp_path, capsys)(at(server))
    assert result.status == 2
    assert "the roots of certifi, mitmproxy's default" in result.out


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"nothing", "holds no trusted roots: it is not a certificate"), (None, "cannot be read")],
)
def test_bad_trust(check: InspectionCli, content: bytes | None, words: str) -> None:
    """A file that is none, or not there, is named."""
    file = check.folder / "bad.pem"
    if content is not None:
        file.write_bytes(content)
    check.trust = ()
    result = check("127.0.0.1", "--trust", file)
    assert result.status == 3
    assert f"--trust: {file} {words}" in result.err


def test_trust_in_der(world: World, check: InspectionCli) -> None:
    """OpenSSL reads PEM only; a root as it is downloaded does as well."""
    check.trust = ()
    with TlsServer(world.root.issue()) as server:
        file = _saved(check.folder / "root.der", world.root)
        assert check(at(server), "--trust", file).status == 0


def test_offline(world: World, check: InspectionCli) -> None:
    """Nothing is downloaded, and what would have been is named."""
    intermediate = world.authority()
    url = world.published(intermediate)
    leaf = intermediate.issue(aia=[url])
    file = _saved(check.folder / "int.der", intermediate)
    with TlsServer(leaf) as server:
        result = check(at(server), "--offline")
        assert check(at(server), "--offline", "--intermediates", file).status == 1
    assert result.status == 2
    assert f"{url} was not downloaded (--offline)" in " ".join(result.out.split())
    assert not any(url.endswith(path) for path in world.ca.downloads)


def test_cache(world: World, check: InspectionCli) -> None:
    """--cache is filled, and used; without it nothing is remembered."""
    intermediate = world.authority()
    path = world.path()
    leaf = intermediate.issue(aia=[world.ca.serve(path, intermediate.der)])
    cache = check.folder / "cache.sqlite3"
    with TlsServer(leaf) as server:
        for _ in range(2):
            assert check(at(server)).status == 1
        assert world.ca.downloads[path] == 2
        for _ in range(2):
            assert check(at(server), "--cache", cache).status == 1
        assert world.ca.downloads[path] == 3
        assert "in cache.sqlite3, first at http" in check(at(server), "--cache", cache).out
    assert [entry.certificate for entry in SqliteCache(cache).entries()] == [
        Certificate(intermediate.der)
    ]


def test_deny(world: World, check: InspectionCli) -> None:
    """The egress rule of the proxy holds, in the words of the command line."""
    intermediate = world.authority()
    with TlsServer(intermediate.issue(aia=[world.published(intermediate)])) as server:
        result = check(at(server), "--deny", "127.0.0.1")
    assert result.status == 2
    assert "is denied (--deny)" in " ".join(result.out.split())
    with TlsServer(intermediate.issue(aia=[world.published(intermediate)])) as server:
        assert "is denied (--deny)" in check.one(at(server), "--deny", "127.0.0.1")["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no host to check: name one, or a file with --from"),
        (["a b"], "'a b' is no host name and no address"),
        (["host:99999"], "'host:99999' has no port from 1 to 65535"),
        (["a", "b", "--fullchain", "x"], "--fullchain is for one host, and there are 2"),
        (["a", "--fullchain", "-"], "'-' is no file; for a pipe: --json | jq"),
        (["a", "--fullchain="], "'' is no file; for a pipe: --json | jq"),
        (["a", "--from", "/no/such"], "/no/such cannot be read (No such file or directory)"),
        (["a", "--sni", "a b"], "'a b' is no host name and no address"),
        (["a", "--allow", "a b"], "--allow: 'a b' is not a host name"),
        (["a", "--intermediates", "/no/such"], "--intermediates: /no/such cannot be read"),
        (["a", "--cache", "ftp://x"], "--cache: takes the path of a file"),
        (
            ["a", "--intermediates", "/no/aia_allow"],
            "--intermediates: /no/aia_allow cannot be read",
        ),
        (
            ["a", "--intermediates", "~nobody.here"],
            "--intermediates: ~nobody.here begins with a user",
        ),
        (["a", "--timeout", "0"], "'0' is no number of seconds greater than 0"),
        (["a", "--timeout", "x"], "'x' is no number of seconds greater than 0"),
        (["a", "--jobs", "0"], "'0' is no number from 1 to 1000"),
        (["a", "--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_bad_command_lines(check: InspectionCli, arguments: list[str], words: str) -> None:
    """One sentence and exit status 3: the others say something of the servers."""
    result = check(*arguments)
    assert result.status == 3
    assert words in result.err
    assert result.out == ""


def test_many(world: World, check: InspectionCli) -> None:
    """One line for each in the given order, and the worst exit status."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    with TlsServer(leaf) as one, TlsServer(leaf, intermediate) as two:
        result = check(at(one), at(two), at(one))
        verbose = check(at(one), at(two), "--verbose")
        results, status = check.json(at(two), at(one))
        with TlsServer(world.authority().issue()) as three:
            assert check(at(one), at(three), at(two)).status == 2
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["VERDICT", "INCOMPLETE", "complete"]
    assert f"forgot CN={intermediate.name[:10]}" in lines[1]
    assert "memory" not in result.out  # nobody but us knows of that
    assert lines[-1] == "2 servers: 1 complete, 1 incomplete"
    assert result.status == status == 1
    assert [each["verdict"] for each in results] == ["complete", "incomplete"]
    assert verbose.out.count("Connected") == 2


def test_from_file(world: World, check: InspectionCli) -> None:
    """Comments, blank lines, URLs, ports and duplicates."""
    with TlsServer(world.root.issue()) as server:
        file = check.folder / "hosts.txt"
        file.write_text(
            f"\ufeff# all of them\n\n{at(server)}  # ours\nhttps://localhost:{server.port}/\n"
            f"{at(server)}\n",
            encoding="utf-8",
        )
        result = check("--from", file)
    assert result.out.splitlines()[-1] == "2 servers: 2 complete"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.example\nb example\n", "hosts.txt:2: 'b example' is no host name"),
        (b"\xff\xfe", "hosts.txt is no text in UTF-8"),
        (b"# none\n", "there is no host to check"),
    ],
)
def test_bad_file(check: InspectionCli, content: bytes, words: str) -> None:
    """The line is named, and nothing is connected to."""
    file = check.folder / "hosts.txt"
    file.write_bytes(content)
    result = check("--from", file)
    assert result.status == 3
    assert words in result.err


def test_file_is_too_large(check: InspectionCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an end is not read to it."""
    monkeypatch.setattr("mitmproxy_aia.cli.checking.MAX_LIST", 3)
    file = check.folder / "hosts.txt"
    file.write_text("a.example")
    assert "is larger than" in check("--from", file).err


def test_not_reached(check: InspectionCli) -> None:
    """What cannot be connected to says so, and what to do next."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    refused = check(f"127.0.0.1:{port}")
    unknown = check("no-such-host.invalid")
    facts = check.one(f"127.0.0.1:{port}")
    assert refused.status == unknown.status == 3
    assert "takes no connections; is that the right port" in " ".join(refused.out.split())
    assert "no-such-host.invalid has no address" in unknown.out
    assert "--connect" in unknown.out
    assert facts["verdict"] == "unreachable"
    assert facts["presented"] == []
    assert facts["at"] is None


def test_silent_server(check: InspectionCli) -> None:
    """It is given up after --timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = check(f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3")
    assert result.status == 3
    assert "gave no answer in 0.3 s" in result.out


def test_no_tls(check: InspectionCli) -> None:
    """A server that speaks something else."""
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.recv(4096)

    thread = threading.Thread(target=greet)
    thread.start()
    with listener:
        result = check(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert result.status == 3
    text = " ".join(result.out.split())
    assert "does not speak TLS there" in text
    assert "need --starttls" in text


EVIL = "x\x1b[31m\r\n\x9bevil\u202e"


def test_names_are_harmless(world: World, check: InspectionCli) -> None:
    """No control character of a name reaches the terminal, in any view."""
    intermediate = world.root.issue(common_name(EVIL), ca=True)
    url = world.published(intermediate)
    leaf = intermediate.issue(common_name(EVIL), aia=[url])
    other = authority(common_name(EVIL))
    names = world.root.issue(hosts=["a.example"])
    with TlsServer(leaf) as one, TlsServer(other.issue(), other) as two, TlsServer(names) as three:
        for arguments in ([at(one)], [at(two)], [at(one), at(two), at(three)], [at(one), "--json"]):
            result = check(*arguments)
            assert all(each.isprintable() for each in result.out.replace("\n", ""))
            assert "evil" in result.out


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=SOURCE_ROOT,
        env=clean_environment() | environment,
        timeout=60,
        check=False,
    )


def test_exit_statuses_of_a_process(world: World, check: InspectionCli) -> None:
    """0 to 3, as a shell sees them, and plain output where it is no terminal."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    trust = check.folder / "roots.pem"
    trust.write_bytes(world.root.pem)
    with (
        TlsServer(leaf, intermediate) as complete,
        TlsServer(leaf) as incomplete,
        TlsServer(world.authority().issue()) as broken,
    ):
        results = [
            _run("check", at(server), "--trust", str(trust))
            for server in (complete, incomplete, broken)
        ]
        ascii_only = _run("check", at(incomplete), "--trust", str(trust), PYTHONIOENCODING="ascii")
        piped = subprocess.run(
            [*COMMAND, "check", "--from", "-", "--trust", str(trust)],
            input=f"{at(complete)}\n{at(incomplete)}\n",
            capture_output=True,
            text=True,
            cwd=SOURCE_ROOT,
            env=clean_environment(),
            timeout=60,
            check=False,
        )
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    results.append(_run("check", f"127.0.0.1:{port}", "--trust", str(trust)))
    assert [result.returncode for result in results] == [0, 1, 2, 3]
    assert piped.returncode == 1
    assert not any("\x1b" in result.stdout + result.stderr for result in results)
    assert "  FORGOTTEN  o CN=Lab Intermediate" in ascii_only.stdout
    assert ascii_only.stdout.isascii()


def test_in_a_terminal(world: World, check: InspectionCli) -> None:
    """Colours, unless the user wants none, and a progress bar that is gone at the end."""
    trust = check.folder / "roots.pem"
    trust.write_bytes(world.root.pem)
    with TlsServer(world.root.issue()) as server:
        command = [sys.executable, "-m", "mitmproxy_aia", "check", "--trust", str(trust)]
        path = {"PYTHONPATH": str(SOURCE_ROOT)}
        hosts = [at(server), at(server, "localhost")]
        status, shown = in_terminal([*command, *hosts], environment=path)
        _, one = in_terminal([*command, hosts[0]], environment=path)
        _, plain = in_terminal([*command, hosts[0]], environment=path | {"NO_COLOR": "1"})
    assert status == 0
    assert "checking" in shown
    assert "0 of 2 hosts" in shown
    assert shown.rstrip().endswith("2 servers: 2 complete\x1b[0m")
    assert "\x1b[32m" in one
    assert "\x1b[3" not in plain.replace("\x1b[K", "")


def test_json_is_ascii(world: World, check: InspectionCli) -> None:
    """Whatever is in a name."""
    with TlsServer(world.root.issue(common_name("bücher\x1b"))) as server:
        out = check(at(server), "--json").out
    assert out.isascii()
    assert json.loads(out)["results"][0]["presented"][0]["subject"] == "CN=bücher\x1b"


def test_mended_server(world: World, check: InspectionCli, tmp_path: Path) -> None:
    """From incomplete to complete: a server that sends what was written is complete for
    check, and for curl."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    file = tmp_path / "full.pem"
    with TlsServer(leaf) as server:
        check(at(server), "--fullchain", file)
    [_, sent] = read_certificates(file.read_bytes())
    assert sent == Certificate(intermediate.der)
    with TlsServer(leaf, intermediate) as server:
        assert check(at(server)).status == 0
        assert curl(server.url(), trust=world.root).status == 200
