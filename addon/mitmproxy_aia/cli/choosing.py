"""Which certificates of a cache a person means, by a fingerprint or a text in the subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.cli.terminal import count
from mitmproxy_aia.cli.views import summary

LEAST_DIGITS = 4
"""Hexadecimal digits that are taken for the beginning of a fingerprint, too."""
MOST_NAMED = 20

_HEXADECIMAL = frozenset("0123456789abcdef")
_DIGITS = 64


@dataclass
class Choice:
    """What `text` fits. Of the entries the first `MOST_NAMED` are kept."""

    text: str
    fingerprints: list[bytes] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def problem(self, cache: str) -> str:
        """Why this is not one certificate; empty if it is. `cache` is its name."""
        if not self.fingerprints:
            short = 0 < len(self.text) < LEAST_DIGITS and _HEXADECIMAL.issuperset(self.text.lower())
            hint = f" (of a fingerprint it takes {LEAST_DIGITS} digits)" if short else ""
            return f"{self.text!r} fits no certificate in {cache}{hint}"
        if len(self.fingerprints) > 1:
            return f"{self.text!r} fits {count(len(self.fingerprints), 'certificate')}"
        return ""

    def candidates(self) -> list[str]:
        """A line for each, and one for those that are too many to name."""
        lines = [summary(entry) for entry in self.entries]
        more = len(self.fingerprints) - len(self.entries)
        return lines + ([f"and {more:,} more"] if more else [])


def choose(entries: Iterable[Entry], texts: Sequence[str]) -> list[Choice]:
    """What each of `texts` fits: the beginning of a SHA-256 fingerprint (with colons or
    without), or a part of the subject, whatever its letter case."""
    choices = [Choice(text) for text in dict.fromkeys(texts)]
    asked = [(choice, fingerprint_of(choice.text), choice.text.casefold()) for choice in choices]
    whole = all(len(digits) == _DIGITS for _, digits, _ in asked)
    for entry in entries:
        fingerprint = entry.certificate.fingerprint
        own = fingerprint.hex()
        # The names of many certificates take longer to read than all the rest.
        subject = "" if whole else entry.certificate.full_name.casefold()
        for choice, digits, text in asked:
            if (digits and own.startswith(digits)) or text in subject:
                choice.fingerprints.append(fingerprint)
                if len(choice.entries) < MOST_NAMED:
                    choice.entries.append(entry)
        if whole and all(choice.fingerprints for choice in choices):
            break
    return choices


def fingerprint_of(text: str) -> str:
    """The hexadecimal digits with which a fingerprint may begin; empty if `text` is none."""
    digits = text.replace(":", "").lower()
    plausible = LEAST_DIGITS <= len(digits) <= _DIGITS and _HEXADECIMAL.issuperset(digits)
    return digits if plausible else ""
