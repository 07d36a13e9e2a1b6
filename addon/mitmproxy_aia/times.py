"""Times as text, and as certificates have them."""

from __future__ import annotations

import datetime

from mitmproxy_aia.der import content

_UTC_TIME = 0x17


def iso(time: datetime.datetime) -> str:
    """ISO 8601, in UTC."""
    return time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def in_der(element: bytes) -> datetime.datetime:
    """A UTCTime or a GeneralizedTime, as RFC 5280 section 4.1.2.5 has them. Raises ValueError."""
    text = content(element).decode("ascii")
    if element[0] == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    if len(text) != len("YYYYMMDDhhmmssZ"):
        raise ValueError("is not a time of a certificate")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
