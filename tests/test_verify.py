"""`mitmproxy-aia verify`: a verdict on chains in files, now and at another time."""

import datetime
import io
import itertools
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from OpenSSL import crypto

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.cli.verifying import leaf_first
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from tests.conftest import World
from tests.inspection_cli import InspectionCli
from tests.lab import (
    Issued,
    authority,
    pem_bundle,
    pkcs7_ber,
    pkcs7_der,
    pkcs7_pem,
)
from tests.lab.process import clean_environment, find_program
from tests.test_cli import COMMAND, SOURCE_ROOT

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
THEN = NOW - 1000 * DAY
PERIOD = (THEN - 30 * DAY, THEN + 30 * DAY)
"""A time in which certificates were valid that have expired long since."""


@pytest.fixture
def verify(root: Issued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> InspectionCli:
    return InspectionCli("verify", tmp_path, capsys, [root])


def saved(folder: Path, data: bytes, name: str = "chain.pem") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("sent", [*itertools.product([False, True], repeat=2)])
def test_none_some_or_all(world: World, verify: InspectionCli, sent: Sequence[bool]) -> None:
    """root -> upper -> lower -> leaf, with each choice of the two: complete only with both."""
    upper = world.authority()
    lower = world.authority(upper, aia=[world.published(upper)])
    leaf = lower.issue(aia=[world.published(lower)])
    chain = [leaf, *(each for each, is_sent in zip((lower, upper), sent, strict=True) if is_sent)]
    file = saved(verify.folder, pem_bundle(*chain))
    result = verify(file, "--allow", "127.0.0.1")
    facts = verify.one(file, "--allow", "127.0.0.1")
    assert result.status == (0 if all(sent) else 1)
    assert [each["sha256"] for each in facts["path"]] == [
        Certificate(each.der).fingerprint.hex() for each in (leaf, lower, upper, world.root)
    ]
    assert result.out.count("FORGOTTEN") == 2 - sum(sent)
    assert facts["connection"] is None


@pytest.mark.parametrize("write", [pem_bundle, pkcs7_der, pkcs7_pem, pkcs7_ber])
def test_formats(world: World, verify: InspectionCli, write: object) -> None:
    """Told by the content; PKCS#7 is a set, so the leaf may stand anywhere."""
    intermediate = world.authority()
    leaf = intermediate.issue()
    for order in ([leaf, intermediate], [intermediate, leaf]):
        data = write(*order)  # type: ignore[operator] # a function of certificates
        assert verify(saved(verify.folder, data)).status == 0
    assert verify(saved(verify.folder, leaf.der), "--offline").status == 2


def test_the_leaf_is_found() -> None:
    """In front, whatever the order; of strangers the first one."""
    root = authority()
    ca = root.issue("CA", ca=True)
    leaf = ca.issue()
    other = authority("Other")
    chain = [Certificate(each.der) for each in (ca, leaf, root)]
    assert leaf_first(chain) == [chain[1], chain[0], chain[2]]
    loop = [Certificate(each.der) for each in _mutual()]
    assert leaf_first(loop) == loop
    strangers = [Certificate(leaf.der), Certificate(other.der)]
    assert leaf_first(strangers) == strangers


def _mutual() -> tuple[Issued, Issued]:
    """Two CAs that certify each other: nobody is the leaf."""
    one, two = authority("One"), authority("Two")
    return (
        one.issue(two.certificate.subject, ca=True, key=two),
        two.issue(one.certificate.subject, ca=True, key=one),
    )


def test_stdin(world: World, verify: InspectionCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With text around the certificates, as `openssl s_client -showcerts` prints it."""
    leaf = world.root.issue()

    class Stdin:
        buffer = io.BytesIO(b"depth=0 CN = x\n" + leaf.pem + b"\nDONE\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    result = verify("-")
    assert result.status == 0
    assert result.out.startswith("stdin ")


def test_host(world: World, verify: InspectionCli) -> None:
    """The name is asked only if one is given; IDNs and addresses are names as well."""
    leaf = world.root.issue(hosts=["www.example.com", "xn--bcher-kva.example", "::1"])
    file = saved(verify.folder, leaf.pem)
    for host in "www.example.com", "bücher.example", "::1", "0:0::1":
        assert verify(file, "--host", host).status == 0
    wrong = verify(file, "--host", "example.com")
    assert verify(file).status == 0
    assert wrong.status == 2
    assert "hostname mismatch" in wrong.out.lower()
    assert "www.example.com" in wrong.out
    bad = verify(file, "--host", "a b")
    assert (bad.status, bad.out) == (3, "")
    assert "--host: 'a b' is no host name" in bad.err


def old_chain(world: World) -> tuple[Issued, Issued, Issued]:
    """old root -> intermediate -> leaf: all of them expired long since."""
    root = authority("Old Root", valid=PERIOD)
    intermediate = root.issue("Old CA", ca=True, valid=PERIOD)
    url = world.published(intermediate)
    return root, intermediate, intermediate.issue("old", valid=PERIOD, aia=[url])


def test_host_that_openssl_does_not_take(world: World, verify: InspectionCli) -> None:
    """From OpenSSL 4 on one letter is none; then it is said."""
    file = saved(verify.folder, world.root.issue(hosts=["a"]).pem)
    result = verify(file, "--host", "a")
    said = "mitmproxy-aia: --host: OpenSSL does not take the host name 'a'\n"
    assert (result.status, result.err) in [(0, ""), (3, said)]


def test_at(world: World, verify: InspectionCli) -> None:
    """What has expired was good then, and not before; what is good now was not."""
    root, intermediate, leaf = old_chain(world)
    verify.trust = [root, world.root]
    whole = saved(verify.folder, pem_bundle(leaf, intermediate), "whole.pem")
    at = THEN.isoformat()
    good = verify(whole, "--at", at)
    assert good.status == 0
    assert "EXPIRED" not in good.out
    assert f", at {THEN:%Y-%m-%dT%H:%M:%SZ}" in " ".join(good.out.split())
    assert verify(whole).status == 2
    assert verify(whole, "--at", f"{THEN - 40 * DAY:%Y-%m-%d}").status == 2
    late = verify(whole, "--at", f"{THEN + 40 * DAY:%Y-%m-%d}")
    assert late.status == 2
    assert "certificate has expired: CN=old" in late.out
    today = saved(verify.folder, world.root.issue().pem, "today.pem")
    assert verify(today).status == 0
    assert verify(today, "--at", at).status == 2
    facts = verify.one(whole, "--at", "2020-01-01T02:00:00+02:00")
    assert facts["at"] == "2020-01-01T00:00:00Z"


def test_at_with_a_download(world: World, verify: InspectionCli) -> None:
    """What is missing is downloaded, judged at that time, and kept by nobody."""
    root, intermediate, leaf = old_chain(world)
    verify.trust = [root]
    file, cache = saved(verify.folder, leaf.pem), verify.folder / "cache.sqlite3"
    arguments: list[str | Path] = [file, "--allow", "127.0.0.1", "--cache", cache]
    assert verify(*arguments, "--at", THEN.isoformat()).status == 1
    assert verify(*arguments).status == 2
    assert not cache.exists()
    del intermediate


def test_at_with_several_downloads(world: World, verify: InspectionCli) -> None:
    """root -> [upper] -> [lower] -> leaf: each step of the way up is judged at that time, too."""
    root = authority("Old Root", valid=PERIOD)
    upper = root.issue("Old upper CA", ca=True, valid=PERIOD)
    lower = upper.issue("Old lower CA", ca=True, valid=PERIOD, aia=[world.published(upper)])
    leaf = lower.issue("old", valid=PERIOD, aia=[world.published(lower)])
    verify.trust = [root]
    file = saved(verify.folder, leaf.pem)
    result = verify(file, "--allow", "127.0.0.1", "--at", THEN.isoformat())
    assert result.status == 1
    assert result.out.count("FORGOTTEN") == 2


@pytest.mark.parametrize("where", ["cache", "intermediates"])
def test_at_with_what_is_known(world: World, verify: InspectionCli, where: str) -> None:
    """Cache and files offer what was valid at that time, though it has expired."""
    root, intermediate, leaf = old_chain(world)
    verify.trust = [root]
    file, cache = saved(verify.folder, leaf.pem), verify.folder / "cache.sqlite3"
    SqliteCache(cache).add([Entry(Certificate(intermediate.der), "old", THEN, THEN)])
    known = cache if where == "cache" else saved(verify.folder, intermediate.der, "int.der")
    result = verify(file, "--offline", f"--{where}", known, "--at", THEN.isoformat())
    assert result.status == 1
    assert "FORGOTTEN  ○ CN=Old CA" in result.out
    assert verify(file, "--offline", f"--{where}", known).status == 2


def test_at_agrees_with_openssl(world: World, verify: InspectionCli) -> None:
    """`openssl verify -attime` says the same on both sides of every edge of every validity. (Of
    the very second of notAfter versions of OpenSSL think differently.)"""
    root, intermediate, _ = old_chain(world)
    leaf = intermediate.issue("edge", valid=(PERIOD[0] + DAY, PERIOD[1] - DAY))
    verify.trust = [root]
    file = saved(verify.folder, pem_bundle(leaf, intermediate))
    trust = saved(verify.folder, root.pem, "root.pem")
    second = datetime.timedelta(seconds=1)
    edges = [PERIOD[0], PERIOD[0] + DAY, PERIOD[1] - DAY, PERIOD[1]]
    statuses = set()
    for time in (edge + step for edge in edges for step in (-second, second)):
        command = [find_program("openssl"), "verify", "-purpose", "sslserver", "-no-CApath"]
        command += ["-CAfile", str(trust), "-untrusted", str(file)]
        command += ["-attime", str(int(time.timestamp())), str(file)]
        says = subprocess.run(command, capture_output=True, timeout=20, check=False)
        status = verify(file, "--offline", "--at", time.isoformat()).status
        assert (status == 0) == (says.returncode == 0), time
        statuses.add(status)
    assert statuses == {0, 2}


def test_the_time_is_only_for_its_own_verdicts(world: World, verify: InspectionCli) -> None:
    """One after the other in one process: what was asked of the past does not colour today."""
    root, intermediate, leaf = old_chain(world)
    verify.trust = [root]
    file = saved(verify.folder, pem_bundle(leaf, intermediate))
    for _ in range(2):
        assert verify(file, "--at", THEN.isoformat()).status == 0
        assert verify(file).status == 2


def test_downloads_need_leave(world: World, verify: InspectionCli) -> None:
    """There is no server whose network could be told: it counts as public."""
    intermediate = world.authority()
    url = world.published(intermediate)
    file = saved(verify.folder, intermediate.issue(aia=[url]).pem)
    connections = world.ca.connections
    result = verify(file)
    assert result.status == 2
    text = " ".join(result.out.split())
    assert f"refused: {url} is on this machine, and where the server is cannot be told" in text
    assert "(--allow)" in text
    assert world.ca.connections == connections
    assert verify(file, "--allow", "127.0.0.1").status == 1


def test_fullchain(world: World, verify: InspectionCli) -> None:
    """Also of a file that is complete, in its right order and without the root."""
    intermediate = world.authority()
    leaf = intermediate.issue()
    file = saved(verify.folder, pem_bundle(leaf, world.root, intermediate))
    out = verify.folder / "out.pem"
    assert verify(file, "--fullchain", out).status == 0
    assert read_certificates(out.read_bytes()) == (
        Certificate(leaf.der),
        Certificate(intermediate.der),
    )
    two = verify(file, file, "--fullchain", out)
    assert (two.status, two.out) == (3, "")
    assert "--fullchain is for one file, and there are 2" in two.err
    folder = verify(verify.folder, "--fullchain", out, "--json")
    assert (folder.status, folder.out) == (3, "")
    assert "--fullchain is for one file, and there are" in folder.err


def test_many_files(world: World, verify: InspectionCli) -> None:
    """One line for each; what cannot be read is named and does not stop the others."""
    good = saved(verify.folder, world.root.issue().pem, "good.pem")
    junk = saved(verify.folder, b"junk", "junk.pem")
    missing = verify.folder / "missing.pem"
    result = verify(good, junk, missing)
    results, status = verify.json(good, junk, missing)
    assert result.status == status == 3
    assert result.out.splitlines()[-1] == "3 files: 1 complete, 2 not checked"
    assert [each["verdict"] for each in results] == ["complete", "unreachable", "unreachable"]
    assert "is not a certificate" in results[1]["problem"]
    assert results[2]["name"] == str(missing)
    assert "cannot be read (No such file or directory)" in results[2]["problem"]


def test_an_empty_folder(verify: InspectionCli) -> None:
    """Is no table of nothing."""
    folder = verify.folder / "empty"
    folder.mkdir()
    result = verify(folder)
    assert (result.status, result.out) == (3, "")
    assert f"there is no file in {folder}" in result.err


def test_what_openssl_cannot_read(
    world: World, verify: InspectionCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no verdict, and does not end the command."""

    def to_openssl(certificate: Certificate) -> crypto.X509:
        raise crypto.Error

    file = saved(verify.folder, world.root.issue().pem)
    monkeypatch.setattr("mitmproxy_aia.loaded.to_openssl", to_openssl)
    result = verify(file)
    assert result.status == 3
    assert "holds a certificate that OpenSSL cannot read" in result.out


@pytest.mark.parametrize("time", ["yesterday", "2024-13-01", "", "0001-01-01T00:00:00+14:00"])
def test_bad_times(verify: InspectionCli, time: str) -> None:
    """Exit status 3, and how a time is written."""
    result = verify("chain.pem", "--at", time)
    assert result.status == 3
    assert f"{time!r} is no time such as 2024-06-01" in result.err


def test_bad_trust(verify: InspectionCli) -> None:
    """A file without roots is named."""
    verify.trust = ()
    file = saved(verify.folder, b"junk")
    assert f"--trust: {file} holds no trusted roots" in verify(file, "--trust", file).err


def test_exit_statuses_of_a_process(world: World, tmp_path: Path) -> None:
    """0 to 3, as a shell sees them."""
    intermediate = world.authority()
    leaf = intermediate.issue(aia=[world.published(intermediate)])
    trust = saved(tmp_path, world.root.pem, "root.pem")
    files = [
        saved(tmp_path, pem_bundle(leaf, intermediate), "complete.pem"),
        saved(tmp_path, leaf.pem, "incomplete.pem"),
        saved(tmp_path, world.authority().issue().pem, "broken.pem"),
        tmp_path / "missing.pem",
    ]
    statuses = []
    for file in files:
        command = [*COMMAND, "verify", str(file), "--trust", str(trust), "--allow", "127.0.0.1"]
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=SOURCE_ROOT,
            env=clean_environment(),
            timeout=60,
            check=False,
        )
        statuses.append(result.returncode)
    assert statuses == [0, 1, 2, 3]
