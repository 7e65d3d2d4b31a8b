"""Digests in manifests: equal content has the same digest in every release, and any change gives another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.grid import Grid, Pair, Task
from harness.data.dataset import SHOWN_DIGITS, TaskList, content_digest, iterate_tasks, without_test_outputs
from harness.data.spec import open_dataset


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``rows.jsonl`` with three BARC rows and ``lists.json`` with a list of pairs, in the working folder."""

    def pair(k: int, i: int) -> dict[str, list[list[int]]]:
        return {"input": [[k, (k + i) % 10], [0, i % 10]], "output": [[k]]}

    rows = [{"source": "", "examples": [list(pair(k, i).values()) for k in range(8)]} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "lists.json").write_text(json.dumps({"a": [pair(k, 1) for k in range(8)]}))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("spec", "digest", "content", "last_id"),
    [
        ("arc1/training", "64661dca55451b78", "10ecf882242a9904cef9b5f3ed6bb3ea", "ff805c23"),
        ("arc1/evaluation#n=20#seed=3", "a6886a4aedaa0572", "f6f8bcab026c510f25ac3390b29b9dd8", "fe9372f3"),
        ("arc2/evaluation", "24cd96b4c6c47f73", "b83c89375df7a9ee36e4486fedf798b1", "fc7cae8d"),
        ("toy/border/evaluation#n=40", "15b6f22b28970ffc", "6f74fad9dc656dd0ba4dce5da6b23da5", "border-000039"),
        ("toy/recolour#n=9#seed=5", "148c0cee215c35b5", "cace423f3f5067bee99cd4cfaa3f1e2d", "recolour-000008"),
        ("toy/flip", "24544889c1b66d83", "b3b57aea488fc0b3853e67cdb73232ac", "flip-000399"),
        ("rows.jsonl", "3b7e225aeebf00c7", "be13d0b2f39f48ed75c8fd04ad916aec", "rows-3"),
        ("rows.jsonl#n=2", "1b2e1d3c7ed084e8", "be13d0b2f39f48ed75c8fd04ad916aec", "rows-2"),
        ("barc-7-6-rows.jsonl", "47c0ae638a93eb96", "6769927bd58965ba45c04f355207740c", "barc-6"),
        ("barc-7-10-rows.jsonl#n=2", "241e3e578ca0fc27", "2fd5600cce077f94b44aeb3ea4489f5a", "barc-6"),
        ("lists.json", "fd1271816857ea67", "ec91be1ec8fc27c55e98aaa886032724", "a"),
    ],
)
def test_digests_equal_those_of_earlier_releases(spec: str, digest: str, content: str, last_id: str) -> None:
    """Also the drawn tasks: ``content`` is the digest of the first task in its fixed draw."""
    dataset = open_dataset(spec)
    assert (dataset.digest(), dataset.ids[len(dataset.ids) - 1]) == (digest, last_id)
    assert content_digest(next(iterate_tasks(dataset))) == content


def test_barc_digests_depend_on_the_limit_of_examples_and_the_number_of_tasks() -> None:
    specs = ("rows.jsonl", "barc-7-6-rows.jsonl", "barc-7-7-rows.jsonl", "barc-8-6-rows.jsonl")
    assert len({open_dataset(spec).digest() for spec in specs}) == len(specs)


def test_content_digests_have_a_part_for_the_prompt_and_one_for_the_outputs() -> None:
    grid, other = Grid.from_rows([[1, 2]]), Grid.from_rows([[1], [2]])
    task = Task("a", (Pair(grid, other),), (Pair(grid, grid),))
    prompt, outputs = content_digest(task)[:SHOWN_DIGITS], content_digest(task)[SHOWN_DIGITS:]
    assert content_digest(replace(task, id="b")) == prompt + outputs
    for changed in (replace(task, test=(Pair(grid, other),)), without_test_outputs(task)):
        assert content_digest(changed)[:SHOWN_DIGITS] == prompt
        assert content_digest(changed)[SHOWN_DIGITS:] != outputs
    for changed in (replace(task, train=(Pair(other, grid),)), replace(task, test=(Pair(other, grid),))):
        assert content_digest(changed)[:SHOWN_DIGITS] != prompt
        assert content_digest(changed)[SHOWN_DIGITS:] == outputs
    assert TaskList("x", (task,)).digest() != TaskList("x", (replace(task, id="b"),)).digest()
