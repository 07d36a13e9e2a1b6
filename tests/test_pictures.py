"""The pictures of the README: made from what the programs show."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts import pictures
from scripts.terminal_svg import picture

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[ElementTree.Element]:
    tree = ElementTree.fromstring(svg)  # noqa: S314 -- our own
    return [*tree.iter(f"{NAMESPACE}text")]


def test_each_word_has_its_place() -> None:
    """Columns, colours and weight as in the terminal; markup is text."""
    shown = "a  <b>\x1b[1;31mred\x1b[0m c\n\x1b[2m  dim\x1b[0m"
    found = texts(picture(shown, "a & b"))
    assert [each.text for each in found] == ["a", "<b>", "red", "c", "dim"]
    columns = [round((float(each.get("x", "0")) - 16) / 8.4) for each in found]
    assert columns == [0, 3, 6, 10, 2]
    assert [each.get("font-weight") for each in found] == [None, None, "bold", None, None]
    assert [each.get("opacity") for each in found] == [None, None, None, None, "0.6"]
    assert found[2].get("fill") == "#ff7b72"
    assert found[0].get("y") != found[4].get("y")
    assert texts(picture("", "nothing")) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all of them, made anew."""
    folder = tmp_path_factory.mktemp("pictures")
    if pictures.main(folder):
        pytest.skip("only an administrator may make networks")
    return folder


def test_page(made: Path) -> None:
    """The page, light and dark, as Chromium shows it; those in docs/ are of the same size."""
    for name in ("page.webp", "page-dark.webp"):
        pair = [(folder / name).read_bytes() for folder in (made, pictures.FOLDER)]
        assert all(picture[8:12] == b"WEBP" for picture in pair)
        assert all(5_000 < len(picture) < 70_000 for picture in pair)


def test_check(made: Path) -> None:
    """An incomplete server, and three, as they are checked in a network of their own; and the
    one in docs/ shows no less."""
    for folder in made, pictures.FOLDER:
        file = folder / "check.svg"
        assert file.stat().st_size < 60_000
        words = " ".join(each.text or "" for each in texts(file.read_text(encoding="utf-8")))
        assert "FORGOTTEN ○ CN=Example Intermediate CA" in words
        assert "at http://ca.example.com/intermediate.der" in words
        assert "3 servers: 1 complete, 1 incomplete, 1 broken" in words
        assert "\x1b" not in words
