"""Says which modules have been imported when mitmproxy has started, and when those for downloads
have been. Loaded after the addon."""

import asyncio
import logging
import sys

# What takes long to import or is for few, and is no part of mitmproxy without the addon.
HEAVY = (
    *("httpx", "httpcore", "anyio", "redis", "prometheus_client"),
    "cryptography.hazmat.primitives.serialization.pkcs7",
    *("mitmproxy_aia.cli", "mitmproxy_aia.inspection", "mitmproxy_aia.drawing"),
    *("mitmproxy_aia.page.answers", "mitmproxy_aia.page.rendering", "mitmproxy_aia.page.site"),
    *("mitmproxy_aia.report", "mitmproxy_aia.report_html", "mitmproxy_aia.remedies"),
    *("mitmproxy_aia.bundle", "mitmproxy_aia.checking"),
    *("mitmproxy_aia.sources.download", "mitmproxy_aia.sources.redis"),
)
DOWNLOADS = "mitmproxy_aia.sources.download"

_tasks: set[asyncio.Task[None]] = set()


def running() -> None:
    found = [name for name in HEAVY if name in sys.modules]
    logging.info(f"imported at the start: {found}")
    _tasks.add(asyncio.create_task(_wait()))


async def _wait() -> None:
    while DOWNLOADS not in sys.modules:  # noqa: ASYNC110 -- nobody tells
        await asyncio.sleep(0.01)
    logging.info("imported for downloads")
