"""Records the flow files beside it: `python -m tests.flows.record`, once with each mitmproxy.

In them somebody has visited https://recorded.test with HTTP/1.1 and HTTP/2. Where that is, is
only known when they are replayed: see `redirects` in tests/scripts/neighbour.py.
"""

import tempfile
from pathlib import Path

import mitmproxy.version

from tests.lab import CaIssuersServer, Proxy, TlsServer, authority, curl

HERE = Path(__file__).parent
NEIGHBOUR = HERE.parent / "scripts" / "neighbour.py"
HOST = "recorded.test"
PATHS = ["/http1", "/http2", "/post"]


def record(file: Path) -> None:
    root = authority()
    issuer = root.issue("Recorded Intermediate", ca=True)
    with CaIssuersServer() as ca, tempfile.TemporaryDirectory() as folder:
        url = ca.serve("/intermediate.der", issuer.der)
        leaf = issuer.issue(hosts=[HOST], aia=[url])
        with (
            TlsServer(leaf, alpn=("h2", "http/1.1"), body=b"as recorded") as server,
            Proxy(
                trust=[root],
                scripts=[NEIGHBOUR],
                options={
                    "neighbour": f"redirects:{server.port}",
                    # A connection that is there before the request lends it its address.
                    "connection_strategy": "lazy",
                    "save_stream_file": str(Path(folder, "flows")),
                },
            ) as proxy,
        ):
            for path, more, http2 in zip(
                PATHS, ([], [], ["--data", "body"]), (False, True, False), strict=True
            ):
                reply = curl(f"https://{HOST}{path}", *more, proxy=proxy, http2=http2)
                assert reply.status == 200
        file.write_bytes(Path(folder, "flows").read_bytes())


if __name__ == "__main__":
    major = mitmproxy.version.VERSION.split(".")[0]
    record(HERE / f"mitmproxy-{major}.mitm")
