"""The comparison with other tools in README.md and docs/speed.md has the figures of benchmarks/RESULTS.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.marked_block import END, begin_mark, replace_block
from benchmarks.comparison.__main__ import MODULE
from benchmarks.comparison.table import ROWS, comparison, read_results

ROOT = Path(__file__).resolve().parents[2]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
BEGIN = begin_mark("some.module")


@pytest.mark.parametrize(("page", "is_short"), [("README.md", True), ("docs/speed.md", False)])
def test_the_pages_have_the_figures_of_the_results(page: str, is_short: bool) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    block = comparison(RESULTS, is_short=is_short)
    assert replace_block(text, block, MODULE) == text, f"run python -m {MODULE}"
    assert block.count("\n") == 1 + sum(row.is_short or not is_short for row in ROWS)


def test_another_figure_changes_the_comparison() -> None:
    cells = read_results(RESULTS)["Training", "training", "`SFTTrainer`, defaults"]
    other = comparison(RESULTS.replace(cells[1], "1 token/s"), is_short=True)
    assert "1 token/s" in other
    assert cells[1] not in other


def test_a_missing_row_is_an_error() -> None:
    with pytest.raises(KeyError, match="Training"):
        comparison(RESULTS.replace("## Training", "## Exercise"), is_short=True)


@pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_page_without_its_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must have"):
        replace_block(text, "x", "some.module")
