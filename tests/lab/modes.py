"""Several modes in one mitmdump, which takes longer to start than to work."""

import re

from tests.lab.proxy import Proxy


class Modes:
    """What `Proxy` takes to listen in more modes, each at a loopback address of its own:

    modes = Modes("socks5", "reverse:https://127.0.0.1:4433")
    with Proxy(*modes.arguments) as proxy:
        modes.address(proxy, "socks5")
    """

    def __init__(self, *modes: str) -> None:
        self._hosts = {mode: f"127.0.0.{number}" for number, mode in enumerate(modes, 2)}

    @property
    def arguments(self) -> list[str]:
        pairs = [("--mode", f"{mode}@{host}:0") for mode, host in self._hosts.items()]
        return [argument for pair in pairs for argument in pair]

    def address(self, proxy: Proxy, mode: str) -> str:
        """Host and port at which `proxy` listens in this mode."""
        return proxy.wait_for(rf"listening at ({re.escape(self._hosts[mode])}:\d+)")[1]
