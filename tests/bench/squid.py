"""Squid with ssl_bump, which completes chains, too (Debian's squid-openssl)."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.nginx import free_port
from tests.lab import Issued, authority, trust_file
from tests.lab.process import Process

_CONFIGURATION = """
http_port 127.0.0.1:{port} ssl-bump tls-cert={folder}/ca.pem generate-host-certificates=on \
dynamic_cert_mem_cache_size=64MB
sslcrtd_program {helper} -s {folder}/generated -M 64MB
sslcrtd_children 2 startup=2
tls_outgoing_options cafile={folder}/roots.pem
acl missing transaction_initiator certificate-fetching
http_access allow missing
http_access allow localhost
http_access deny all
ssl_bump bump all
cache_mem 64 MB
access_log none
cache_log stdio:/dev/stderr
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 0 seconds
visible_hostname bench
"""
_HELPERS = ("/usr/lib/squid/security_file_certgen", "/usr/libexec/squid/security_file_certgen")


@contextmanager
def squid(root: Issued) -> Iterator[str]:
    """Its URL. Raises FileNotFoundError if there is none that can do it."""
    program = shutil.which("squid") or shutil.which("squid", path="/usr/sbin")
    helper = next((path for path in _HELPERS if Path(path).exists()), None)
    if program is None or helper is None:
        raise FileNotFoundError("needs squid with ssl_bump: apt-get install squid-openssl")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        ca = authority("Bench Squid")
        (folder / "ca.pem").write_bytes(ca.pem + ca.key_pem)
        trust_file(folder / "roots.pem", root)
        command = [helper, "-c", "-s", str(folder / "generated"), "-M", "64MB"]
        subprocess.run(command, check=True, capture_output=True)
        if os.geteuid() == 0:
            # Started by root, it works as another user.
            _give(folder, "proxy")
        file = folder / "squid.conf"
        file.write_text(_CONFIGURATION.format(port=port, folder=folder, helper=helper))
        with Process([program, "-N", "-f", file]) as process:
            process.wait_for("Accepting SSL bumped HTTP Socket connections", 30)
            yield f"http://127.0.0.1:{port}"


def _give(folder: Path, user: str) -> None:
    with contextlib.suppress(KeyError):
        owner = pwd.getpwnam(user)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
