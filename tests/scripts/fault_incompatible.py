"""A mitmproxy that has changed: the environment variable GONE names what is not there any more.

Loaded before the addon.
"""

import os

from mitmproxy.proxy import tunnel
from mitmproxy.proxy.layers import tls

match os.environ["GONE"]:
    case "method":
        # mypy does not like what this script is for.
        del tls.TLSLayer.receive_handshake_data, tunnel.TunnelLayer.receive_handshake_data
    case "call":

        def start_tls_only(self: tls.ServerTLSLayer) -> object:
            yield from self.start_tls()

        tls.ServerTLSLayer.start_handshake = start_tls_only  # type: ignore[method-assign,assignment]
    case other:
        raise ValueError(other)
