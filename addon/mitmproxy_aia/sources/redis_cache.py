"""The cache in Redis seen from the command line: it blocks, and says what is wrong."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any

from mitmproxy_aia.cache import CacheError, Entry
from mitmproxy_aia.sources.redis_records import (
    ISSUERS,
    PREFIX,
    READ,
    USED,
    WRITE,
    read_answer,
    write_arguments,
)
from mitmproxy_aia.sources.redis_url import (
    check_url,
    client_options,
    redacted,
    redis_library,
    said_of,
)

TIMEOUT = 5.0
"""Seconds for one answer."""
_BATCH = 100
"""Keys in one round trip, and certificates in one script: a script holds up the others."""


class RedisCache:
    """A `Cache`. Raises ValueError for a URL that names no Redis, and CacheError without
    redis-py. Connects when first asked."""

    def __init__(self, url: str) -> None:
        check_url(url)
        redis_library()
        import redis

        self._name = redacted(url)
        self._client: Any = redis.Redis.from_url(url, **client_options(url, TIMEOUT))
        self._failures = (redis.RedisError, OSError, ValueError)

    def __repr__(self) -> str:
        return f"RedisCache({self._name})"

    @property
    def name(self) -> str:
        return self._name

    def entries(self) -> Iterator[Entry]:
        """In the order of their subjects, for which the subjects alone are collected first
        (some hundred bytes each). What proxies add or remove meanwhile may be missed."""
        subjects = sorted(
            (entry.certificate.subject, key)
            for key, found in self._records(self._keys(ISSUERS))
            for entry in found[:1]
        )
        for _, found in self._records(key for _, key in subjects):
            yield from sorted(found, key=lambda entry: entry.certificate.fingerprint)

    def add(self, entries: Iterable[Entry]) -> int:
        """All in one transaction. Expired ones are not added, as they would go at once."""
        now = datetime.datetime.now(datetime.UTC)
        source = iter(entries)
        with self._client.pipeline(transaction=True) as pipeline:
            while batch := list(islice(source, _BATCH)):
                keys, arguments = write_arguments(batch, now)
                pipeline.eval(WRITE, len(keys), *keys, int(now.timestamp()), 1, *arguments)
            with self._asking():
                return sum(pipeline.execute())

    def remove(self, fingerprints: Collection[bytes]) -> int:
        wanted = {fingerprint.hex().encode() for fingerprint in fingerprints}
        return sum(
            self._drop(key, wanted.intersection(fields))
            for key, fields in self._each(self._keys(ISSUERS), "hkeys")
        )

    def clear(self) -> int:
        """Removes the keys with our prefix, leases too, and no others."""
        count = 0
        for key, fields in self._each(self._keys(PREFIX), "hkeys"):
            count += sum(1 for field in fields if not field.endswith(USED.encode()))
            with self._asking():
                self._client.unlink(key)
        return count

    def prune(self, now: datetime.datetime) -> int:
        return sum(
            self._drop(
                key,
                {
                    entry.certificate.fingerprint.hex().encode()
                    for entry in found
                    if entry.certificate.not_after < now
                },
            )
            for key, found in self._records(self._keys(ISSUERS))
        )

    def close(self) -> None:
        self._client.close()

    def _keys(self, prefix: str) -> Iterator[bytes]:
        """Each key with this prefix, once."""
        seen: set[bytes] = set()
        scan = self._client.scan_iter(match=f"{prefix}*", count=_BATCH)
        while True:
            with self._asking():
                key = next(scan, None)
            if key is None:
                return
            if key not in seen:
                seen.add(key)
                yield key

    def _records(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, list[Entry]]]:
        """What lies under each key, as far as it is sound."""
        for key, answer in self._each(keys, "eval", READ, 2, ..., "", "", 0):
            with self._asking():
                entries = read_answer(answer)[1]
            yield key, entries

    def _each(
        self, keys: Iterable[bytes], command: str, *arguments: Any
    ) -> Iterator[tuple[bytes, Any]]:
        """The answer to `command` for each key (in place of ...). It is empty for a key of
        another type."""
        todo = iter(keys)
        while batch := list(islice(todo, _BATCH)):
            with self._asking(), self._client.pipeline(transaction=False) as pipeline:
                ask: Callable[..., Any] = getattr(pipeline, command)
                for key in batch:
                    ask(*[key if each is ... else each for each in arguments or (...,)])
                answers = pipeline.execute(raise_on_error=False)
                for at, answer in enumerate(answers):
                    if isinstance(answer, Exception):
                        if not str(answer).startswith("WRONGTYPE"):
                            raise answer
                        answers[at] = []
            yield from zip(batch, answers, strict=True)

    def _drop(self, key: bytes, fields: set[bytes]) -> int:
        if not fields:
            return 0
        with self._asking(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hdel(key, *fields)
            pipeline.hdel(key, *(field + USED.encode() for field in fields))
            removed, _ = pipeline.execute()
        return int(removed)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise CacheError(f"the cache {self._name} {said_of(error)}") from None
