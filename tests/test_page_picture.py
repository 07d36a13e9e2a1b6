"""The picture of the page in the README."""

from pathlib import Path

from scripts.page_picture import page


def test_picture_of_the_page(tmp_path: Path) -> None:
    """It is made from the real thing, light and dark, and is small."""
    files = list(page(tmp_path))
    assert [file.name for file in files] == ["page.webp", "page-dark.webp"]
    assert all(file.read_bytes()[8:12] == b"WEBP" for file in files)
    assert all(5_000 < file.stat().st_size < 70_000 for file in files)
