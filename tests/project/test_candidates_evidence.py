"""The page of the evidence is written from run folders: every adapter, way to sample and rule is on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.evidence.experiment import DFS, DRAWS, RESCORED_RUNS, SAMPLED, Extent, missing_steps, run_folder
from benchmarks.evidence.page import page
from tests.support.runs.rescores import write_rescores
from tests.support.runs.run_folders import edit_manifest, write_run
from tests.support.runs.view_runs import write_view_run

EXTENT = Extent((("cross", (8, 20)),), (), tasks=12, real_tasks=4)
SKILL = {"cross-8": 0.3, "cross-20": 0.7}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write all runs of one family."""
    work = tmp_path_factory.mktemp("evidence")
    (work / "runs").mkdir()
    for draw in DRAWS:
        write = write_view_run if "dfs" in draw.name else write_run
        write(work / "runs", f"cross-{draw.name}", "toy/cross/evaluation#n=12", SKILL, n=draw.views)
        (run_folder(work, "cross", draw) / "results.json").touch()
        if "sample" in draw.name:
            edit_manifest(run_folder(work, "cross", draw), temperature=1.0)
    for draw in RESCORED_RUNS:
        write_rescores(run_folder(work, "cross", draw), views=8)
        (work / "runs" / f"cross-{draw.name}.rescored").touch()
    return work


def test_the_page_has_every_adapter_run_and_rule(work: Path) -> None:
    text = page(work, EXTENT)
    for model in SKILL:
        for draw in DRAWS:
            assert re.search(rf"^\| {model} +\| {draw.name} +\|", text, re.MULTILINE), (model, draw.name)
        assert f"**{model}**" in text
    for draw in RESCORED_RUNS:
        assert f"## Rules on the same candidates: cross, {draw.name}" in text
    for rule in ("poe", "kgmon"):
        for baseline in ("vote", "logprob"):
            assert len(re.findall(rf"^\| vote_[12] +\| {rule} +\| {baseline} +\|", text, re.MULTILINE)) == 4


def test_the_missing_steps_are_those_without_results(work: Path) -> None:
    assert list(missing_steps(work, EXTENT)) == []
    (work / "runs" / f"cross-{DFS.name}.rescored").unlink()
    (run_folder(work, "cross", SAMPLED) / "results.json").unlink()
    assert list(missing_steps(work, EXTENT)) == [("cross", DFS, "rescore"), ("cross", SAMPLED, "run")]
