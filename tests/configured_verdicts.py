"""What a handshake and a rehearsal say of the same chains, in a process of its own: OpenSSL reads
its configuration once. `python -m tests.configured_verdicts FOLDER` writes JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from mitmproxy.net import tls
from OpenSSL import SSL, crypto

from mitmproxy_aia.compatibility import incompatibility
from mitmproxy_aia.openssl import store_of
from mitmproxy_aia.rehearsal import rehearse
from tests.lab import Issued, authority
from tests.lab.certificates import Options

CHAINS: dict[str, Options] = {
    "good": {},
    "112 bits": {"key": "rsa2048"},
    "80 bits": {"key": "rsa1024"},
    "SHA-1": {"key": "rsa2048", "digest": "sha1"},
    "expired": {"expired": True},
    "for clients": {"extended_key_usage": ["clientAuth"]},
}
"""Intermediates, by what is to be known of them."""


def shaken(chain: list[Issued], roots: Path) -> int | None:
    """The first error of a handshake, as mitmproxy does one by default; 0 if there is none, and
    None if it does not come to the certificates."""
    server = SSL.Context(SSL.TLS_SERVER_METHOD)
    server.set_cipher_list(b"ALL:@SECLEVEL=0")
    server.use_privatekey(crypto.PKey.from_cryptography_key(chain[0].key))
    for number, each in enumerate(chain):
        certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, each.der)
        if number:
            server.add_extra_chain_cert(certificate)
        else:
            server.use_certificate(certificate)
    client = tls.create_proxy_server_context(
        method=tls.Method.TLS_CLIENT_METHOD,
        min_version=tls.DEFAULT_MIN_VERSION,
        max_version=tls.DEFAULT_MAX_VERSION,
        cipher_list=("DEFAULT",),
        ecdh_curve=None,
        verify=tls.Verify.VERIFY_PEER,
        ca_path=None,
        ca_pemfile=str(roots),
        client_cert=None,
        legacy_server_connect=False,
    )
    codes: list[int] = []

    def callback(_1: SSL.Connection, _2: crypto.X509, code: int, _depth: int, good: int) -> bool:
        codes.append(code)
        return bool(good)

    ends = SSL.Connection(client), SSL.Connection(server)
    ends[0].set_verify(SSL.VERIFY_PEER, callback)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    for _ in range(4):
        for end, other in (ends, ends[::-1]):
            with contextlib.suppress(SSL.Error):  # it failed, or the other one has to go on
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    return next((code for code in codes if code), 0) if codes else None


def rehearsed(chain: list[Issued], root: Issued) -> int:
    """The same of a rehearsal."""
    certificates = [crypto.load_certificate(crypto.FILETYPE_ASN1, each.der) for each in chain]
    trusted = crypto.load_certificate(crypto.FILETYPE_ASN1, root.der)
    _, fault = rehearse(store_of([trusted], partial=False), certificates, "")
    return fault.code if fault else 0


def main(folder: Path) -> None:
    root = authority("Root", key="rsa3072")
    roots = folder / "roots.pem"
    roots.write_bytes(root.pem)
    verdicts = {}
    for name, options in CHAINS.items():
        issuer = root.issue("CA", **({"ca": True} | options))
        chain = [issuer.issue(key=root), issuer]
        verdicts[name] = shaken(chain, roots), rehearsed(chain, root)
    print(json.dumps([incompatibility(), verdicts]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
