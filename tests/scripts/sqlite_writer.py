"""Writes certificates to a SQLite cache: `python -m tests.scripts.sqlite_writer FILE COUNT WAY`.

WAY is "source" or "cache". A line with its fingerprint follows each that was committed.
"""

import datetime
import itertools
import logging
import sys
import time

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Found
from mitmproxy_aia.sources.sqlite import SqliteSource
from mitmproxy_aia.sources.sqlite_cache import SqliteCache
from mitmproxy_aia.sources.sqlite_errors import Damaged
from tests.lab import authority


def is_kept(cache: SqliteCache, certificate: Certificate, now: datetime.datetime) -> bool:
    try:
        entries = cache.issuers_of(certificate.subject, now)
    except Damaged:  # to be set aside by a source, here or in another process
        return False
    return certificate in [each.certificate for each in entries]


def main(path: str, count: str, way: str) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s")
    root = authority()
    cache, source = SqliteCache(path), SqliteSource(path)
    for number in itertools.islice(itertools.count(), int(count)):
        made = root.issue(f"Writer {number}", ca=True, key=root)
        certificate = Certificate.from_der(made.der)
        now = datetime.datetime.now(datetime.UTC)
        if way == "cache":
            cache.add([Entry(certificate, "a script", now, now)])
        else:
            source.keep([Found(certificate, "a script")])
            deadline = time.monotonic() + 20
            while not is_kept(cache, certificate, now):
                if time.monotonic() > deadline:
                    raise TimeoutError("nothing was written")
                time.sleep(0.001)
        print(certificate.fingerprint.hex(), flush=True)
    source.close()


main(*sys.argv[1:])
