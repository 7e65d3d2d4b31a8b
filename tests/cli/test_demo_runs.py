"""The runs of ``bench demo``: which families and tasks they ask, and the commands that make them."""

from __future__ import annotations

from pathlib import Path

from harness.cli.workflows.demo import ADAPTERS
from harness.cli.workflows.demo_runs import KNOWN_FAMILIES, UNSEEN_FAMILY, Run, expected_run, list_runs, run_words
from harness.cli.workflows.ttt.job import TttJob, TttOptions
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.sampling.options.run_options import RunOptions
from trainers.recipe.ttt_recipe import load_ttt_recipe
from trainers.tiny.train import TinyBaseConfig, shipped_path

MODELS = [shipped_path().name, "one", "two"]
SITE = ["--server", "URL"]


def test_nothing_in_the_demo_was_trained_on_the_unseen_family() -> None:
    assert UNSEEN_FAMILY not in TinyBaseConfig().families
    assert UNSEEN_FAMILY not in KNOWN_FAMILIES
    assert all(UNSEEN_FAMILY not in adapter.families for adapter in ADAPTERS)


def test_the_same_tasks_are_asked_before_and_after(tmp_path: Path) -> None:
    runs = {run.folder.name: run for run in list_runs(tmp_path, 40)}
    for name, count in ((UNSEEN_FAMILY, 8), ("arc1", 3)):
        before, after = runs[f"{name}-before"], runs[f"{name}-ttt"]
        assert (before.spec, before.max_tokens, before.recipe) == (after.spec, after.max_tokens, None)
        assert len(open_dataset(after.spec).ids) == count
    small = {task.id for task in iterate_tasks(open_dataset(runs["arc1"].spec))}
    assert set(open_dataset(runs["arc1-ttt"].spec).ids) < small
    assert [run.folder.name for run in list_runs(tmp_path, 40)][-1] == "arc1-ttt"


def test_a_run_expects_what_bench_ttt_records(tmp_path: Path) -> None:
    run = next(run for run in list_runs(tmp_path, 8) if run.recipe is not None)
    assert run.recipe is not None
    sampling = RunOptions(servers=(), models=("ttt",), dataset=run.spec, n=8, out=tmp_path / "run")
    job = TttJob.open(TttOptions(load_ttt_recipe(run.recipe), sampling))
    assert expected_run(run, []).ttt == job.config


def test_the_commands_name_the_models_and_the_recipe(tmp_path: Path) -> None:
    plain = run_words(Run(tmp_path, "SPEC"), MODELS, SITE)
    assert plain[:9] == ["run", *SITE, "--model", MODELS[0], "--model", "one", "--model", "two"]
    base = run_words(Run(tmp_path, "SPEC", base_only=True, max_tokens=9), MODELS, SITE)
    assert base.count("--model") == 1
    assert base[base.index("--max-tokens") + 1] == "9"
    trained = run_words(Run(tmp_path, "SPEC", recipe=tmp_path / "r.yaml"), MODELS, SITE)
    assert trained[:4] == ["ttt", str(tmp_path / "r.yaml"), *SITE]
    assert "--prompt" not in trained
