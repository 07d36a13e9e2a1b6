"""What one completion may cost at most."""

from __future__ import annotations

from dataclasses import dataclass

MAX_URL = 4 * 1024
"""Characters. httpx takes 40 ms to read one of 64 KiB, and reads each several times."""


@dataclass(frozen=True)
class Limits:
    """Of these, what is met first ends a completion or a part of it."""

    seconds: float = 10.0
    """All waiting together (`aia_timeout`)."""
    downloads: int = 10
    frozen: str = ""
    """Why nothing may be downloaded at all, if so: `aia_mode=frozen`."""
    nesting: int = 6
    """Downloads that each depend on the certificate the one before has brought."""
    candidates: int = 250
    """Certificates looked at as issuers, because some certificate names them."""
    paths: int = 250
    """Paths judged."""
    steps: int = 5_000
    """Steps taken to enumerate paths."""
    signatures: int = 1_000
    """Signature checks."""
    computing: float = 1.0
    """Seconds of CPU time for all searching together. Honest chains take some milliseconds."""
    slice: float = 0.005
    """Seconds of CPU time spent until the event loop gets its turn."""
