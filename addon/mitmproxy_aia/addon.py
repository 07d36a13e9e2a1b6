"""The face to mitmproxy: options, hooks and log lines. No cryptography and no I/O."""

from __future__ import annotations

import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from mitmproxy import addonmanager, connection, ctx, exceptions, tls

from mitmproxy_aia import handshake
from mitmproxy_aia.certificates import Certificate, printable
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.limits import Limits
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.verification import Verifier

logger = logging.getLogger(__name__)

MODES = ("complete", "off")
ANNOUNCED = 1_000
"""Completions that were logged at INFO, and are not again."""


@dataclass(frozen=True)
class Settings:
    """The addon's options, checked."""

    mode: str = "complete"
    timeout: float = 10.0

    @classmethod
    def from_options(cls) -> Settings:
        """Raises OptionsError, which names the option and what it takes."""
        mode, timeout = ctx.options.aia_mode, _seconds(ctx.options.aia_timeout)
        if mode not in MODES:
            raise exceptions.OptionsError(
                f"aia_mode takes one of {', '.join(MODES)}, and not {mode!r}"
            )
        if timeout is None:
            raise exceptions.OptionsError(
                f"aia_timeout takes a number of seconds greater than 0, for example 10 or 2.5, "
                f"and not {ctx.options.aia_timeout!r}"
            )
        return cls(mode, timeout)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None


class Aia:
    """The addon. `-s addon/aia.py` makes one; so does `addons.add(Aia())` elsewhere."""

    name = "aia"

    def __init__(self) -> None:
        self._settings = Settings()
        self._sources: tuple[IssuerSource, ...] = ()
        self._aia: AiaSource | None = None
        self._announced: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def load(self, loader: addonmanager.Loader) -> None:
        loader.add_option(
            name="aia_mode",
            typespec=str,
            default="complete",
            choices=MODES,
            help="What to do when a server sends an incomplete certificate chain. "
            "complete: get the missing intermediates from the caIssuers URLs in the "
            "certificates (AIA), verify the whole chain, and go on if it is good. "
            "off: fail as mitmproxy does without the addon.",
        )
        loader.add_option(
            name="aia_timeout",
            # Not int: mitmproxy's message for a bad one ("Not an integer: x") names no option.
            typespec=str,
            default="10",
            help="Seconds that the completion of one certificate chain may take, all its "
            "downloads together. Only the connection concerned waits.",
        )

    def configure(self, updated: set[str]) -> None:
        if updated & {"aia_mode", "aia_timeout"}:
            self._settings = Settings.from_options()

    def tls_start_server(self, data: tls.TlsData) -> None:
        if self._settings.mode == "off" or ctx.options.ssl_insecure:
            return
        if data.ssl_conn is not None or not isinstance(data.conn, connection.Server):
            return  # Another addon's connection is its own business.
        tlsconfig = ctx.master.addons.get("tlsconfig")
        try:
            tlsconfig.tls_start_server(data)
        except Exception:
            # TlsConfig gets its turn after us, and will say itself what is wrong.
            logger.debug("TlsConfig refused a connection")
            data.ssl_conn = None
            return
        address = _address(data.conn)
        handshake.watch(data, self._begin, functools.partial(self._conclude, address))

    async def aia_complete(self, pause: handshake.Pause) -> None:
        """Handles `handshake.AiaCompleteHook`."""
        pause.outcome = await pause.completion.complete()

    def done(self) -> None:
        self._settings = Settings(mode="off")
        if self._aia is not None:
            self._aia.close()

    def _begin(self, presented: Iterable[Certificate], verifier: Verifier) -> Completion:
        if self._aia is None:
            self._aia = AiaSource(Downloader(lambda: self._settings.timeout))
            self._sources = (MemorySource(), self._aia)
        return Completion(
            presented, verifier, self._sources, Limits(seconds=self._settings.timeout)
        )

    def _conclude(self, address: str, outcome: Outcome) -> None:
        if not outcome.verified:
            logger.warning(
                f"{address} sent a certificate chain that could not be completed: {outcome.reason}"
            )
            return
        where = ", ".join(f'"{item.certificate.name}" {item.place}' for item in outcome.found)
        logger.log(
            logging.INFO if self._is_news(address, outcome) else logging.DEBUG,
            f"{address} sent an incomplete chain; found {where or 'a path in what it sent'} "
            f"in {outcome.seconds * 1000:.0f} ms",
        )

    def _is_news(self, address: str, outcome: Outcome) -> bool:
        """Whether this server has not been completed with these certificates before."""
        what = address, *(item.certificate.fingerprint.hex() for item in outcome.found)
        new = what not in self._announced
        self._announced[what] = None
        self._announced.move_to_end(what)
        if len(self._announced) > ANNOUNCED:
            self._announced.popitem(last=False)
        return new


def _address(server: connection.Server) -> str:
    """How the log calls a server: by the name it was asked for, if there is one."""
    host, port = server.address[:2] if server.address else ("unknown", 0)
    return printable(f"{server.sni or host}:{port}")
