"""Runs the parts that were asked for."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

from tests.bench.parts import PARTS
from tests.bench.plan import Plan
from tests.bench.report import Finding, Missing


def bench(parts: Sequence[str], plan: Plan, say: Callable[[str], None]) -> list[Finding]:
    """What each of `parts` has found. A program that only one of them needs, and that is not
    there, leaves out that part, and so does a part that fails."""
    findings: list[Finding] = []
    for number, part in enumerate(parts, 1):
        say(f"{number} of {len(parts)}: {part} ...")
        try:
            findings += PARTS[part](plan)
        except (FileNotFoundError, RuntimeError) as error:
            # What the others have found took minutes, and is as good without this.
            findings.append(Missing(part, str(error).partition("\n")[0]))
    return findings


def machine() -> str:
    """What it was measured on, in a few words."""
    from mitmproxy.version import VERSION
    from OpenSSL import SSL

    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
    return (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"mitmproxy {VERSION}, {openssl}"
    )
