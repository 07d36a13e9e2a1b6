"""The lab does what it says, judged by programs that are not part of it."""

import contextlib
import http.client
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import (
    CaIssuersServer,
    CurlError,
    EagerServer,
    Issued,
    Options,
    Proxy,
    Relay,
    TlsServer,
    authority,
    common_name,
    curl,
    dead_url,
    nginx,
    openssl_s_server,
    pem_bundle,
    pkcs7_ber,
    pkcs7_ber_pem,
    pkcs7_der,
    pkcs7_pem,
    trust_file,
)
from tests.lab.forking import ForkServer
from tests.lab.keys import Digest, KeyKind
from tests.lab.process import Process
from tests.lab.tls_server import TlsVersion

Bundle = Callable[..., bytes]


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority()


@pytest.fixture(scope="module")
def intermediate(root: Issued) -> Issued:
    return root.issue("Lab Intermediate", ca=True)


@pytest.fixture(scope="module")
def leaf(intermediate: Issued) -> Issued:
    return intermediate.issue()


@pytest.fixture(scope="module")
def stock(root: Issued) -> Iterator[Proxy]:
    """mitmdump as it comes, without the addon."""
    with Proxy(trust=[root], addon=False) as proxy:
        yield proxy


def openssl(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What the openssl program says, on either channel."""
    result = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True)
    return (result.stdout + result.stderr).decode()


def openssl_verify(folder: Path, root: Issued, *chain: Issued, options: str = "") -> str:
    """The opinion of `openssl verify` on a chain, the leaf first."""
    roots = trust_file(folder / "roots.pem", root)
    untrusted = trust_file(folder / "untrusted.pem", *chain)
    leaf = trust_file(folder / "leaf.pem", chain[0])
    # The CA store of the machine must not help.
    isolated = ["-no-CApath", "-no-CAstore", "-purpose", "sslserver", *options.split()]
    return openssl("verify", *isolated, "-CAfile", roots, "-untrusted", untrusted, leaf)


class TestCertificates:
    def test_good_chain(
        self, tmp_path: Path, root: Issued, intermediate: Issued, leaf: Issued
    ) -> None:
        """root -> intermediate -> leaf: with the defaults, openssl finds nothing to object to."""
        said = openssl_verify(tmp_path, root, leaf, intermediate, options="-x509_strict")
        assert said.endswith("leaf.pem: OK\n")

    @pytest.mark.parametrize(
        ("fault", "complaint"),
        [
            ({"expired": True}, "certificate has expired"),
            ({"not_yet_valid": True}, "certificate is not yet valid"),
            ({"ca": False}, "invalid CA certificate"),
            ({"basic_constraints": False, "key_usage": None}, "invalid CA certificate"),
            ({"key_usage": ["crl_sign"]}, "invalid CA certificate"),
            ({"extended_key_usage": ["clientAuth"]}, "unsuitable certificate purpose"),
            ({"permitted": ["elsewhere.example"]}, "permitted subtree violation"),
            ({"excluded": ["127.0.0.0/8"]}, "excluded subtree violation"),
        ],
        ids=str,
    )
    def test_faulty_intermediate(
        self, tmp_path: Path, root: Issued, fault: Options, complaint: str
    ) -> None:
        """root -> intermediate with one fault -> leaf: openssl names that fault."""
        sound: Options = {"ca": True}
        intermediate = root.issue("Faulty", **(sound | fault))
        said = openssl_verify(tmp_path, root, intermediate.issue(), intermediate)
        assert complaint in said

    def test_path_length(self, tmp_path: Path, root: Issued) -> None:
        """root -> intermediate (pathlen:0) -> intermediate -> leaf: one too many."""
        upper = root.issue("Upper", ca=True, path_length=0)
        lower = upper.issue("Lower", ca=True)
        said = openssl_verify(tmp_path, root, lower.issue(), lower, upper)
        assert "path length constraint exceeded" in said

    def test_wrong_key(self, tmp_path: Path, root: Issued, intermediate: Issued) -> None:
        """The right issuer name over another key's signature is no signature."""
        leaf = intermediate.issue(signed_by=authority())
        said = openssl_verify(tmp_path, root, leaf, intermediate)
        assert "certificate signature failure" in said

    def test_cross_signed(self, tmp_path: Path, root: Issued, intermediate: Issued) -> None:
        """other root -> (name and key of the intermediate) -> leaf: a second path."""
        other = authority("Other Root")
        cross = other.issue(intermediate.name, ca=True, key=intermediate)
        said = openssl_verify(tmp_path, other, intermediate.issue(), cross)
        assert said.endswith("leaf.pem: OK\n")

    @pytest.mark.parametrize("key", ["ec192", "ec224", "ec384", "rsa1024", "rsa2048", "ed25519"])
    def test_keys(self, tmp_path: Path, root: Issued, key: KeyKind) -> None:
        """Keys of every kind sign and are signed."""
        intermediate = root.issue("Lab Intermediate", ca=True, key=key)
        said = openssl_verify(tmp_path, root, intermediate.issue(), intermediate)
        assert said.endswith("leaf.pem: OK\n")

    @pytest.mark.parametrize(
        ("key", "digest", "algorithm"),
        [
            ("ec256", "sha1", "ecdsa-with-SHA1"),
            ("rsa2048", "sha1", "sha1WithRSAEncryption"),
            ("rsa2048", "md5", "md5WithRSAEncryption"),
            ("ec384", "sha384", "ecdsa-with-SHA384"),
        ],
    )
    def test_digests(self, tmp_path: Path, key: KeyKind, digest: Digest, algorithm: str) -> None:
        """Signatures that cryptography refuses to make are made, and they verify."""
        root = authority(key=key)
        leaf = root.issue(digest=digest)
        text = openssl("x509", "-noout", "-text", stdin=leaf.pem)
        assert f"Signature Algorithm: {algorithm}" in text
        assert openssl_verify(tmp_path, root, leaf).endswith("leaf.pem: OK\n")
        refusal = openssl_verify(tmp_path, root, leaf, options="-auth_level 2")
        assert ("too weak" in refusal) == (digest in ("sha1", "md5"))

    def test_authority_information_access(self, root: Issued) -> None:
        """caIssuers URLs stand in the certificate, in order and beside the OCSP responder."""
        urls = ["http://ca.example/a.cer", "ldap://ca.example/cn=b"]
        text = openssl("x509", "-noout", "-text", stdin=root.issue(aia=urls, ocsp=["http://o"]).pem)
        assert [line.strip() for line in text.splitlines() if "URI:" in line] == [
            "OCSP - URI:http://o",
            "CA Issuers - URI:http://ca.example/a.cer",
            "CA Issuers - URI:ldap://ca.example/cn=b",
        ]

    def test_name_encodings(self, tmp_path: Path, root: Issued) -> None:
        """Issuer and subject may differ in bytes and still be the same name."""
        printable, utf8 = common_name("Odd", "printable"), common_name("Odd", "utf8")
        assert printable.public_bytes() != utf8.public_bytes()
        intermediate = root.issue(printable, ca=True)
        leaf = intermediate.issue(issuer_name=utf8)
        said = openssl_verify(tmp_path, root, leaf, intermediate)
        assert said.endswith("leaf.pem: OK\n")

    @pytest.mark.parametrize("bundle", [pkcs7_der, pkcs7_pem, pkcs7_ber, pkcs7_ber_pem])
    def test_pkcs7(self, bundle: Bundle, intermediate: Issued, leaf: Issued) -> None:
        """Every PKCS#7 form is read by openssl, and holds the certificates."""
        form = "PEM" if bundle in (pkcs7_pem, pkcs7_ber_pem) else "DER"
        text = openssl("pkcs7", "-inform", form, "-print_certs", stdin=bundle(intermediate, leaf))
        assert sorted(re.findall(r"^subject=CN ?= ?(.*)", text, re.MULTILINE)) == [
            "Lab Intermediate",
            "Lab Leaf",
        ]

    def test_pem_bundle(self, intermediate: Issued, leaf: Issued) -> None:
        """A PEM bundle keeps the order."""
        assert pem_bundle(leaf, intermediate) == leaf.pem + intermediate.pem


class TestCaIssuersServer:
    @pytest.fixture
    def server(self) -> Iterator[CaIssuersServer]:
        with CaIssuersServer() as server:
            yield server

    def test_url_first(self, server: CaIssuersServer) -> None:
        """The URL is known before there is anything to serve, and downloads are counted."""
        url = server.url("/a.cer")
        assert curl(url).status == 404
        server.serve("/a.cer", b"der")
        reply = curl(url, "--user-agent", "lab")
        assert (reply.body, reply.headers["content-type"]) == (b"der", "application/pkix-cert")
        assert server.downloads == {"/a.cer": 2}
        assert server.requests[1].headers["User-Agent"] == "lab"

    def test_redirect(self, server: CaIssuersServer) -> None:
        """A redirect leads to the other URL."""
        url = server.redirect("/old.cer", server.serve("/new.cer", b"der"))
        assert curl(url, "--location").body == b"der"
        assert server.downloads == {"/old.cer": 1, "/new.cer": 1}

    def test_gate(self, server: CaIssuersServer) -> None:
        """The answer waits for the gate."""
        gate = threading.Event()
        url = server.serve("/a.cer", b"der", gate=gate)
        with pytest.raises(CurlError, match="timed out"):
            curl(url, timeout=0.2)
        gate.set()
        assert curl(url).body == b"der"

    def test_hang(self) -> None:
        """A hanging URL takes the request and stays silent, and does not hinder closing."""

        def hung_up(url: str) -> None:
            with pytest.raises(CurlError, match="Empty reply"):
                curl(url)

        with CaIssuersServer() as server:
            url = server.hang("/a.cer")
            client = threading.Thread(target=hung_up, args=(url,))
            client.start()
            while not server.requests:
                time.sleep(0.01)
            started = time.monotonic()
        assert time.monotonic() - started < 1
        client.join()

    def test_misbehaviour(self, server: CaIssuersServer) -> None:
        """Junk comes with status 200, drips come slowly, floods do not end."""
        assert curl(server.junk("/junk.cer")).status == 200
        drip = curl(server.drip("/drip.cer", b"0123456789", pause=0.01))
        assert drip.body == b"0123456789"
        assert drip.seconds > 0.1
        with pytest.raises(CurlError, match="timed out"):
            curl(server.flood("/flood.cer"), timeout=0.2)

    def test_as_proxy(self, server: CaIssuersServer) -> None:
        """As a proxy it answers for every host, and records the whole URL."""
        server.serve("/a.cer", b"der")
        assert curl("http://ca.example/a.cer", "--proxy", server.url("")).body == b"der"
        assert server.requests[0].target == "http://ca.example/a.cer"

    def test_dead_url(self) -> None:
        """Nobody listens at a dead URL."""
        with pytest.raises(CurlError, match="connect"):
            curl(dead_url())


class TestTlsServer:
    @pytest.mark.parametrize("tls", ["1.2", "1.3"])
    @pytest.mark.parametrize("http2", [False, True])
    def test_answers(
        self, root: Issued, intermediate: Issued, leaf: Issued, tls: TlsVersion, http2: bool
    ) -> None:
        """Both TLS versions carry both HTTP versions."""
        alpn = ("h2", "http/1.1") if http2 else ("http/1.1",)
        with TlsServer(leaf, intermediate, tls=tls, alpn=alpn) as server:
            for path in ("/first", "/second"):
                reply = curl(server.url(path), trust=root, http2=http2)
                assert (reply.status, reply.body) == (200, server.body)
                assert reply.http_version == ("2" if http2 else "1.1")
        assert server.requests == ["/first", "/second"]
        assert [handshake.tls for handshake in server.handshakes] == [f"TLSv{tls}"] * 2

    def test_presents_as_told(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """Strangers, duplicates and the root are presented in the order given."""
        stranger = authority("Stranger")
        with TlsServer(leaf, stranger, intermediate, stranger, root) as server:
            text = openssl("s_client", "-connect", f"127.0.0.1:{server.port}", "-showcerts")
        subjects = re.findall(r"^ *\d s:CN ?= ?(.*)", text, re.MULTILINE)
        names = ["Lab Leaf", "Stranger", "Lab Intermediate", "Stranger", "Lab Root"]
        assert subjects == names

    def test_keep_alive(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """One connection carries several requests."""
        with TlsServer(leaf, intermediate) as server:
            trust = ssl.create_default_context(cadata=root.pem.decode())
            client = http.client.HTTPSConnection(*server.address, context=trust)
            with contextlib.closing(client):
                for path in ("/1", "/2"):
                    client.request("GET", path)
                    assert client.getresponse().read() == server.body
        assert (server.requests, server.connections) == (["/1", "/2"], 1)

    def test_refused(self, root: Issued, leaf: Issued) -> None:
        """A client that breaks off is no handshake."""
        with TlsServer(leaf) as server, pytest.raises(CurlError, match="local issuer"):
            curl(server.url(), trust=root)
        assert (server.connections, server.handshakes, len(server.failures)) == (1, [], 1)

    def test_weak_certificate(self) -> None:
        """Keys and digests that OpenSSL does not even load by default are presented."""
        weak = authority(key="rsa1024").issue(key="rsa1024", digest="sha1")
        with TlsServer(weak) as server:
            seclevel = ("--ciphers", "DEFAULT@SECLEVEL=0")
            assert curl(server.url(), "--insecure", *seclevel).status == 200

    def test_client_certificate(self, tmp_path: Path, root: Issued, leaf: Issued) -> None:
        """With `client_ca` the client is asked for a certificate, and the server records it."""
        client = root.issue("Client", extended_key_usage=["clientAuth"])
        identity = tmp_path / "client.pem"
        identity.write_bytes(client.pem + client.key_pem)
        with TlsServer(leaf, client_ca=root) as server:
            curl(server.url(), "--insecure", "--cert", str(identity))
        assert server.handshakes[0].client_certificate == client.der

    def test_speaks_early(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """The eager server's data is on its way although the client refuses the certificate."""
        with EagerServer(leaf, intermediate) as server:
            assert curl(server.url(), trust=root, http2=True).body == server.body
        with EagerServer(leaf) as server, pytest.raises(CurlError, match="local issuer"):
            curl(server.url(), trust=root, http2=True)
        assert (server.spoke_early, server.handshakes) == (1, 0)


class TestPrograms:
    def test_nginx(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """nginx serves both HTTP versions with the chain it was given."""
        with nginx(leaf, intermediate) as server:
            assert curl(server.url(), trust=root).body == b"hello from nginx"
            assert curl(server.url(), trust=root, http2=True).http_version == "2"
        with nginx(leaf) as server, pytest.raises(CurlError, match="local issuer"):
            curl(server.url(), trust=root)

    def test_openssl_s_server(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """s_server serves its status page with the chain it was given."""
        with openssl_s_server(leaf, intermediate) as server:
            assert curl(server.url(), trust=root).status == 200
        with openssl_s_server(leaf) as server, pytest.raises(CurlError, match="local issuer"):
            curl(server.url(), trust=root)


class TestRelay:
    def test_records(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """What passes is recorded in both directions, in its order in time."""
        with TlsServer(leaf, intermediate) as server, Relay(server.port) as relay:
            assert curl(relay.url(), trust=root).body == server.body
        hello, answer = relay.chunks[:2]
        assert (hello.direction, answer.direction) == ("to_server", "to_client")
        assert hello.time < answer.time
        assert relay.passed("to_server", until=hello.time) == hello.data
        assert relay.connections == 1

    def test_split(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """The server's messages arrive in pieces."""
        with TlsServer(leaf, intermediate) as server, Relay(server.port, split=100) as relay:
            assert curl(relay.url(), trust=root).body == server.body
        sizes = {len(chunk.data) for chunk in relay.chunks if chunk.direction == "to_client"}
        assert max(sizes) == 100


class TestProxy:
    @pytest.mark.parametrize("http2", [False, True])
    def test_complete_chain(
        self, stock: Proxy, intermediate: Issued, leaf: Issued, http2: bool
    ) -> None:
        """Stock mitmproxy serves a site that presents its intermediate."""
        with TlsServer(leaf, intermediate, alpn=("h2", "http/1.1")) as server:
            reply = curl(server.url(), proxy=stock, http2=http2)
        assert (reply.status, reply.body, reply.error_text) == (200, server.body, "")
        assert reply.http_version == ("2" if http2 else "1.1")
        assert server.handshakes[0].alpn == ("h2" if http2 else "http/1.1")

    def test_incomplete_chain(self, stock: Proxy, leaf: Issued) -> None:
        """Stock mitmproxy answers 502 for a site that presents its leaf only."""
        with TlsServer(leaf) as server:
            reply = curl(server.url(), proxy=stock)
        assert reply.status == 502
        assert reply.error_text == (
            "Certificate verify failed: unable to get local issuer certificate"
        )
        stock.wait_for("Server TLS handshake failed")

    def test_reverse_mode(self, root: Issued, intermediate: Issued, leaf: Issued) -> None:
        """A reverse proxy is reached at its own port."""
        with (
            TlsServer(leaf, intermediate) as server,
            Proxy(trust=[root], addon=False, mode=f"reverse:{server.url('')}") as proxy,
        ):
            assert curl(proxy.url).body == server.body

    def test_fails_to_start(self) -> None:
        """A mitmdump that dies at its start is an error that quotes all it has said."""
        with pytest.raises(RuntimeError, match=r"ended before .*\n.*No such script: missing"):
            Proxy(addon=False, scripts=[Path("missing.py")])

    def test_replays(self, tmp_path: Path, stock: Proxy, leaf: Issued) -> None:
        """Without a listener mitmdump does its work and ends by itself."""
        flows = tmp_path / "empty.mitm"
        flows.write_bytes(b"")
        with Proxy("--no-server", "--rfile", str(flows), addon=False, listen=False) as proxy:
            assert proxy.wait() == 0


def test_forked_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends by itself and one that is killed: output, folder, environment and status."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "script.py"
    script.write_text('import os\nprint("in", os.getcwd(), "with", os.environ["LAB"])\n')
    command = [str(Path(sys.executable).parent / "mitmdump"), "-n", "-s", "script.py"]
    command += ["--set", f"confdir={tmp_path}"]
    with ForkServer() as server:
        ended = Process([*command, "-r", os.devnull], environment={"LAB": "1"}, start=server.start)
        assert ended.wait() == 0
        assert f"in {tmp_path} with 1" in ended.log
        with Process(command, environment={"LAB": "2"}, start=server.start) as killed:
            killed.wait_for("with 2")
            os.kill(killed.pid, signal.SIGKILL)
            assert killed.wait() == -signal.SIGKILL
        ended.stop()
