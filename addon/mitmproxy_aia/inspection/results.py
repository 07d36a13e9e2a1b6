"""What an inspection finds, and the verdict on it. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import IntEnum

from cryptography import x509

from mitmproxy_aia import errors
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.drawing import Drawing, draw
from mitmproxy_aia.names import printable
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.paths import Path
from mitmproxy_aia.sources import Found

MOST_NAMES = 10
"""Names of a leaf that a person is told."""

NAME_FAULTS = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH; `errors` has those that a
completion has to know."""


NO_ANCHOR = frozenset(
    {
        errors.UNABLE_TO_GET_ISSUER_CERT,
        errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        errors.UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        errors.DEPTH_ZERO_SELF_SIGNED_CERT,
        errors.SELF_SIGNED_CERT_IN_CHAIN,
        errors.CERT_CHAIN_TOO_LONG,
    }
)
"""What OpenSSL says where the chain that it has built ends without a trust anchor."""


class Verdict(IntEnum):
    """The values are exit statuses: of many, the worst counts."""

    COMPLETE = 0
    INCOMPLETE = 1
    BROKEN = 2
    UNREACHABLE = 3


@dataclass(frozen=True)
class Inspection:
    """A presented chain and what was found out about it.

    `presented` is leaf first. `faults` are what OpenSSL has against it as it is, in the order in
    which it looks, none if the chain is complete. `outcome` is what came of the completion, if
    there was one: none for a complete chain, and none where no other path could cure a fault.
    `path` is the verified path, leaf to trust anchor, or empty. `refused` is one that is as whole,
    with a fault that no other could cure. `at` is the time of the verdict.
    """

    presented: tuple[Certificate, ...]
    faults: tuple[Fault, ...]
    at: datetime.datetime
    outcome: Outcome | None = None
    path: Path = ()
    refused: Path = ()

    @property
    def verdict(self) -> Verdict:
        if not self.path:
            return Verdict.BROKEN
        return Verdict.INCOMPLETE if self.faults else Verdict.COMPLETE

    @property
    def found(self) -> tuple[Found, ...]:
        """What was not presented and is part of the path, or was found on the way to none."""
        if self.outcome is None:
            return ()
        if self.path:
            return self.outcome.found
        return tuple(found for attempt in self.outcome.attempts for found in attempt.found)

    @property
    def as_sent(self) -> str:
        """OpenSSL's words for what is wrong with the presented chain alone; empty if nothing."""
        return self.faults[0].text if self.faults else ""

    @property
    def reason(self) -> str:
        """Why it is broken, in OpenSSL's words, with what was tried; empty if it is not."""
        if self.path:
            return ""
        if self.outcome is not None:
            return self.outcome.reason
        final = [fault for fault in self.faults if not errors.curable(fault.code, fault.depth)]
        return "; ".join(dict.fromkeys(fault.text for fault in final or self.faults))

    @property
    def to_send(self) -> tuple[Certificate, ...]:
        """What the server should send, leaf first and without the trust anchor; empty if there
        is no verified path. A leaf that is trusted itself is all of it."""
        return tuple(self.path[:-1]) or tuple(self.path)

    @property
    def lacks_trust_only(self) -> bool:
        """Whether all that is known to be wrong is that no trust anchor was reached."""
        if self.outcome is not None:
            return self.drawing.ends_with_a_stranger
        return not self.path and all(fault.code in NO_ANCHOR for fault in self.faults)

    @property
    def drawing(self) -> Drawing:
        reason = self.outcome.reason if self.outcome is not None else ""
        return draw(self.presented, self.path or self.refused, self.found, reason)


@dataclass(frozen=True)
class Link:
    """How a server was reached: its address, the port, TLS's version as OpenSSL calls it, the
    name that it was asked for, and what was said before TLS, if anything was."""

    address: str
    port: int
    tls: str
    name: str
    starttls: str = ""
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Of one server, or one file, called `name`. `problem` says why it could not be inspected,
    and what to do next; then there is no `inspection`."""

    name: str
    inspection: Inspection | None = None
    link: Link | None = None
    problem: str = ""

    @property
    def verdict(self) -> Verdict:
        return Verdict.UNREACHABLE if self.inspection is None else self.inspection.verdict


def names_of(leaf: Certificate) -> list[str]:
    """The names and addresses that `leaf` is for, safe to print, with a word for those that are
    too many."""
    if not leaf.extensions_readable:
        return ["names that cannot be read"]
    try:
        extension = leaf.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = [
        *extension.get_values_for_type(x509.DNSName),
        *map(str, extension.get_values_for_type(x509.IPAddress)),
    ]
    told = [printable(name) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        told.append(f"and {len(names) - MOST_NAMES} more")
    return told
