"""What `mitmdump -s addon/aia.py` loads. Everything else is in the package beside it."""

from mitmproxy_aia import only_one

addons = only_one(__file__)
