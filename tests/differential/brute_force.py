"""An independent opinion: every path there is, each of them put to a real handshake.

Nothing of the addon is used here. Who has signed what is known from the PKI, and a path is
valid if a TLS client that trusts its root alone accepts a server that presents just this path.
OpenSSL then has no choice to make, and asks what it asks of any server: host name, purpose,
dates, constraints and the security level.
"""

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from OpenSSL import SSL, crypto

from tests.differential.pki import Built, Edge, Pki
from tests.lab import Issued
from tests.lab.presenting import present

# Not part of pyOpenSSL's typed interface.
_lib: Any = SSL._lib  # type: ignore[attr-defined] # has no types

MAX_STEPS = 2_000
"""Paths looked at. In the few PKIs with more, those are the longest and no better."""

VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


def valid_path(pki: Pki, built: Built) -> tuple[Issued, ...] | None:
    """The shortest valid path, leaf and trust anchor included; None if there is none."""
    for numbers in _paths(pki):
        path = (built.leaf, *(built.edges[number] for number in numbers))
        if is_valid(path):
            return path
    return None


def is_valid(path: Sequence[Issued]) -> bool:
    """Whether a client that trusts the last certificate alone accepts the others."""
    return accepts([path[-1]], path[:-1])


def accepts(
    trusted: Sequence[Issued], presented: Sequence[Issued], callback: VerifyCallback | None = None
) -> bool:
    """A handshake at 127.0.0.1, in memory. `callback` is that of Context.set_verify."""
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client_context.set_verify(SSL.VERIFY_PEER, callback)
    store = client_context.get_cert_store()
    assert store is not None
    for root in trusted:
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
    client = SSL.Connection(client_context)
    address = ipaddress.ip_address("127.0.0.1").packed
    parameters = _lib.SSL_get0_param(client._ssl)
    assert _lib.X509_VERIFY_PARAM_set1_ip(parameters, address, len(address)) == 1

    server_context = SSL.Context(SSL.TLS_SERVER_METHOD)
    server_context.set_cipher_list(b"ALL:@SECLEVEL=0")
    leaf, *others = presented
    present(server_context, leaf, others)
    server = SSL.Connection(server_context)

    client.set_connect_state()
    server.set_accept_state()
    return shake_hands(client, server)


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> bool:
    """Whether the client is content. Both have no socket; their states have been set."""
    for _ in range(10):
        for side, other in (client, server), (server, client):
            # What an earlier failure has left there, this side would be blamed for.
            _lib.ERR_clear_error()
            try:
                side.do_handshake()
            except SSL.WantReadError:
                done = False
            except SSL.Error:
                return False
            else:
                done = True
            if done and side is client:
                return True
            try:
                while data := side.bio_read(65536):
                    other.bio_write(data)
            except SSL.WantReadError:
                continue
    raise AssertionError("the handshake does not end")


def _paths(pki: Pki) -> Iterator[tuple[int, ...]]:
    """Every path to a trusted root, as numbers of edges; no edge is twice in a path."""
    waiting: deque[tuple[int, ...]] = deque([()])
    for _ in range(MAX_STEPS):
        if not waiting:
            return
        path = waiting.popleft()
        below: Edge = pki.edges[path[-1]] if path else pki.leaf
        for number, edge in enumerate(pki.edges):
            if number in path or edge.subject is None or edge.subject.number != below.signer:
                continue
            if number in pki.trusted:
                yield (*path, number)
            waiting.append((*path, number))
