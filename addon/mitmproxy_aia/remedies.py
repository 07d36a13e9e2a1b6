"""The lines that make a server send its full chain. Pure."""

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


def remedies(
    chain: str = "fullchain.pem", key: str = "privkey.pem", starttls: str = ""
) -> tuple[Remedy, ...]:
    """For web servers, or for those that speak what is spoken before TLS begins (one of
    `inspection.starttls.PROTOCOLS`), if one is known here. `chain` is the file with the leaf and
    the intermediates, `key` that with the leaf's private key."""
    return _others(chain, key).get(starttls, ()) if starttls else _web_servers(chain, key)


def _others(chain: str, key: str) -> dict[str, tuple[Remedy, ...]]:
    dovecot = Remedy(
        "Dovecot",
        f"ssl_cert = </etc/dovecot/{chain}\nssl_key = </etc/dovecot/{key}",
        "From 2.4 on: ssl_server_cert_file and ssl_server_key_file, without the <.",
        "doveconf -n && doveadm reload",
    )
    postfix = Remedy(
        "Postfix",
        f"smtpd_tls_chain_files = /etc/postfix/{key}, /etc/postfix/{chain}",
        "From 3.4 on, in place of smtpd_tls_cert_file and smtpd_tls_key_file. The key comes first.",
        "postfix check && postfix reload",
    )
    vsftpd = Remedy(
        "vsftpd",
        f"rsa_cert_file=/etc/ssl/{chain}\nrsa_private_key_file=/etc/ssl/{key}",
        "Leaf and intermediates belong in one file.",
        "systemctl restart vsftpd",
    )
    postgres = Remedy(
        "PostgreSQL",
        f"ssl_cert_file = '{chain}'\nssl_key_file = '{key}'",
        "Leaf and intermediates belong in one file.",
        "psql -c 'SELECT pg_reload_conf()'",
    )
    return {
        "smtp": (postfix,),
        "imap": (dovecot,),
        "pop3": (dovecot,),
        "ftp": (vsftpd,),
        "postgres": (postgres,),
    }


def _web_servers(chain: str, key: str) -> tuple[Remedy, ...]:
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
