"""A proxy that connects anybody anywhere, and wants credentials for all other requests."""

from mitmproxy import http


def request(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(407, headers={"Proxy-Authenticate": "Basic"})
