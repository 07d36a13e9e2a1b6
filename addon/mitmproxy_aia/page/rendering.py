"""Templates to HTML. All text is escaped unless a template's own author wrote it."""

from __future__ import annotations

import datetime
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.drawing import Drawing, State, draw
from mitmproxy_aia.history import Record
from mitmproxy_aia.names import printable
from mitmproxy_aia.remedies import Remedy, file_name, full_chain, remedies

HERE = Path(__file__).parent
MAX_TEXT = 500
"""Characters of a stranger's text."""


@dataclass(frozen=True)
class ServerView:
    """A record as it is shown. The template server.html takes one.

    With `chain_url` its chain is to be downloaded there, else `chain_pem` holds it.
    """

    record: Record
    drawing: Drawing
    chain_url: str = ""
    chain_pem: str = ""

    @classmethod
    def of(cls, record: Record, *, downloads: bool = True) -> ServerView:
        """`downloads`: whether there is a site that has the chain for download."""
        drawing = draw(record.presented, record.path, record.found or record.fetched, record.reason)
        if downloads:
            return cls(record, drawing, chain_url=chain_path(record))
        return cls(record, drawing, chain_pem=full_chain(drawing.chain))

    @property
    def id(self) -> str:
        """Of the element, and different for each server."""
        return f"s-{server_id(self.record)}"

    @property
    def verdict(self) -> str:
        return verdict_of(self.record)

    @property
    def host(self) -> str:
        return printable(self.record.server.rpartition(":")[0] or self.record.server, MAX_TEXT)

    @property
    def port(self) -> str:
        _, colon, port = self.record.server.rpartition(":")
        return printable(colon + port, MAX_TEXT) if self.record.server[: -len(port) - 1] else ""

    @property
    def advice(self) -> str:
        """What the operator of the server has to know."""
        last = self.drawing.rows[-1]
        if self.drawing.complete:
            return "The server should send its full chain: leaf first, and no root."
        if not last.reached:
            return "The server needs a chain without this fault. This is what is known of it."
        if last.state is State.UNTRUSTED:
            return (
                f"If you trust {last.name}, add it to the roots of mitmproxy (see "
                "ssl_verify_upstream_trusted_ca). Otherwise the server needs a certificate from an "
                "authority that its clients trust."
            )
        return (
            "Whoever issued the certificate has the missing intermediate, too. The server should "
            "send it below what is known of the chain: leaf first, and no root. Until it does, "
            "mitmproxy takes the file as aia_intermediates. If it is a root, and your browser "
            "trusts it, add it to the roots of mitmproxy (see ssl_verify_upstream_trusted_ca)."
        )

    @property
    def mendable(self) -> bool:
        """Whether a file with more certificates in it is all that the server needs."""
        last = self.drawing.rows[-1]
        return last.reached and last.state is not State.UNTRUSTED

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        return remedies(file_name(self.record.server))

    @property
    def sentence(self) -> str:
        """What happened, for people."""
        milliseconds = f"{self.record.seconds * 1000:.0f} ms"
        if not self.record.path:
            came_of_it = "The connection was refused."
        elif self.record.audit:
            came_of_it = (
                f"It could be completed in {milliseconds}; the connection was refused all the "
                "same (aia_mode=audit)."
            )
        else:
            came_of_it = f"Completed and verified in {milliseconds}."
        said = f"{self.drawing.sentence} {came_of_it}"
        if self.record.mended is not None:
            said += f" Since {self.record.mended:%Y-%m-%d %H:%M} UTC the server sends all itself."
        return said


def verdict_of(record: Record) -> str:
    """In one word: incomplete, broken or mended."""
    return "mended" if record.verdict == "complete" else record.verdict


def server_id(record: Record) -> str:
    """A short name of the server for URLs, with no character that needs escaping."""
    return hashlib.sha256(record.where.encode(errors="replace")).hexdigest()[:16]


def chain_path(record: Record) -> str:
    """Where its chain can be downloaded."""
    return f"/chain/{server_id(record)}/{file_name(record.server)}"


def render(template: str, **values: object) -> str:
    """The template of this name, with these values."""
    return _environment().get_template(template).render(**values)


def static(name: str) -> bytes:
    """A file of the folder static."""
    return (HERE / "static" / name).read_bytes()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = functools.partial(printable, limit=MAX_TEXT)
    environment.filters["validity"] = _validity
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment


def _validity(certificate: Certificate, at: datetime.datetime) -> str:
    if certificate.not_after < at:
        return f"Expired on {certificate.not_after:%Y-%m-%d}"
    if certificate.not_before > at:
        return f"Valid from {certificate.not_before:%Y-%m-%d} on"
    return f"Valid until {certificate.not_after:%Y-%m-%d}"
