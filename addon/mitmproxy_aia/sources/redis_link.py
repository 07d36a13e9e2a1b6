"""The connection to a Redis that may be down, slow or talking nonsense at any moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mitmproxy_aia.sources.redis_url import client_options, redacted, said_of

TIMEOUT = 0.5
"""Seconds for one question, waiting for a connection included."""
PAUSE = 5.0
"""Seconds without a question after a failure."""
CONNECTIONS = 8
_TURNS = 10
"""In how many pieces the timeout is waited for."""

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


class Unavailable(Exception):
    """There is no answer. It has been logged, if that was due."""


class Link:
    """Asks scripts of one Redis. Must be used from one event loop.

    After a failure nothing is asked for `pause` seconds, and then by one caller at a time
    until it works. The first failure and the recovery are logged, each once. A server that
    works, but answers one of the scripts with an error, is logged once for that script.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT, pause: float = PAUSE) -> None:
        self._url = url
        self.name = redacted(url)
        self._timeout = timeout
        self._pause = pause
        self._scripts: dict[str, Any] = {}
        self._refused: set[str] = set()
        self._client: Any = None
        self._owner: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        self._probing = False
        self._closed = False
        self.recoveries = 0

    def __repr__(self) -> str:
        return f"Link({self.name})"

    @property
    def usable(self) -> bool:
        """Whether a question would be asked now."""
        if self._closed or self._probing:
            return False
        return self._failed_at is None or time.monotonic() - self._failed_at >= self._pause

    async def ask(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int],
        read: Callable[[object], _Answer],
    ) -> _Answer:
        """What `read` makes of the script's answer. It raises ValueError for nonsense.

        Raises Unavailable.
        """
        if not self.usable:
            raise Unavailable
        self._probing = probing = self._failed_at is not None
        question = asyncio.ensure_future(self._run(script, keys, arguments))
        question.add_done_callback(_retrieve)
        try:
            answer = read(await self._wait_for(question, probing))
        except Unavailable:
            raise
        except Exception as error:
            if _is_refusal(error):
                self._worked()
                self._refuses(script, said_of(error))
            else:
                self._failed(said_of(error))
            raise Unavailable from None
        finally:
            question.cancel()
            if probing:
                self._probing = False
        self._worked()
        self._refused.discard(script)
        return answer

    def close(self) -> None:
        """Drops the connections. Safe twice, and also when the event loop is gone: its end
        has then cancelled their owner."""
        self._closed = True
        if self._owner is not None and not self._owner.get_loop().is_closed():
            self._owner.cancel()

    async def _wait_for(self, question: asyncio.Future[object], probing: bool) -> object:
        # In pieces: when the event loop was held up, an answer that came in meanwhile is
        # seen in the next piece, and the Redis not blamed. And who waits beside others
        # learns from their failure.
        for _ in range(_TURNS):
            await asyncio.wait({question}, timeout=self._timeout / _TURNS)
            if question.done():
                return question.result()
            if self._closed or (self._failed_at is not None and not probing):
                raise Unavailable
        raise TimeoutError

    async def _run(
        self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> object:
        if self._client is None:
            self._open()
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        answer: object = await self._scripts[script](keys=keys, args=arguments)
        return answer

    def _open(self) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Its own timeouts come after ours: it would ask again.
        options = client_options(self._url, 2 * self._timeout)
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=CONNECTIONS,
            timeout=self._timeout,
            # Once: a connection that the server has closed meanwhile says nothing of it.
            retry=Retry(NoBackoff(), 1),
            **options,
        )
        self._client = Redis(connection_pool=pool)
        self._owner = asyncio.create_task(_own(self._client), name="aia redis connections")

    def _worked(self) -> None:
        if self._failed_at is not None:
            self._failed_at = None
            self.recoveries += 1
            logger.info("The cache %s works again", self.name)

    def _refuses(self, script: str, what: str) -> None:
        if script not in self._refused:
            self._refused.add(script)
            logger.warning("The cache %s %s; it may be of no use", self.name, what)

    def _failed(self, what: str) -> None:
        if self._failed_at is None:
            logger.warning("The cache %s %s; going on without it", self.name, what)
        self._failed_at = time.monotonic()


async def _own(client: Any) -> None:
    """Closes `client` when cancelled: by `close`, or by the end of the event loop, which is
    the last moment at which that can be done cleanly."""
    try:
        await asyncio.Event().wait()
    finally:
        await client.aclose(close_connection_pool=True)


def _is_refusal(error: Exception) -> bool:
    import redis

    return isinstance(error, redis.ResponseError)


def _retrieve(question: asyncio.Future[object]) -> None:
    """A question given up may still fail. asyncio would log that nobody looked."""
    if not question.cancelled():
        question.exception()
