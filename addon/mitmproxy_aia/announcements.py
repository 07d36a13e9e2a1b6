"""The log lines on what came of completions: one for each, and at INFO what is new."""

from __future__ import annotations

import logging

from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.connections import details_are_shown
from mitmproxy_aia.recent import Recent

logger = logging.getLogger(__name__)

ANNOUNCED = 1_000
"""Completions that were logged at INFO, and are not again."""


class Announcements:
    """What was announced lately is remembered."""

    def __init__(self) -> None:
        self._announced = Recent(ANNOUNCED)

    def tell(self, address: str, outcome: Outcome, *, audit: bool) -> None:
        """`address` is the server's, and `audit` says that it was refused all the same."""
        if not outcome.verified:
            logger.warning(
                f"{address} sent a certificate chain that could not be completed: {outcome.reason}"
            )
            return
        # Whether this server has not been completed with these certificates before.
        what = (address, audit, *(item.certificate.fingerprint for item in outcome.found))
        news = what not in self._announced
        self._announced.add(what)
        if not news and not details_are_shown():
            return
        where = ", ".join(f'"{item.certificate.name}" {item.place}' for item in outcome.found)
        logger.log(
            logging.INFO if news else logging.DEBUG,
            f"{address} sent an incomplete chain; found {where or 'a path in what it sent'} "
            f"in {outcome.seconds * 1000:.0f} ms"
            + (" and let it fail all the same (aia_mode=audit)" if audit else ""),
        )
