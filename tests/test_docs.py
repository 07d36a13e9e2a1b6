"""What README.md and docs/ lead to is there, and no module is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "addon" / "mitmproxy_aia"
LINK = re.compile(r"""\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)|(?:src|srcset)="([^"]+)\"""")


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_links(page: str) -> None:
    """Of those to files, each leads to one; of those into the page itself, each to a heading."""
    file = ROOT / page
    text = file.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = [*LINK.finditer(text)]
    assert len(links) > 10
    for link in links:
        path, anchor, source = link.groups()
        if path or source:
            assert (file.parent / (path or source)).exists(), link[0]
        elif anchor:
            assert anchor in anchors, link[0]


def test_every_module_is_named() -> None:
    """By its file, or by the folder it is in if that is a part of its own."""
    text = ARCHITECTURE.read_text()
    for module in PACKAGE.rglob("*.py"):
        name = module.relative_to(PACKAGE).as_posix()
        folder = name.partition("/")[0]
        if folder in ("page", "inspection", "cli"):
            name = folder
        elif name == "__init__.py":
            continue
        assert f"mitmproxy_aia/{name})" in text, name
