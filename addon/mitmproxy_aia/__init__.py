"""mitmproxy-aia completes incomplete certificate chains during the upstream TLS handshake."""

from mitmproxy_aia.addon import Aia

__all__ = ["Aia"]
__version__ = "0.1.0"
