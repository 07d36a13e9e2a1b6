"""What a server made with pyOpenSSL presents. Python's own ssl presents nothing that OpenSSL
finds fault with, and only pyOpenSSL can present something else later."""

from collections.abc import Sequence
from typing import Any

import OpenSSL
from OpenSSL import SSL, crypto

from tests.lab.certificates import Issued
from tests.lab.keys import PrivateKey

# It takes `cryptography`'s objects from 24.3 on, and from then on warns of its own.
_OLD = tuple(map(int, OpenSSL.__version__.split(".")[:2])) < (24, 3)


def present(
    server: SSL.Context | SSL.Connection, leaf: Issued, presented: Sequence[Issued] = ()
) -> None:
    """The server presents `leaf` and then `presented`, in this order. A connection can only
    be told the leaf."""
    # pyOpenSSL's type hints differ from version to version.
    anything: Any = server
    anything.use_certificate(_certificate(leaf))
    anything.use_privatekey(openssl_key(leaf.key))
    for each in presented:
        anything.add_extra_chain_cert(_certificate(each))


def openssl_key(key: PrivateKey) -> Any:
    """What pyOpenSSL takes for this key."""
    anything: Any = key
    return crypto.PKey.from_cryptography_key(anything) if _OLD else key


def _certificate(issued: Issued) -> Any:
    return crypto.X509.from_cryptography(issued.certificate) if _OLD else issued.certificate
