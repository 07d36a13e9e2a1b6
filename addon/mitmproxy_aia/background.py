"""What a command begins and does not wait for, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from mitmproxy.log import ALERT

logger = logging.getLogger(__name__)


class Background:
    """Tasks whose end is said in the log. Needs a running event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Awaitable[str]) -> None:
        """Does what would keep the event loop waiting, and says what came of it."""

        async def run() -> None:
            try:
                logger.log(ALERT, await work)
            except (OSError, RuntimeError) as error:
                logger.error(str(error))

        task = asyncio.create_task(run(), name="aia command")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
