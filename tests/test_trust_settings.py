"""What the machine says of trust, beyond the certificates: OpenSSL's own configuration, and
trust settings inside a trust file. A completed chain is held to it as a presented one is."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import CaIssuersServer, Issued, Proxy, Reply, TlsServer, curl

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
        ) as proxy,
    ):
        reply = curl(f"http://127.0.0.1:{proxy.port}/")
    assert reply.status == 502
    assert f"CA certificate key too weak{tried}" in reply.error_text


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


def with_trust_setting(issued: Issued, setting: str, folder: Path) -> bytes:
    """The certificate with OpenSSL's trust setting for TLS servers (openssl-x509(1))."""
    file = folder / "certificate.pem"
    file.write_bytes(issued.pem)
    command = ["openssl", "x509", "-in", str(file), "-trustout", setting, "serverAuth"]
    return subprocess.run(command, capture_output=True, check=True).stdout
