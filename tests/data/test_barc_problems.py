"""BARC's own ``synthetic_problems/*.json``: one problem per file, with its pairs, its program and annotations."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import DataError
from harness.core.random_stream import Stream
from harness.data.spec import open_dataset
from tests.data.json_files import PAIRS, write

CODE = "from common import *\n\n# concepts:\n# rotating objects\n\ndef main(input_grid):\n    return input_grid\n"


def problem(pairs: list[Any], name: str = "00339623fade9c57") -> dict[str, Any]:
    """Return a problem as BARC publishes it."""
    return {
        "uid": name,
        "annotations": {"example": "good", "code": "bad"},
        "metadata": {"source_file": "self_instruct_remix0_generated_problems.jsonl"},
        "examples": pairs,
        "code": CODE,
    }


def test_a_problem_is_a_task_drawn_from_its_pairs(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "00339623fade9c57.json", problem(PAIRS[:4])))
    assert list(dataset.ids) == ["00339623fade9c57"]
    (entry,) = dataset.pairs_by_id()
    assert [pair.input.to_rows() for pair in entry[1]] == [pair["input"] for pair in PAIRS[:4]]
    fixed = dataset.task(0)
    assert fixed == dataset.task(0)
    assert (len(fixed.train), len(fixed.test)) == (3, 1)
    assert {dataset.task(0, Stream("draw", k)).test for k in range(20)} != {fixed.test}


def test_the_folder_holds_one_problem_per_file_and_other_files_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic_problems"
    for k in range(3):
        write(folder / f"p{k}.json", problem(PAIRS[k : k + 5], f"p{k}"))
        (folder / f"p{k}.py").write_text(CODE)
        (folder / f"p{k}.png").write_bytes(b"\x89PNG")
    dataset = open_dataset(str(folder))
    assert list(dataset.ids) == ["p0", "p1", "p2"]
    assert len(open_dataset(f"{folder}#n=2").ids) == 2


def test_problems_with_too_few_pairs_are_left_out_of_a_folder_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "synthetic_problems"
    write(folder / "few.json", problem(PAIRS[:3], "few"))
    write(folder / "enough.json", problem(PAIRS[:4], "enough"))
    with caplog.at_level(logging.WARNING):
        assert list(open_dataset(str(folder)).ids) == ["enough"]
    expected = (
        "few.json, task few, field 'examples': 3 pairs; a task drawn from a list of pairs needs 4; the problem is"
    )
    assert expected in caplog.text
    for spec in (str(folder), str(folder / "few.json")):
        with pytest.raises(DataError, match=r"few\.json, task few, field 'examples': 3 pairs"):
            open_dataset(spec, strict=True)
    (folder / "enough.json").unlink()
    with pytest.raises(DataError, match=r"synthetic_problems: none of its files holds a usable task"):
        open_dataset(str(folder))


def test_pairs_over_30x30_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    big = {"input": [[0] * 31] * 31, "output": [[1]]}
    path = write(tmp_path / "p.json", problem([*PAIRS[:4], big]))
    with caplog.at_level(logging.WARNING):
        assert len(next(iter(open_dataset(path).pairs_by_id()))[1]) == 4
    assert "1 pairs with a side over 30 are left out" in caplog.text
    with pytest.raises(DataError, match="pair 4, field 'input': 31x31 is over 30x30"):
        open_dataset(path, strict=True)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([[[[1]], [[2]]]] * 4, "task p, field 'examples', pair 0: expected an object with 'input' and 'output'"),
        ([*PAIRS[:4], {"input": [[1]]}], "task p, field 'examples', pair 4, field 'output': missing"),
        ([*PAIRS[:4], {"input": [[11]], "output": [[1]]}], "pair 4, field 'input', row 0, column 0: expected a colour"),
        ([], "task p, field 'examples': 0 pairs"),
    ],
)
def test_an_invalid_problem_is_named_with_file_and_field(tmp_path: Path, pairs: list[Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(write(tmp_path / "p.json", problem(pairs)))
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "p.json"))


def test_a_file_of_pairs_named_examples_is_still_a_list_of_pairs(tmp_path: Path) -> None:
    assert list(open_dataset(write(tmp_path / "p.json", {"examples": PAIRS[:5]})).ids) == ["examples"]
