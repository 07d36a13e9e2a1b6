"""A script for mitmproxy that does nothing: what that costs, any addon costs."""
