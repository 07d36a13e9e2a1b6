"""Times as text."""

from __future__ import annotations

import datetime


def moment(time: datetime.datetime) -> str:
    """ISO 8601, in UTC."""
    return time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
