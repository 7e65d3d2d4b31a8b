"""``bench pool``, and the commands that read pools: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.candidates.pool_results import PoolResult, ResultsOfPool
from harness.core.grid import Grid
from harness.predictions.rescore_source import open_rescore_source
from harness.runs.folder import RunFolder
from harness.scoring.prediction_loader import open_predictions
from harness.voting.selection_rules import RULES
from tests.conftest import ROOT
from tests.support.commands import run_bench
from tests.support.runs.pools import make_pool, write_submission
from tests.support.runs.rescores import made_up_logprob, write_rescores
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=24"
GOLDEN = ROOT / "tests" / "fixtures" / "pool.txt"
VIEWS = 3


@pytest.fixture
def here(tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two drawn runs, an enumerated one, and a submission."""
    make_run("drawn", SPEC, {"good": 0.4, "bad": 0.1}, n=8)
    make_run("seeded", SPEC, {"good": 0.3}, n=8, seed=5)
    write_view_run(tmp_path, "enumerated", SPEC, {"good": 0.4}, n=8)
    write_submission(tmp_path / "submission.json", SPEC, right=9)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    status, out, err = run_bench(capsys, *words)
    assert status == 0, err
    return out, err


def test_the_table(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    names = ("drawn", "seeded", "enumerated", "submission.json", "drawn@good")
    out, err = bench(capsys, "pool", *names, "-o", "pool", "--json", "table.json")
    assert out == GOLDEN.read_text()
    assert "warning: drawn (good) has the predictions of drawn@good: one member\n" in err
    assert "pool: " in err
    assert " candidates of 5 members\n" in err
    saved = PoolResult.model_validate_json((here / "table.json").read_bytes())
    for name, member in saved.members.items():
        assert f"member: {name} " in out
        assert f" {100 * member.vote_2.value:.1f} %" in out
    scored, _ = bench(capsys, "score", "pool", "--json", "-")
    results = ResultsOfPool.model_validate_json(scored)
    assert results.pool == saved
    assert results.rules is None
    (model,) = results.models.items()
    assert (model[0], model[1].members, model[1].predictions) == ("pool", 5, 24 * (8 + 8 + 2))
    assert list(model[1].metrics) == ["pass_n", "vote_1", "vote_2", "unanswered"]
    assert model[1].metrics["pass_n"] == saved.oracle
    assert model[1].metrics["vote_2"] == saved.chosen["vote"].vote_2
    printed, _ = bench(capsys, "score", "pool")
    assert printed.startswith(out.rstrip("\n"))
    assert "N = 18 views a test output" in printed
    assert not (here / "pool" / "results.json").exists()


def test_the_rows_of_members_are_those_of_bench_score(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    out, _ = bench(capsys, "pool", "drawn", "enumerated", "-o", "pool", "--json", "-")
    pool = PoolResult.model_validate_json(out)
    for run in ("drawn", "enumerated"):
        alone = json.loads(bench(capsys, "score", run, "--json", "-")[0])["models"]
        for name, model in alone.items():
            member = pool.members[f"{run}@{name}"]
            for metric in ("pass_n", "vote_1", "vote_2"):
                assert getattr(member, metric).model_dump() == model["metrics"][metric]


def test_named_rules_only_are_compared(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    make_pool(here / "pool", "drawn", "enumerated")
    everything = ResultsOfPool.model_validate_json(bench(capsys, "score", "pool", "--json", "-")[0]).pool
    named = ResultsOfPool.model_validate_json(bench(capsys, "score", "pool", "--rules", "marc", "--json", "-")[0])
    assert list(named.pool.chosen) == ["vote", "marc"]
    assert len(named.pool.differences) == 2 + 2
    assert list((named.rules or {})["pool"]) == ["vote", "marc"]
    assert named.pool.chosen["marc"] == everything.chosen["marc"]
    by_marc = ResultsOfPool.model_validate_json(bench(capsys, "score", "pool", "--rule", "marc", "--json", "-")[0])
    assert by_marc.pool.headline == "marc"
    assert by_marc.models["pool"].metrics["vote_2"] == everything.chosen["marc"].vote_2
    assert [row.rule for row in by_marc.pool.differences].count("marc") == 3
    status, _, err = run_bench(capsys, "score", "pool", "--rules", "poe")
    assert (status, "rule poe cannot be applied: the candidates were not rescored" in err) == (2, True)


def brute_force_attempts(pool: Path, rule: str, scorer: str) -> dict[str, list[Grid]]:
    """Return the two best candidates of each task by made-up rescores."""
    attempts = {}
    for task, (output,) in open_predictions(pool).predictions[0].outputs.items():
        keys = {}
        for grid, votes in output.votes_by_grid.items():
            total = math.fsum(made_up_logprob(scorer, task, 0, grid, view) for view in range(VIEWS))
            keys[grid] = total if rule == "poe" else len({vote.view_index for vote in votes}) + total / VIEWS
        attempts[task] = sorted(keys, key=lambda grid: -keys[grid])[:2]
    return attempts


@pytest.mark.parametrize("rule", ["poe", "kgmon"])
def test_a_rescored_pool(capsys: pytest.CaptureFixture[str], here: Path, rule: str) -> None:
    pool = make_pool(here / "pool", "drawn", "enumerated", "submission.json")
    write_rescores(pool, "judge", VIEWS)
    bench(capsys, "submit", "pool", "--rule", rule, "-o", "out.json")
    content = json.loads((here / "out.json").read_text())
    for task, grids in brute_force_attempts(pool, rule, "judge").items():
        chosen = [content[task][0][f"attempt_{k}"] for k in (1, 2)]
        assert chosen[: len(grids)] == [grid.to_rows() for grid in grids]
    out, _ = bench(capsys, "score", "pool", "--rule", rule, "--scorer", "judge")
    assert f"| chosen by {rule} " in out
    assert "Rules left out:\n\n- logprob: " in out
    assert "- kgmon" not in out


def test_what_is_rescored_of_a_pool(here: Path) -> None:
    edit_manifest(here / "seeded", chat_template_kwargs={"thinking": False})
    source = open_rescore_source(make_pool(here / "pool", "drawn", "seeded", "submission.json"))
    saved = open_predictions(here / "pool")
    assert (source.folder, source.seed, source.dataset) == (here / "pool", 0, SPEC)
    assert list(source.candidates) == ["pool"]
    for task, (output,) in saved.predictions[0].outputs.items():
        ranked = [entry.grid for entry in RULES["vote"].rank(output.votes())]
        assert list(source.candidates["pool"][task, 0]) == ranked
    assert [model.name for model in source.models] == ["bad"]
    assert source.warnings == (
        "the pool's runs prompted good in different ways: as a scorer it has the settings of its server",
    )
    assert source.chat_template_kwargs == {}
    (again,) = open_rescore_source(make_pool(here / "one", "seeded")).models
    assert again.chat_template_kwargs == {"thinking": False}


def test_reports_of_pools(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    make_pool(here / "pool", "drawn@good", "enumerated")
    bench(capsys, "report", "pool", "-o", "pool.md", "--html")
    page = (here / "pool.md").read_text()
    table, _ = bench(capsys, "score", "pool")
    assert page.startswith(f"# arc-bench report\n\n## Pool pool: {SPEC}\n\n{table[: table.index('Rules left out')]}")
    assert "| drawn@good " in page
    assert "Pool pool" in (here / "pool.html").read_text()
    bench(capsys, "report", "drawn", "pool", "-o", "both.md")
    both = (here / "both.md").read_text()
    assert f"## {SPEC}" in both
    assert page[page.index("## Pool") :].rstrip() in both
    status, _, err = run_bench(capsys, "report", "pool", "-o", "x.md", "--baseline", "good")
    assert (status, err) == (2, "error: --baseline needs a run beside the pools\n")


def test_tasks_without_outputs_are_pooled_without_a_table(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    solved = {"train": [{"input": [[1]], "output": [[2]]}] * 2, "test": [{"input": [[3]]}]}
    (here / "tasks.json").write_text(json.dumps({"a": solved, "b": solved}))
    (here / "s.json").write_text(json.dumps({"a": [{"attempt_1": [[4]]}]}))
    out, err = bench(capsys, "pool", "s.json", "--dataset", "tasks.json", "-o", "pool")
    assert out == ""
    assert "warning: no table: of 2 tasks 2 (a, b) have no output to score against" in err
    bench(capsys, "submit", "pool", "-o", "out.json")
    assert json.loads((here / "out.json").read_text())["a"] == [{"attempt_1": [[4]], "attempt_2": [[4]]}]


@pytest.mark.parametrize(
    ("words", "expected", "message"),
    [
        (["pool", "-o", "new"], 2, "Missing argument 'RUN[@MODEL]|FILE …'"),
        (["pool", "drawn"], 2, "Missing option '-o'"),
        (["pool", "drawn", "-o", "drawn"], 1, "drawn exists and is not empty; remove it, or choose another -o"),
        (["pool", "drawn", "-o", "submission.json"], 1, "submission.json is a file; -o must name a folder"),
        (["pool", "gone", "-o", "new"], 1, "gone: there is no such run, pool or file"),
        (["pool", "submission.json", "-o", "new"], 2, "name them with --dataset"),
        (["pool", "drawn", "-o", "new", "--dataset", "toy/copy/evaluation#n=24"], 1, "which the dataset lacks"),
        (["pool", "drawn", "-o", "new", "--rules", "best"], 2, "there is no selection rule 'best'"),
        (["pool", "drawn", "-o", "new", "--rules", "marc,poe"], 2, "--rules: poe cannot be applied to a new pool"),
        (["score", "made", "-n", "4"], 2, "a pool knows how many views were requested; leave out -n"),
        (["score", "made", "--scorer", "judge"], 2, "--scorer judge"),
        (["score", "drawn", "--format", "pool"], 1, "drawn is a run, not a pool"),
        (["score", "made", "--format", "run"], 1, "made is a pool, not a run (bench score, report, submit and rescore"),
        (["compare", "made"], 1, "made is a pool, not a run"),
        (["gate", "made", "--metric", "vote_2", "--min", "0.1"], 4, "made is a pool, not a run"),
        (["submit", "made@good", "-o", "x.json"], 1, "made is a pool, not a run"),
    ],
)  # fmt: skip
def test_refusals(
    capsys: pytest.CaptureFixture[str], here: Path, words: list[str], expected: int, message: str
) -> None:
    make_pool(here / "made", "drawn@good")
    status, _, err = run_bench(capsys, *words)
    assert status == expected
    assert message in err
    assert not (here / "new").exists()
    assert sorted(path.name for path in here.glob(".tmp*")) == []


def test_damage_is_told_by_every_reader(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    make_pool(here / "pool", "drawn")
    file = here / "pool" / "candidates.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:6], lines[6].replace(b'"view":', b'"view":1'), *lines[7:]]))
    commands: list[list[Any]] = [
        ["score", "pool"], ["submit", "pool", "-o", "x.json"], ["report", "pool"], ["pool", "pool", "-o", "new"],
        ["score", file],
    ]  # fmt: skip
    for words in commands:
        status, out, err = run_bench(capsys, *words)
        assert (status, out) == (1, "")
        assert "candidates.jsonl, line 7, check: the line does not match its checksum" in err
    assert RunFolder(here / "drawn").manifest()
