"""Connections through a proxy with anything in them, for clients that are no browsers."""

import socket
import ssl
from pathlib import Path

_PATIENCE = 15.0


def tunnel(proxy_port: int, host: str, port: int) -> socket.socket:
    """A connection to a server through an HTTP proxy on loopback, made with CONNECT."""
    connection = socket.create_connection(("127.0.0.1", proxy_port), timeout=_PATIENCE)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # One by one, since the server may speak first.
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    if b" 200 " not in head.partition(b"\r\n")[0]:
        connection.close()
        raise ConnectionError(f"the proxy says {head!r}")
    return connection


def with_tls(
    connection: socket.socket, ca_file: Path, host: str = "127.0.0.1", alpn: str = ""
) -> ssl.SSLSocket:
    """TLS in `connection`, with a server that an authority in `ca_file` vouches for."""
    context = ssl.create_default_context(cafile=ca_file)
    if alpn:
        context.set_alpn_protocols([alpn])
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises EOFError if there are not."""
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise EOFError(f"closed after {received!r}")
        received += chunk
    return received


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or breaks off."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received
