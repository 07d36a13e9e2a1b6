"""Whatever openssl.cnf says: a rehearsal says of a chain what a handshake would have said, or the
addon refuses to start and names it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_aia import errors
from tests.lab.process import clean_environment

ROOT = Path(__file__).resolve().parents[1]
FILE = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
{}
"""
USUAL = {
    "good": 0,
    "112 bits": 0,
    "80 bits": errors.CA_KEY_TOO_SMALL,
    "SHA-1": errors.CA_MD_TOO_WEAK,
    "expired": errors.CERT_HAS_EXPIRED,
    "for clients": errors.INVALID_PURPOSE,
}
STRICT = {"112 bits": errors.CA_KEY_TOO_SMALL, "SHA-1": errors.CA_KEY_TOO_SMALL}
LAX = {"80 bits": 0, "SHA-1": 0}


def configured(setting: str, folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Why the addon would not start, and both verdicts on each chain."""
    configuration = folder / "openssl.cnf"
    configuration.write_text(FILE.format(setting))
    result = subprocess.run(
        [sys.executable, "-m", "tests.configured_verdicts", str(folder)],
        cwd=ROOT,
        env=clean_environment() | {"OPENSSL_CONF": str(configuration)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    flaw, verdicts = json.loads(result.stdout)
    return flaw, verdicts


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("CipherString = DEFAULT@SECLEVEL=3", STRICT),
        ("CipherString = DEFAULT@SECLEVEL=0", LAX),
        ("CipherString = AES128-SHA", {}),
        ("MinProtocol = TLSv1.3", {}),
        ("MaxProtocol = TLSv1.2", {}),
        ("Groups = X448", {}),
        ("SignatureAlgorithms = rsa_pss_rsae_sha256", {}),
    ],
)
def test_same_verdicts(setting: str, changed: dict[str, int], tmp_path: Path) -> None:
    """Of a handshake as mitmproxy does it, and of a rehearsal."""
    flaw, verdicts = configured(setting, tmp_path)
    assert flaw is None
    assert verdicts == {name: [code, code] for name, code in (USUAL | changed).items()}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("Protocol = ALL,-TLSv1.2", "it forbids TLS 1.2 (Protocol)"),
        ("CipherString = SUITEB128", "it asks for Suite B (CipherString)"),
        ("CipherString = SUITEB128ONLY", "it asks for Suite B (CipherString)"),
        ("CipherString = SUITEB192", "it asks for Suite B (CipherString)"),
    ],
)
def test_refuses_to_start(setting: str, said: str, tmp_path: Path) -> None:
    """Where it keeps libssl from a rehearsal. Nothing is accepted, whatever the chain."""
    flaw, verdicts = configured(setting, tmp_path)
    assert flaw is not None
    assert "cannot work with openssl.cnf: " + said in flaw
    assert "pyOpenSSL" not in flaw
    assert flaw.endswith("; change that, or name another file in OPENSSL_CONF")
    assert all(rehearsed != 0 for _, rehearsed in verdicts.values())
