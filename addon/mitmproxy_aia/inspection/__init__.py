"""Inspecting servers, and files with chains, for a person: with the very same completion,
verifier, sources and egress rule as in the proxy, and without mitmproxy."""
