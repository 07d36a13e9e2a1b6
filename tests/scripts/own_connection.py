"""Another addon that provides its own connection to the server, which accepts no name."""

from mitmproxy import tls
from OpenSSL import SSL


class OwnConnection:
    def tls_start_server(self, data: tls.TlsData) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
        data.ssl_conn = SSL.Connection(context)
        data.ssl_conn.set_connect_state()


addons = [OwnConnection()]
