"""The lines that make a web server send its full chain. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from mitmproxy_aia.bundle import comment
from mitmproxy_aia.certificates import Certificate

_UNSAFE = re.compile(r"[^a-z0-9.-]+")
MAX_FILE_NAME = 120


@dataclass(frozen=True)
class Remedy:
    """What to write for one kind of server. `note` is what else there is to know, and `command`
    has the server try its configuration and use it."""

    server: str
    lines: str
    note: str
    command: str


def file_name(address: str, suffix: str = ".pem") -> str:
    """A file name for what is about `address` (host:port): `server.example.pem`, or with a port
    that is not 443 `server.example-8443.pem`. It holds no more than letters, digits, dots and
    dashes, whatever the address holds."""
    name = _UNSAFE.sub("-", address.lower().removesuffix(":443")).strip(".-")[:MAX_FILE_NAME]
    return (name or "server") + suffix


def full_chain(chain: Iterable[Certificate]) -> str:
    """What a server should send, in PEM: each certificate under a comment that names it."""
    return "\n".join(
        f"# {comment(certificate.name)}\n{ssl.DER_cert_to_PEM_cert(certificate.der)}"
        for certificate in chain
    )


def remedies(chain: str = "fullchain.pem", key: str = "privkey.pem") -> tuple[Remedy, ...]:
    """For nginx, Apache, HAProxy and Caddy. `chain` is the file with the leaf and the
    intermediates, `key` that with the leaf's private key."""
    return (
        Remedy(
            "nginx",
            f"ssl_certificate /etc/nginx/{chain};\nssl_certificate_key /etc/nginx/{key};",
            "Leaf and intermediates belong in one file.",
            "nginx -t && nginx -s reload",
        ),
        Remedy(
            "Apache",
            f"SSLCertificateFile /etc/apache2/{chain}\nSSLCertificateKeyFile /etc/apache2/{key}",
            "From version 2.4.8 on. Remove SSLCertificateChainFile.",
            "apachectl configtest && apachectl graceful",
        ),
        Remedy(
            "HAProxy",
            f"# cat {chain} {key} > /etc/haproxy/site.pem\nbind :443 ssl crt /etc/haproxy/site.pem",
            "One file holds leaf, intermediates and key.",
            "haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy",
        ),
        Remedy(
            "Caddy",
            f"tls /etc/caddy/{chain} /etc/caddy/{key}",
            "Not needed with automatic HTTPS: Caddy then sends the full chain.",
            "caddy reload --config /etc/caddy/Caddyfile",
        ),
    )
