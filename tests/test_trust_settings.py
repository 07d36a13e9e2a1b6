"""What the machine says of trust, beyond the certificates: OpenSSL's own configuration, and
trust settings inside a trust file. A completed chain is held to it as a presented one is."""

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.rejections import LOOK_SECONDS, rejected, rejected_in
from mitmproxy_aia.trust import flaw_of_folder
from tests.conftest import World
from tests.lab import (
    CaIssuersServer,
    Issued,
    Proxy,
    Reply,
    TlsServer,
    authority,
    common_name,
    curl,
    der,
)
from tests.lab.rewriting import ISSUER, KEY, SUBJECT, T61_STRING, encoded_name, rewritten

SUBJECT_PUBLIC_KEY_INFO = PublicFormat.SubjectPublicKeyInfo

LEVEL_3 = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
CipherString = DEFAULT:@SECLEVEL=3
"""


@pytest.fixture(scope="module")
def ca() -> Iterator[CaIssuersServer]:
    with CaIssuersServer() as server:
        yield server


def answers(proxy: Proxy, *servers: TlsServer) -> list[Reply]:
    """What a client in the clear gets, so that only mitmproxy's verification counts."""
    return [curl(server.url(), proxy=proxy) for server in servers]


@pytest.mark.parametrize(
    ("addon", "presented", "tried"), [(False, 1, ""), (True, 1, ""), (True, 0, " (AIA: ")]
)
def test_security_level_of_the_configuration(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, addon: bool, presented: int, tried: str
) -> None:
    """root -> RSA 2048 -> leaf, where openssl.cnf asks for 128 bits of security: stock, and
    with the addon a complete chain and one whose intermediate is behind AIA."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(LEVEL_3)
    weak = root.issue("RSA 2048", ca=True, key="rsa2048")
    leaf = weak.issue(aia=[ca.serve("/level.der", weak.der)])
    with (
        TlsServer(leaf, *[weak] * presented) as server,
        Proxy(
            trust=[root],
            addon=addon,
            mode=f"reverse:https://127.0.0.1:{server.port}",
            environment={"OPENSSL_CONF": str(configuration)},
            fresh=True,
        ) as proxy,
    ):
        reply = curl(f"http://127.0.0.1:{proxy.port}/")
    assert reply.status == 502
    assert f"CA certificate key too weak{tried}" in reply.error_text


def test_signature_algorithms_of_the_configuration(
    root: Issued, ca: CaIssuersServer, tmp_path: Path
) -> None:
    """openssl.cnf offers servers only what an RSA key can do: no reason not to start, nor to
    refuse a chain that a handshake would take."""
    configuration = tmp_path / "openssl.cnf"
    algorithms = "SignatureAlgorithms = rsa_pss_rsae_sha256:RSA+SHA256"
    configuration.write_text(LEVEL_3.replace("CipherString = DEFAULT:@SECLEVEL=3", algorithms))
    issuer = root.issue("CA", ca=True)
    leaf = issuer.issue(key="rsa2048", aia=[ca.serve("/algorithms.der", issuer.der)])
    with (
        TlsServer(leaf) as server,
        Proxy(trust=[root], environment={"OPENSSL_CONF": str(configuration)}, fresh=True) as proxy,
    ):
        assert [each.status for each in answers(proxy, server)] == [200]


@pytest.mark.parametrize("presented", [0, 1])
def test_suite_b(ca: CaIssuersServer, presented: int) -> None:
    """root (RSA) -> CA -> leaf: a handshake with Suite B refuses the signature of an RSA key,
    so a completion must not make it good."""
    root = authority("RSA Root", key="rsa2048")
    issuer = root.issue("CA", ca=True)
    leaf = issuer.issue(aia=[ca.serve(f"/suite-b-{presented}.der", issuer.der)])
    options = {"ciphers_server": "SUITEB128", "tls_version_server_max": "TLS1_2"}
    with (
        TlsServer(leaf, *[issuer] * presented, tls="1.2", curve="prime256v1") as server,
        Proxy(trust=[root], options=options) as proxy,
    ):
        (reply,) = answers(proxy, server)
    assert reply.status == 502
    assert "Certificate verify failed" in reply.error_text


def test_intermediate_that_the_trust_file_rejects(
    root: Issued, ca: CaIssuersServer, tmp_path: Path
) -> None:
    """root -> rejected -> [lower] -> leaf: as with a complete chain, "certificate rejected"."""
    rejected = root.issue("Rejected", ca=True)
    lower = rejected.issue("Lower", ca=True, aia=[ca.serve("/rejected.der", rejected.der)])
    leaf = lower.issue(aia=[ca.serve("/lower.der", lower.der)])
    trust = tmp_path / "trust.pem"
    trust.write_bytes(root.pem + with_trust_setting(rejected, "-addreject", tmp_path))
    options = {"ssl_verify_upstream_trusted_ca": str(trust)}
    with (
        TlsServer(leaf) as leaf_only,
        TlsServer(leaf, lower) as gap,
        TlsServer(leaf, rejected) as upper_only,
        TlsServer(leaf, lower, rejected) as complete,
        Proxy(options=options) as proxy,
        Proxy(options=options, addon=False) as stock,
    ):
        (reply,) = answers(stock, complete)
        text = "Certificate verify failed: certificate rejected"
        assert (reply.status, reply.error_text) == (502, text)
        for reply in answers(proxy, leaf_only, gap, upper_only, complete):
            assert reply.status == 502
            assert reply.error_text.startswith("Certificate verify failed: certificate rejected")


REJECTIONS = {
    "for all purposes": "anyExtendedKeyUsage",
    "in another certificate of it": "serverAuth",
    "as a root that another one has certified": "serverAuth",
    "with its own issuer unknown": "serverAuth",
    "with its own issuer expired": "serverAuth",
}


@pytest.mark.parametrize("case", REJECTIONS)
def test_ca_that_the_trust_file_rejects(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, case: str
) -> None:
    """root -> rejected -> lower -> leaf, where the certificate of the rejected CA that is
    presented or downloaded is not always the one in the trust file: no way around it."""
    number = [*REJECTIONS].index(case)
    rejected = root.issue("Rejected", ca=True)
    offered = rejected
    if case == "in another certificate of it":
        offered = root.issue("Rejected", ca=True, key=rejected)
    elif case == "as a root that another one has certified":
        rejected = authority("Rejected")
        offered = root.issue("Rejected", ca=True, key=rejected)
    elif case != "for all purposes":
        other = authority("Other", expired="expired" in case)
        rejected = other.issue("Rejected", ca=True)
        offered = root.issue("Rejected", ca=True, key=rejected)
    trusted = root.pem + with_trust_setting(rejected, "-addreject", tmp_path, REJECTIONS[case])
    if "expired" in case:
        trusted += other.pem
    lower = rejected.issue("Lower", ca=True, aia=[ca.serve(f"/{number}/offered", offered.der)])
    leaf = lower.issue(aia=[ca.serve(f"/{number}/lower", lower.der)])
    assert_rejected(trusted, tmp_path, leaf, lower, offered)


@pytest.mark.parametrize("folder", [False, True])
def test_rejected_behind_a_twin(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, folder: bool
) -> None:
    """The trust file has another certificate of the rejected CA, too, and before it: OpenSSL
    would never meet the rejection. In a file, and in a folder made by openssl-rehash(1)."""
    other = authority("Other").issue("Rejected", ca=True)
    rejected = root.issue("Rejected", ca=True, key=other)
    url = ca.serve(f"/behind-a-twin/{folder}", rejected.der)
    leaf = rejected.issue(aia=[url])
    setting = with_trust_setting(rejected, "-addreject", tmp_path)
    trust = tmp_path / "trust"
    if folder:
        trust.mkdir()
        for number, data in enumerate((root.pem, other.pem, setting)):
            (trust / f"{number}.pem").write_bytes(data)
        subprocess.run(["openssl", "rehash", str(trust)], check=True, capture_output=True)
        options = {"ssl_verify_upstream_trusted_confdir": str(trust)}
    else:
        trust.write_bytes(root.pem + other.pem + setting)
        options = {"ssl_verify_upstream_trusted_ca": str(trust)}
    with (
        TlsServer(leaf) as leaf_only,
        TlsServer(leaf, rejected) as complete,
        Proxy(options=options) as proxy,
    ):
        for reply in answers(proxy, leaf_only, complete):
            assert reply.status == 502
            assert reply.error_text.startswith("Certificate verify failed: certificate rejected")


TRUSTED = {
    "a root": "serverAuth",
    "an intermediate alone": "serverAuth",
    "a root, for clients only": "clientAuth",
    "an intermediate alone, for clients only": "clientAuth",
}


@pytest.mark.parametrize("case", TRUSTED)
def test_what_an_anchor_is_trusted_for(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, case: str
) -> None:
    """root -> upper -> lower -> leaf, where the trust file says for what one of them is trusted:
    what stock makes of the complete chain, we make of a part of it."""
    upper = root.issue("Upper", ca=True)
    number = [*TRUSTED].index(case)
    lower = upper.issue("Lower", ca=True, aia=[ca.serve(f"/trusted/{number}/upper", upper.der)])
    leaf = lower.issue(aia=[ca.serve(f"/trusted/{number}/lower", lower.der)])
    anchor = upper if "intermediate" in case else root
    trusted = with_trust_setting(anchor, "-addtrust", tmp_path, TRUSTED[case])
    trust = tmp_path / "trust.pem"
    trust.write_bytes(trusted)
    options = {"ssl_verify_upstream_trusted_ca": str(trust)}
    good = "clients" not in case
    with (
        TlsServer(leaf) as leaf_only,
        TlsServer(leaf, lower) as gap,
        TlsServer(leaf, lower, upper, root) as complete,
        Proxy(options=options) as proxy,
        Proxy(options=options, addon=False) as stock,
    ):
        expected = [200 if good else 502]
        assert [each.status for each in answers(stock, complete)] == expected
        for reply in answers(proxy, leaf_only, gap, complete):
            assert [reply.status] == expected, reply.error_text
            assert good or reply.error_text.startswith(
                "Certificate verify failed: certificate rejected"
            )


def test_what_a_trust_file_rejects(root: Issued, tmp_path: Path) -> None:
    """For TLS servers or for everything, and nothing else; damaged blocks are passed over."""
    cases = {
        ("-addreject", "serverAuth"): True,
        ("-addreject", "anyExtendedKeyUsage"): True,
        ("-addreject", "emailProtection"): False,
        ("-addtrust", "serverAuth"): False,
    }
    for (setting, purpose), expected in cases.items():
        data = with_trust_setting(root, setting, tmp_path, purpose)
        identities = [Certificate(root.der).identity] if expected else []
        damaged = b"-----BEGIN TRUSTED CERTIFICATE-----\nMA==\n-----END TRUSTED CERTIFICATE-----\n"
        assert [*rejected(damaged + root.pem + data)] == identities
    assert rejected_in(None, "", str(tmp_path / "missing")) == frozenset()


def test_trust_file_that_cannot_be_read_now(root: Issued, tmp_path: Path) -> None:
    """It is read later, and not taken for one that rejects nobody."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes(with_trust_setting(root, "-addreject", tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            rejected_in(str(trust))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rejected_in(str(trust)) == {Certificate(root.der).identity}


