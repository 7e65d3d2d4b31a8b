"""The headline rule: recorded with the run or given when scoring, applied by every command, said in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import ConfigError, UnusableRuleError
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import StopConfig
from harness.runs.schemas.results_schema import HeadlineRule
from harness.scoring.headline_rule import headline_rule, rule_note
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_by_vote, score_run, score_saved
from harness.scoring.run_selector import select_models
from harness.voting.metrics import METRICS
from tests.support.commands import run_bench
from tests.support.runs.rescores import write_rescores
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=24"
BEFORE, AFTER = "before_sampling", "afterwards"
REMEDY = "the candidates were not rescored (bench rescore RUN --server URL)"


@pytest.fixture
def views(tmp_path: Path) -> Path:
    return write_view_run(tmp_path, "views", SPEC, {"good": 0.6, "bad": 0.2}, n=6)


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        (None, None, None),
        (None, "vote", None),
        (None, "poe", ("poe", AFTER)),
        ("poe", None, ("poe", BEFORE)),
        ("poe", "poe", ("poe", BEFORE)),
        ("poe", "kgmon", ("kgmon", AFTER)),
        ("poe", "vote", ("vote", AFTER)),
        ("vote", None, ("vote", BEFORE)),
    ],
)
def test_a_given_rule_takes_precedence_and_counts_as_chosen_afterwards(
    recorded: str | None, given: str | None, expected: tuple[str, str] | None
) -> None:
    headline = headline_rule(recorded, given)
    assert (None if headline is None else (headline.name, headline.chosen)) == expected


def test_rules_are_named_by_model_only_where_they_differ() -> None:
    before, after = HeadlineRule(name="poe", chosen=BEFORE), HeadlineRule(name="kgmon", chosen=AFTER)
    assert rule_note({"a": None, "b": None}) is None
    same = rule_note({"a": before, "b": before})
    assert same == "vote_1 and vote_2 are by the rule poe (chosen before sampling: it is in the run's manifest)"
    mixed = rule_note({"a": None, "b": after, "c": None}) or ""
    assert "by the default rule vote for a, c; by the rule kgmon (chosen after sampling" in mixed
    assert mixed.endswith(" for b")


@pytest.mark.parametrize("rule", ["logprob", "first", "marc", "poe", "kgmon"])
def test_votes_are_by_the_rule_and_every_other_metric_stays(views: Path, rule: str) -> None:
    write_rescores(views)
    saved = open_predictions(views)
    table = json.loads(RunFolder(views).manifest_path.read_text())
    assert "rule" not in table["config"]
    voted, chosen = score_by_vote(saved), score_saved(saved, rule)
    for one, other in zip(voted, chosen, strict=True):
        for name in (*METRICS, "greedy", "unexplored"):
            same = (one.tasks.values_of(name) == other.tasks.values_of(name)).all()
            assert same or name in ("vote_1", "vote_2"), name
        assert other.rule == HeadlineRule(name=rule, chosen=AFTER)
        assert one.rule is None
    assert any((a.tasks.values != b.tasks.values).any() for a, b in zip(voted, chosen, strict=True))


def test_the_headline_equals_the_row_of_the_comparison_of_rules(
    views: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rescores(views)
    status, out, _ = run_bench(capsys, "score", views, "--rule", "kgmon", "--rules", "all", "--json", "-")
    assert status == 0
    content = json.loads(out)
    for model, result in content["models"].items():
        assert result["metrics"]["vote_2"]["value"] == pytest.approx(content["rules"][model]["kgmon"]["vote_2"])
        assert result["rule"] == {"name": "kgmon", "chosen": AFTER}
        assert content["rules"][model]["vote"]["difference"] is None
    saved = json.loads((views / "results.json").read_text())
    assert saved["models"]["good"]["rule"]["name"] == "kgmon"


def test_files_of_runs_without_a_rule_stay_as_they_were(views: Path, make_run: MakeRun) -> None:
    for run in (views, make_run("drawn", SPEC, {"good": 0.6})):
        score_run(run)
        assert b'"rule"' not in (run / "manifest.json").read_bytes()
        assert b'"rule"' not in (run / "results.json").read_bytes()


def test_a_recorded_rule_is_applied_by_every_command_and_said(
    views: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_rescores(views)
    edit_manifest(views, rule="poe")
    note = "vote_1 and vote_2 are by the rule poe (chosen before sampling: it is in the run's manifest)"
    expected = score_saved(open_predictions(views))
    status, out, _ = run_bench(capsys, "score", views)
    assert (status, note in out) == (0, True)
    status, _, err = run_bench(capsys, "compare", views, "--metric", "vote_2")
    assert (status, note in err) == (0, True)
    good = expected[0].tasks.values_of("vote_2").mean()
    status, out, err = run_bench(capsys, "gate", f"{views}@good", "--min", "0.01")
    assert note in err
    assert f"vote_2 by poe is {100 * good:.1f} %" in out
    submission = tmp_path / "submission.json"
    status, out, _ = run_bench(capsys, "submit", f"{views}@good", "-o", submission)
    assert (status, "chosen by the rule poe" in out) == (0, True)
    scored = json.loads(run_bench(capsys, "score", submission, "--dataset", SPEC, "--json", "-")[1])
    assert scored["models"]["-"]["metrics"]["vote_2"]["per_output"] == pytest.approx(good)


def test_another_rule_than_the_recorded_one_is_said_to_be_chosen_afterwards(
    views: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(views, rule="first")
    drawn = make_run("drawn", SPEC, {"good": 0.6}, n=6)
    _, _, err = run_bench(capsys, "compare", f"{views}@good", drawn, "--rule", "logprob")
    assert "vote_1 and vote_2 are by the rule logprob (chosen after sampling, with --rule" in err
    _, _, err = run_bench(capsys, "compare", f"{views}@good", drawn)
    assert "by the rule first (chosen before sampling: it is in the run's manifest) for views@good" in err
    assert "by the default rule vote for drawn@good" in err
    assert "differ in rule" not in err


@pytest.mark.parametrize(
    "words", [("score",), ("compare",), ("gate", "--min", "0.1"), ("submit", "-o", "x.json"), ("report", "-o", "x.md")]
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_rule_that_cannot_be_applied_is_an_error_with_the_remedy(
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    recorded: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run("drawn", SPEC, {"good": 0.6} if words[0] in ("gate", "submit") else {"good": 0.6, "bad": 0.2})
    score_run(run)
    before = (run / "results.json").read_bytes()
    if recorded:
        edit_manifest(run, rule="kgmon")
    status, out, err = run_bench(capsys, words[0], run, *words[1:], *([] if recorded else ["--rule", "kgmon"]))
    assert (status, out) == (2, "")
    assert "rule kgmon cannot be applied" in err
    assert REMEDY in err
    assert ("(kgmon was recorded when the run began)" in err) == recorded
    assert "another rule can be chosen, such as --rule vote" in err
    assert words[0] == "submit" or f"{run}, good: rule" in err
    assert len(err.strip().splitlines()) == 1
    assert (run / "results.json").read_bytes() == before
    assert not list(tmp_path.glob("x.*"))
    assert run_bench(capsys, words[0], run, *words[1:], "--rule", "vote")[0] in (0, 3)


def test_rescores_of_some_candidates_only_are_refused(views: Path) -> None:
    write_rescores(views, keep=lambda number: number % 7 != 0)
    with pytest.raises(UnusableRuleError, match=r"rule poe .*were not rescored, the first in task .*--rule"):
        score_saved(open_predictions(views), "poe")


def test_a_run_that_stopped_early_has_no_other_rule(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("early", SPEC, {"m": 0.9}, n=16)
    edit_manifest(run, stop=StopConfig(rule="risk=0.2", rounds=[8, 12]))
    status, _, err = run_bench(capsys, "score", run, "--rule", "logprob")
    assert status == 2
    assert "the run stopped early (risk=0.2) where the vote was decided" in err
    assert run_bench(capsys, "score", run, "--rule", "vote")[0] == 0


def test_unknown_rules_are_refused(views: Path) -> None:
    with pytest.raises(ConfigError, match="no selection rule 'median'; choose one of vote, logprob"):
        select_models((str(views),), rule="median")
