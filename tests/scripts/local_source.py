"""Gives a running addon a local source: `curl --data-binary @certificates.pem
http://control.test/` through the proxy."""

from mitmproxy import ctx, http

from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.memory import MemorySource


class LocalSource:
    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != "control.test":
            return
        sources = ctx.master.addons.get("aia")._tiers.sources
        memory = next(source for source in sources if isinstance(source, MemorySource))
        certificates = read_certificates(flow.request.content or b"")
        memory.keep([Found(certificate, "the script") for certificate in certificates])
        flow.response = http.Response.make(200, f"{len(certificates)} certificates")


addons = [LocalSource()]