def test_trust_folder_is_read_again(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in it may be written anew, and the folder looks as before."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes(root.pem)
    reads: list[Path] = []
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        reads.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    for now in 1_000_000.0, 1_000_000.0 + LOOK_SECONDS:
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert rejected_in(str(tmp_path)) == frozenset()
    # Once as long as it is the same.
    assert reads == [trust]
    rejecting = with_trust_setting(root, "-addreject", tmp_path.parent)
    with trust.open("r+b") as file:
        file.write(rejecting)
    assert rejected_in(str(tmp_path)) == frozenset()
    monkeypatch.setattr(time, "monotonic", lambda: 1_000_000.0 + 2 * LOOK_SECONDS)
    assert rejected_in(str(tmp_path)) == {Certificate(root.der).identity}


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("ca", None, r"\S+roots cannot be read \(No such file or directory\)"),
        ("ca", b"junk", r"\S+roots holds no trusted roots: it is not a certificate"),
        (
            "ca",
            "DER",
            r"\S+roots is not PEM from end to end, .*; no server can be verified",
        ),
        ("ca", b"", r"\S+roots is a folder"),
        ("confdir", None, r"\S+roots is no folder with roots"),
    ],
)
def test_roots_that_mitmproxy_cannot_load(
    root: Issued, tmp_path: Path, option: str, content: bytes | str | None, words: str
) -> None:
    """One line at the start, before many with each connection."""
    place = tmp_path / "roots"
    if content == b"":
        place.mkdir()
    elif content is not None:
        place.write_bytes(content if isinstance(content, bytes) else root.der)
    name = f"ssl_verify_upstream_trusted_{option}"
    with (
        Proxy(options={name: str(place), "ssl_insecure": "true"}) as insecure,
        Proxy(trust=[root]) as good,
        # The last: what the others would have to say, they have said before.
        Proxy(options={name: str(place)}) as proxy,
    ):
        proxy.wait_for(rf"{name}: {words}")
        for other in insecure, good:
            assert name not in other.log


