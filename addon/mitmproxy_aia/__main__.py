"""`python -m mitmproxy_aia` is the `mitmproxy-aia` command."""

from mitmproxy_aia.cli import main

main()
