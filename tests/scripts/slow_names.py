"""A name service that takes half a minute for names that begin with "slow"."""

import logging
import socket
import time
from typing import Any

_real = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    if str(host).startswith("slow"):
        logging.getLogger(__name__).info(f"looking up {host}")
        # It stands for a name server that does not answer.
        time.sleep(30)
    return _real(host, *args, **kwargs)


socket.getaddrinfo = _getaddrinfo