def test_roots_from_a_pipe(root: Issued, ca: CaIssuersServer, tmp_path: Path) -> None:
    """As `--set ssl_verify_upstream_trusted_ca=<(cat ...)`: nobody reads them before mitmproxy."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    options = {"ssl_verify_upstream_trusted_ca": str(pipe)}
    with Proxy(options=options) as proxy, TlsServer(root.issue()) as server:
        # It would be read after half a second.
        time.sleep(1)
        writer = threading.Thread(target=pipe.write_bytes, args=[root.pem])
        writer.start()
        try:
            assert World(root, ca, proxy).get(server.url()).status == 200
        finally:
            with contextlib.suppress(OSError):
                os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            writer.join()


def test_several_trust_folders(tmp_path: Path) -> None:
    """As OpenSSL takes them, with colons."""
    assert flaw_of_folder(f"{tmp_path}{os.pathsep}{tmp_path}") == ""
    missing = tmp_path / "missing"
    assert (
        flaw_of_folder(f"{tmp_path}{os.pathsep}{missing}") == f"{missing} is no folder with roots"
    )


def test_what_is_not_read_of_a_trust_folder(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders and pipes in it; and all of it where OpenSSL may look up a name, and we may not
    list them."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "trust.pem").write_bytes(with_trust_setting(root, "-addreject", tmp_path))
    assert rejected_in(str(tmp_path)) == {Certificate(root.der).identity}

    def may_not(_: Path) -> Iterator[Path]:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", may_not)
    (tmp_path / "another").touch()
    assert rejected_in(str(tmp_path)) == frozenset()


@pytest.mark.parametrize("way", ["name", "key"])
def test_rejected_in_other_bytes(
    root: Issued, ca: CaIssuersServer, tmp_path: Path, way: str
) -> None:
    """root -> upper (rejected) -> lower -> leaf, where another trusted root has certified upper,
    with the same name as another kind of string, or the same key as a compressed point."""
    other = authority("Another root")
    name = common_name("\xdcber" if way == "name" else "Upper")
    upper = root.issue(name, ca=True)
    cross = other.issue(name, ca=True, key=upper)
    lower = upper.issue("Lower", ca=True, authority_key_identifier=False)
    if way == "name":
        t61 = encoded_name(T61_STRING, "\xdcber".encode("latin-1"))
        cross, lower = resigned(cross, SUBJECT, t61, other), resigned(lower, ISSUER, t61, upper)
    else:
        assert isinstance(upper.key, ec.EllipticCurvePrivateKey)
        public = upper.key.public_key()
        point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        algorithm, _ = der.elements(public.public_bytes(Encoding.DER, SUBJECT_PUBLIC_KEY_INFO))
        bits = der.encode(der.BIT_STRING, b"\0", point)
        cross = resigned(cross, KEY, der.encode(der.SEQUENCE, algorithm, bits), other)
    leaf = lower.issue(aia=[ca.serve(f"/other-bytes/{way}", lower.der)])
    trust = tmp_path / "trust.pem"
    trust.write_bytes(root.pem + other.pem + with_trust_setting(upper, "-addreject", tmp_path))
    options = {"ssl_verify_upstream_trusted_ca": str(trust)}
    with (
        TlsServer(leaf, lower, cross) as complete,
        TlsServer(leaf, cross) as gap,
        Proxy(options=options) as proxy,
        Proxy(options=options, addon=False) as stock,
    ):
        replies = [*answers(stock, complete), *answers(proxy, complete, gap)]
    for reply in replies:
        assert reply.error_text.startswith("Certificate verify failed: certificate rejected")


def resigned(issued: Issued, position: int, element: bytes, signer: Issued) -> Issued:
    made = rewritten(issued, position, element, signer)
    return Issued(x509.load_der_x509_certificate(made), issued.key)


def assert_rejected(trusted: bytes, folder: Path, *chain: Issued) -> None:
    """Stock refuses the whole chain; with the addon any part of it is refused, too."""
    trust = folder / "trust.pem"
    trust.write_bytes(trusted)
    options = {"ssl_verify_upstream_trusted_ca": str(trust)}
    with (
        TlsServer(*chain[:1]) as leaf_only,
        TlsServer(*chain[:2]) as gap,
        TlsServer(*chain) as complete,
        Proxy(options=options) as proxy,
        Proxy(options=options, addon=False) as stock,
    ):
        (reply,) = answers(stock, complete)
        assert reply.error_text == "Certificate verify failed: certificate rejected"
        for reply in answers(proxy, leaf_only, gap, complete):
            assert reply.status == 502
            assert reply.error_text.startswith("Certificate verify failed: certificate rejected")


def with_trust_setting(
    issued: Issued, setting: str, folder: Path, purpose: str = "serverAuth"
) -> bytes:
    """The certificate with OpenSSL's trust setting for a purpose (openssl-x509(1))."""
    file = folder / "certificate.pem"
    file.write_bytes(issued.pem)
    command = ["openssl", "x509", "-in", str(file), "-trustout", setting, purpose]
    return subprocess.run(command, capture_output=True, check=True).stdout
