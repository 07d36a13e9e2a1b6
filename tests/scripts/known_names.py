"""A name service that knows the names in the environment variable NAMES: `a.test=10.0.0.1,...`."""

import os
import socket
from typing import Any

_real = socket.getaddrinfo
_names = dict(pair.split("=") for pair in os.environ["NAMES"].split(","))


def _getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    return _real(_names.get(str(host), host), port, *args, **kwargs)


socket.getaddrinfo = _getaddrinfo
