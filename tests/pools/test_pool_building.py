"""Pools of runs, models, files and pools: which members, views and tasks they have, and what members score."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import ArcBenchError, ConfigError, DataError, RunError
from harness.core.grid import Grid
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.pools.pool_building import build_pool
from harness.pools.pool_scores import compare_with_members, member_scores
from harness.predictions.pooled_outputs import MemberPredictions
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import StopConfig
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.run_scores import score_by_vote, score_saved
from harness.voting.selection_rules import RULES
from tests.conftest import ROOT
from tests.support.runs.pools import make_pool, write_submission
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=12"
SAVED = ROOT / "tests" / "fixtures" / "saved"
SKILL = {"good": 0.5, "bad": 0.1}


@pytest.fixture
def drawn(make_run: MakeRun) -> Path:
    return make_run("drawn", SPEC, SKILL, n=8)


@pytest.fixture
def enumerated(tmp_path: Path) -> Path:
    return write_view_run(tmp_path, "enumerated", SPEC, SKILL, n=8)


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    return write_submission(tmp_path / "submission.json", SPEC, right=5)


def opened(pool: Path) -> SavedPredictions:
    saved = open_predictions(pool)
    assert saved.pool is not None
    return saved


def members(pool: Path) -> dict[str, MemberPredictions]:
    saved = opened(pool)
    assert saved.pool is not None
    return {member.record.name: member for member in saved.pool.members}


def grids_of(saved: SavedPredictions) -> dict[tuple[str, str, int], set[Grid]]:
    """Return the candidates by model, task and test output."""
    return {
        (model.model, task, index): set(output.votes_by_grid)
        for model in saved.predictions
        for task, outputs in model.outputs.items()
        for index, output in enumerate(outputs)
    }


def test_every_kind_of_member(tmp_path: Path, drawn: Path, enumerated: Path, submission: Path) -> None:
    pool = make_pool(tmp_path / "pool", drawn, f"{enumerated}@good", submission)
    records = {name: member.record for name, member in members(pool).items()}
    assert set(records) == {"drawn@good", "drawn@bad", "enumerated@good", "submission.json"}
    assert {(r.form, r.seed, r.n, r.views, r.names_views) for name, r in records.items() if "@" in name} == {
        ("run", 0, 8, 8, True)
    }
    file = records["submission.json"]
    assert (file.form, file.seed, file.n, file.views, file.names_views) == ("attempts", None, 2, 2, False)
    assert file.view_space == f"file {file.digest}"
    assert {records[name].view_space for name in records if "@" in name} == {"seed 0"}
    saved = opened(pool)
    assert (saved.form, saved.seed, saved.n) == ("pool", 0, 8 + 2)
    expected: dict[tuple[str, int], set[Grid]] = {}
    for source in (open_predictions(drawn), open_predictions(enumerated), open_predictions(submission, SPEC)):
        for (model, task, index), grids in grids_of(source).items():
            if (source.folder, model) != (RunFolder(enumerated), "bad"):
                expected.setdefault((task, index), set()).update(grids)
    assert {key[1:]: grids for key, grids in grids_of(saved).items()} == expected


def test_views_of_runs(tmp_path: Path, make_run: MakeRun) -> None:
    seeds = {"a": 0, "b": 0, "c": 3, "d": 9, "e": 9, "f": 5}
    runs = {name: make_run(name, SPEC, {name: 0.5}, n=8, seed=seed) for name, seed in seeds.items()}
    edit_manifest(runs["d"], samples_per_view=3)
    for name in ("e", "f"):
        edit_manifest(runs[name], augment=False)
    pool = make_pool(tmp_path / "pool", *runs.values())
    spaces = {name[0]: (m.record.view_space, m.record.views) for name, m in members(pool).items()}
    assert spaces == {
        "a": ("seed 0", 8), "b": ("seed 0", 8), "c": ("seed 3", 8), "d": ("seed 9", 3),
        "e": ("unaugmented", 1), "f": ("unaugmented", 1),
    }  # fmt: skip
    assert opened(pool).n == 8 + 8 + 3 + 1
    assert opened(pool).seed == 0
    for name, member in members(pool).items():
        views = {vote.view_index for votes in member.votes.values() for vote in votes}
        assert max(views) < spaces[name[0]][1]
        assert all(v.view_index == v.sample // 3 for vs in member.votes.values() for v in vs) == (name[0] == "d")


@pytest.mark.parametrize("write", ["drawn", "enumerated", "repeated"])
def test_members_score_as_they_do_alone(
    tmp_path: Path, write: str, drawn: Path, enumerated: Path, submission: Path
) -> None:
    run = enumerated if write == "enumerated" else drawn
    if write == "repeated":
        edit_manifest(run, samples_per_view=3)
    alone = {f"{run.name}@{scores.model}": scores for scores in score_saved(open_predictions(run))}
    (alone["submission.json"],) = score_saved(open_predictions(submission, SPEC))
    saved = opened(make_pool(tmp_path / "pool", run, submission))
    assert saved.pool is not None
    for scores in member_scores(saved.pool):
        for metric in ("pass_n", "vote_1", "vote_2"):
            expected = alone[scores.model].tasks
            assert scores.tasks.values_of(metric).tolist() == expected.values_of(metric).tolist()
            assert scores.tasks.per_output[metric] == expected.per_output[metric]


def test_the_oracle_has_what_any_member_has(tmp_path: Path, drawn: Path, enumerated: Path, submission: Path) -> None:
    saved = opened(make_pool(tmp_path / "pool", drawn, enumerated, submission))
    assert saved.pool is not None
    (pooled,) = score_by_vote(saved)
    alone = [scores.tasks.values_of("pass_n") for scores in member_scores(saved.pool)]
    assert pooled.tasks.values_of("pass_n").tolist() == [max(values) for values in zip(*alone, strict=True)]


def test_chosen_attempts_are_those_of_the_rules(tmp_path: Path, drawn: Path, enumerated: Path) -> None:
    saved = opened(make_pool(tmp_path / "pool", drawn, enumerated))
    result = compare_with_members(saved, resamples=100).result
    assert list(result.chosen) == ["vote", "logprob", "first", "marc", "count-nll"]
    assert set(result.left_out) == {"poe", "kgmon"}
    truths = {task.id: task.test[0].output for task in saved.tasks}
    for name, chosen in result.chosen.items():
        for k, metric in ((1, chosen.vote_1), (2, chosen.vote_2)):
            shares = []
            for task, (output,) in saved.predictions[0].outputs.items():
                ranking = RULES[name].rank(output.votes())
                place = [entry.tie for entry in ranking if entry.grid == truths[task]]
                ahead = sum(entry.tie < place[0] for entry in ranking) if place else k
                tied = sum(entry.tie == place[0] for entry in ranking) if place else 1
                shares.append(min(max(k - ahead, 0) / tied, 1))
            assert metric.value == pytest.approx(sum(shares) / len(shares))
    best = max(result.members.values(), key=lambda member: member.vote_2.value)
    assert result.members[result.best_member].vote_2 == best.vote_2
    for row in result.differences:
        expected = result.chosen[row.rule].vote_2.value - result.members[row.member].vote_2.value
        assert row.difference == pytest.approx(expected)
    pairs = [(row.rule, row.member) for row in result.differences]
    others = [name for name in result.members if name != result.best_member]
    assert pairs == [(rule, result.best_member) for rule in result.chosen] + [("vote", name) for name in others]


def test_equal_members_are_one_in_any_order(tmp_path: Path, drawn: Path, enumerated: Path, submission: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    lines = (drawn / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    copy.write_bytes(b"".join(reversed(lines)))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(submission.read_text()), indent=1))
    again = shutil.copytree(drawn, tmp_path / "again")
    names = [drawn, copy, enumerated, submission, other, again]
    once = build_pool([str(drawn), str(enumerated), str(submission)])
    first = build_pool([str(name) for name in names])
    for order in itertools.islice(itertools.permutations(names), 0, 720, 300):
        new = build_pool([str(name) for name in order])
        assert len(new.notes) == 2 + 1 + 2
        assert new.manifest.members == first.manifest.members
        assert list(new.candidates()) == list(once.candidates())


def test_names_are_unique(tmp_path: Path, make_run: MakeRun) -> None:
    (tmp_path / "x").mkdir()
    first, second = make_run("run", SPEC, {"m": 0.9}), make_run("x/run", SPEC, {"m": 0.1}, seed=2)
    pool = make_pool(tmp_path / "pool", first, second)
    assert set(members(pool)) == {f"{first}@m", f"{second}@m"}


def test_pools_of_pools(tmp_path: Path, drawn: Path, enumerated: Path, submission: Path) -> None:
    inner = make_pool(tmp_path / "inner", drawn, submission)
    outer = make_pool(tmp_path / "outer", inner, f"{enumerated}@good", f"{drawn}@good")
    flat = make_pool(tmp_path / "flat", drawn, submission, f"{enumerated}@good")
    assert (outer / "candidates.jsonl").read_bytes() == (flat / "candidates.jsonl").read_bytes()
    assert set(members(make_pool(tmp_path / "one", f"{inner}@drawn@good"))) == {"drawn@good"}


def test_runs_on_parts_of_a_dataset(tmp_path: Path, make_run: MakeRun) -> None:
    part, whole = make_run("part", "toy/cross/evaluation#n=5", {"m": 0.9}), make_run("whole", SPEC, {"m": 0.5}, seed=1)
    pool = make_pool(tmp_path / "pool", part, whole)
    assert len(opened(pool).tasks) == 12
    assert opened(pool).warnings == (
        "part@m: of 12 tasks 7 (cross-000005, cross-000006, cross-000007, cross-000008, cross-000009, …) have no "
        "prediction and count as wrong",
    )
    other = make_run("other", "toy/copy/evaluation#n=5", {"m": 0.9})
    with pytest.raises(ConfigError, match=r"different datasets .* none of which has the tasks of all"):
        build_pool([str(part), str(other)])


def same_ids(path: Path) -> str:
    """Write a dataset that has other tasks under the ids of SPEC."""
    tasks = dict(zip(open_dataset(SPEC).ids, iterate_tasks(open_dataset("toy/copy/evaluation#n=12")), strict=True))
    content = {
        name: {
            part: [{"input": p.input.to_rows(), "output": p.output and p.output.to_rows()} for p in pairs]
            for part, pairs in (("train", task.train), ("test", task.test))
        }
        for name, task in tasks.items()
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("names", "dataset", "kind", "message"),
    [
        (["submission.json"], None, ConfigError, "files do not say which tasks they answer; name them with --dataset"),
        (["gone"], SPEC, RunError, "gone: there is no such run, pool or file"),
        (["drawn@none"], None, RunError, "has no model 'none'; it has: good, bad"),
        (["drawn"], "other", DataError, r"was asked other tasks than .* under the ids 12 \(cross-000000"),
        (["drawn"], "toy/cross/evaluation#n=5", DataError, "task cross-000005, test 0, which the dataset lacks"),
        (["submission.json", "broken.json"], SPEC, DataError, "broken.json, line 1"),
    ],
)
def test_refusals(
    tmp_path: Path,
    drawn: Path,
    submission: Path,
    names: list[str],
    dataset: str | None,
    kind: type[ArcBenchError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken.json").write_text('{"cross-000000": [{"attempt_1": 1}')
    monkeypatch.chdir(tmp_path)
    spec = same_ids(tmp_path / "other.json") if dataset == "other" else dataset
    with pytest.raises(kind, match=message):
        build_pool(names, spec)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda run: edit_manifest(run, finished=None), "is unfinished; what was not sampled counts as missing"),
        (lambda run: edit_manifest(run, stop=StopConfig(rule="decided", rounds=[4, 8])), "stopped early"),
    ],
)
def test_incomplete_runs_are_said(tmp_path: Path, drawn: Path, change: Callable[[Path], None], warning: str) -> None:
    edit_manifest(drawn, predictions_sha256=RunFolder(drawn).predictions_sha256())
    change(drawn)
    saved = opened(make_pool(tmp_path / "pool", f"{drawn}@good"))
    assert [warning in text for text in saved.warnings] == [True]


@pytest.mark.parametrize(
    "name", ["arc24.json", "arc24_task_results.json", "arcprize", "predictions.jsonl", "submission.json"]
)
def test_files_of_every_form_are_members(tmp_path: Path, name: str) -> None:
    tasks = str(SAVED / "tasks.json")
    alone = score_saved(open_predictions(SAVED / name, tasks))
    saved = opened(make_pool(tmp_path / "pool", SAVED / name, dataset=tasks))
    assert saved.pool is not None
    scored = sorted(member_scores(saved.pool), key=lambda scores: scores.model)
    assert [scores.model for scores in scored] == [f"{name}@{s.model}" if s.model != "-" else name for s in alone]
    for scores, expected in zip(scored, alone, strict=True):
        for metric in ("pass_n", "vote_1", "vote_2"):
            assert scores.tasks.values_of(metric).tolist() == expected.tasks.values_of(metric).tolist()
    assert saved.n == sum(member.record.views for member in saved.pool.members)


def test_what_is_no_grid_in_a_file_is_told(tmp_path: Path) -> None:
    ids = open_dataset(SPEC).ids
    wrong: list[list[list[int]]] = [[[1] * 31] * 31, [[1, 2], [3]], [[11]]]
    content = {task: [{"attempt_1": grid, "attempt_2": [[1]]}] for task, grid in zip(ids, wrong, strict=False)}
    (tmp_path / "s.json").write_text(json.dumps(content))
    (member,) = build_pool([str(tmp_path / "s.json")], SPEC).manifest.members
    line = "3 of its predictions are no grids and are not in the pool (bad_shape 2, bad_value 1)"
    assert line in member.warnings
    write_submission(tmp_path / "right.json", SPEC, right=2)
    (member,) = build_pool([str(tmp_path / "right.json")], SPEC).manifest.members
    assert member.warnings == []
