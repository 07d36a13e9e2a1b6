"""mitmproxy-aia completes incomplete certificate chains during the upstream TLS handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mitmproxy_aia.addon import Aia, only_one

__all__ = ["Aia", "only_one"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # The command line does not need mitmproxy, which takes a while to import.
    if name in __all__:
        from mitmproxy_aia import addon

        return getattr(addon, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
