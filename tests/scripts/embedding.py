"""A program that has mitmproxy in it, and our addon as the last of all: `embedding.py ROOTS`."""

import asyncio
import logging
import sys
import tempfile

from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster

from mitmproxy_aia import Aia


async def main(roots: str, confdir: str) -> None:
    master = DumpMaster(
        Options(
            listen_host="127.0.0.1",
            listen_port=0,
            confdir=confdir,
            ssl_verify_upstream_trusted_ca=roots,
        )
    )
    master.addons.add(Aia())
    await master.run()


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1], folder))
