"""What `mitmdump -s addon/aia.py` loads. Everything else is in the package beside it."""

from mitmproxy_aia import Aia

addons = [Aia()]
