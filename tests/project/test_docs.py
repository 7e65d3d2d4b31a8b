"""The pages of documentation: every path and link in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "ARCHITECTURE.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
_PATH = re.compile(r"`((?:harness|trainers|serve|reports|tests|benchmarks|tools|examples|docs)/[\w./-]*)`")
_MODULE = re.compile(r"(?:`|-m )((?:harness|trainers|serve|reports|benchmarks)(?:\.[a-z]\w+)+)")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = (re.sub(r"[^\w -]", "", heading.lower()) for heading in _HEADING.findall(page.read_text()))
    return {heading.replace(" ", "-") for heading in headings}


def _exists(name: str) -> bool:
    """Return whether a dotted name is a module or package, or is mentioned in the one before its last dot."""
    path = ROOT.joinpath(*name.split("."))
    parents = (path.parent.with_suffix(".py"), path.parent / "__init__.py")
    return (
        path.is_dir()
        or path.with_suffix(".py").is_file()
        or any(parent.is_file() and re.search(rf"\b{path.name}\b", parent.read_text()) for parent in parents)
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_a_page_exists(page: str) -> None:
    """A page names files, packages and modules of the checkout only."""
    text = (ROOT / page).read_text()
    missing = [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    missing += [name for name in _MODULE.findall(text) if not _exists(name)]
    # A benchmark for GPUs writes its page there; it was never run on one.
    assert [path for path in missing if path != "benchmarks/gpu.md"] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_in_a_page_exists(page: str) -> None:
    """A link names a file of the checkout, and its anchor a heading in that file."""
    for target, anchor in _LINK.findall((ROOT / page).read_text()):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), f"{target}#{anchor}"
