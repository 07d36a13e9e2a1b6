"""Times as text, and as certificates have them."""

import datetime

import pytest

from mitmproxy_aia.times import in_der, iso
from tests.lab import der
from tests.lab.rewriting import GENERALIZED_TIME, UTC_TIME


@pytest.mark.parametrize(
    ("tag", "text", "said"),
    [
        (UTC_TIME, "491231235959Z", "2049-12-31T23:59:59Z"),
        (UTC_TIME, "500101000000Z", "1950-01-01T00:00:00Z"),
        (UTC_TIME, "691231235959Z", "1969-12-31T23:59:59Z"),
        (GENERALIZED_TIME, "20500101000000Z", "2050-01-01T00:00:00Z"),
        (GENERALIZED_TIME, "99991231235959Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_in_der(tag: int, text: str, said: str) -> None:
    """With two digits for the year it is between 1950 and 2049."""
    assert iso(in_der(der.encode(tag, text.encode()))) == said


@pytest.mark.parametrize("text", ["", "4912312359Z", "491231235959+0100", "4912312359", "\xff"])
def test_no_time(text: str) -> None:
    """Nothing but what RFC 5280 allows."""
    with pytest.raises(ValueError, match=r"."):
        in_der(der.encode(UTC_TIME, text.encode("latin-1")))


def test_moment_of_another_zone() -> None:
    """It is the same moment."""
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert iso(datetime.datetime(2026, 1, 1, 1, tzinfo=zone)) == "2025-12-31T23:00:00Z"
