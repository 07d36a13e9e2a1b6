"""A laboratory of certificates, servers and proxies, all real, on loopback or in networks of its
own."""

from tests.lab.browser import Browser
from tests.lab.bundles import (
    pem_bundle,
    pkcs7_ber,
    pkcs7_ber_pem,
    pkcs7_der,
    pkcs7_pem,
    trust_file,
)
from tests.lab.ca_issuers import CaIssuersServer
from tests.lab.certificates import Issued, Options, authority, common_name
from tests.lab.client import CurlError, Reply, curl
from tests.lab.eager_server import EagerServer
from tests.lab.listener import dead_url
from tests.lab.network import Network
from tests.lab.programs import nginx, openssl_s_server
from tests.lab.proxy import Proxy
from tests.lab.redis_server import RedisServer
from tests.lab.relay import Chunk, Relay
from tests.lab.tls_server import TlsServer

__all__ = [
    "Browser",
    "CaIssuersServer",
    "Chunk",
    "CurlError",
    "EagerServer",
    "Issued",
    "Network",
    "Options",
    "Proxy",
    "RedisServer",
    "Relay",
    "Reply",
    "TlsServer",
    "authority",
    "common_name",
    "curl",
    "dead_url",
    "nginx",
    "openssl_s_server",
    "pem_bundle",
    "pkcs7_ber",
    "pkcs7_ber_pem",
    "pkcs7_der",
    "pkcs7_pem",
    "trust_file",
]
