"""The pages of documentation: every path, link, command and option in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from harness.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "benchmarks/HISTORY.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")),
]
_PATH = re.compile(r"`((?:harness|trainers|serve|reports|tests|benchmarks|tools|examples|docs)/[\w./-]*)`")
_MODULE = re.compile(r"(?:`|-m )((?:harness|trainers|serve|reports|benchmarks)(?:\.[a-z]\w+)+)")
_TEST = re.compile(r"`(test_(?!index`)\w+)`")
"""A test module; `test_index` is a column of predictions."""
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
_COMMAND = re.compile(r"(?:^(?:[$#] +)?|`)bench ((?:[^`\n\\]|\\\n)+)", re.MULTILINE)
_ASIDE = re.compile(r"\s#.*|\$\([^)]*\)|\s--\s.*")
"""A comment, a command in the command, or options of vLLM."""
_OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")
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
    missing += [name for name in _TEST.findall(text) if not list(ROOT.glob(f"tests/**/{name}.py"))]
    # A benchmark for GPUs writes its page there; it was never run on one.
    assert [path for path in missing if path != "benchmarks/gpu.md"] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_in_a_page_exists(page: str) -> None:
    """A link names a file of the checkout, and its anchor a heading in that file."""
    for target, anchor in _LINK.findall((ROOT / page).read_text()):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, *sorted(f"examples/{path.name}" for path in (ROOT / "examples").iterdir())])
def test_every_command_in_a_page_exists(page: str) -> None:
    """A command line of a page names a command, and options that the command has."""
    for line in _COMMAND.findall((ROOT / page).read_text()):
        words = _ASIDE.sub("", line).split()
        command: click.Command | None = cli
        while words and re.match("[a-z]", words[0]) and isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None, line
        if not isinstance(command, click.Group):
            options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            used = {name.replace("_", "-") for word in words for name in _OPTION.findall(word)}
            assert used <= options, line
