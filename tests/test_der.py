"""DER elements are found in certificates, and BER is not taken for DER."""

import pytest

from mitmproxy_aia.der import MAX_ELEMENTS, content, elements, encoded
from tests.lab import der


def test_elements() -> None:
    """Of any length, one after the other."""
    made = [der.encode(der.SET, bytes(size)) for size in (0, 1, 127, 128, 255, 256, 70_000)]
    assert elements(b"".join(made)) == made
    assert [len(content(each)) for each in made] == [0, 1, 127, 128, 255, 256, 70_000]


def test_number_of_elements() -> None:
    """There may be so many, and not one more."""
    made = [der.encode(der.SET)] * MAX_ELEMENTS
    assert elements(b"".join(made)) == made
    with pytest.raises(ValueError, match="has too many elements"):
        elements(b"".join([*made, *made[:1]]))


def test_encoded() -> None:
    """Of any length, as others encode it."""
    for size in (0, 1, 127, 128, 255, 256, 70_000):
        assert encoded(der.SET, bytes(size)) == der.encode(der.SET, bytes(size))


CUT_OFF = ["30", "3001", "30820001"]
NOT_DER = ["3080", "30800000", "308100", "30817f" + "00" * 127, "30820080" + "00" * 128]


@pytest.mark.parametrize("data", CUT_OFF + NOT_DER)
def test_lengths(data: str) -> None:
    """Those that are cut off, that come at the end, or that have more bytes than they take."""
    with pytest.raises(ValueError, match=r"^is (cut off|not DER)$"):
        elements(bytes.fromhex(data))


@pytest.mark.parametrize("tag", ["1f30", "3f10", "bf03", "21", "22", "23", "24", "26", "2c", "36"])
def test_tags(tag: str) -> None:
    """In bytes of their own, and of strings and numbers that are in parts."""
    with pytest.raises(ValueError, match="tag"):
        elements(bytes.fromhex(tag + "03040100"))
