"""The figures of ``bench data stats``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.grid import Grid, Pair, Task
from harness.data.dataset import TaskList
from harness.inspection.dataset_statistics import dataset_stats, summarize
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.support.commands import run_bench
from trainers.tiny.tokenizer import build_tokenizer

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], {"mean": 7, "p5": 7, "p50": 7, "p90": 7, "p95": 7, "p99": 7, "p100": 7}),
        (list(range(100, 0, -1)), {"mean": 50.5, "p5": 5, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "p100": 100}),
        ([1, 2, 3], {"mean": 2, "p5": 1, "p50": 2, "p90": 3, "p95": 3, "p99": 3, "p100": 3}),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[int], expected: dict[str, float]) -> None:
    assert summarize(values) == expected


def test_every_figure_of_two_tasks() -> None:
    one, two = Grid.from_rows([[1, 1]]), Grid.from_rows([[2, 0], [0, 0], [0, 0]])
    tasks = (
        Task("same", (Pair(one, one),), (Pair(one, one), Pair(one, one))),
        Task("other", (Pair(one, two), Pair(one, two)), (Pair(one, two),)),
    )
    tokens = PromptTokenizer(build_tokenizer(), load_prompt("compact-v0"), parse_encoder("MinimalGridEncoder()"))
    limit = len(tokens.prompt_ids(tasks[1], 0))  # the longest prompt is within it, but not with its answer
    stats = dataset_stats(TaskList("two", tasks, "here"), tokens, limit, lambda items, n: items)
    assert {name: stats[name] for name in ("spec", "origin", "tasks", "test_outputs", "unknown_outputs")} == {
        "spec": "two", "origin": "here", "tasks": 2, "test_outputs": 3, "unknown_outputs": 0,
    }  # fmt: skip
    assert (stats["same_shape_tasks"], stats["over_max_length"]) == (1, round(1 / 3, 4))
    assert stats["train_pairs"] == summarize([1, 2])
    assert stats["longer_side"] == summarize([2] * 9 + [3] * 3)
    assert stats["cells"] == summarize([2] * 9 + [6] * 3)
    assert stats["colours_per_task"] == summarize([1, 3])
    assert stats["colour_shares"] == {str(c): round(n / 36, 4) for c, n in enumerate([15, 18, 3, 0, 0, 0, 0, 0, 0, 0])}
    assert stats["prompt_tokens"] == summarize([len(tokens.prompt_ids(tasks[i], 0)) for i in (0, 0, 1)])


def test_lengths_by_the_tokenizer_of_the_tiny_base_and_by_a_damaged_one(tmp_path: Path, capsys: Capture) -> None:
    words = ["data", "stats", "toy/cross#n=2", "--tokenizer"]
    status, out, _ = run_bench(capsys, *words, "tiny", "--json", "-")
    assert status == 0
    assert json.loads(out)["prompt_tokens"]["mean"] > 100
    (tmp_path / "tokenizer.json").write_text("{}")
    status, _, errors = run_bench(capsys, *words, tmp_path)
    assert (status, "its tokenizer cannot be loaded" in errors) == (2, True)


def test_a_tiny_base_that_cannot_be_trained_is_refused(tmp_path: Path, capsys: Capture) -> None:
    for words, message in (
        (["--hidden", 100], "give a multiple of the head size 32"),
        (["--hidden", 0], "give a multiple of the head size 32"),
    ):
        status, _, errors = run_bench(capsys, "tiny-base", "-o", tmp_path / "base", *words, "--steps", 1)
        assert status != 0
        assert message in errors
    assert not (tmp_path / "base").exists()
