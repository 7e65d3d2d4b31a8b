"""bench run --stop against a real HTTP server: the full run's votes from fewer predictions, despite disturbances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ConfigError, RunError
from harness.runs.folder import RunFolder
from harness.runs.schemas.results_schema import ModelResult, Results
from harness.sampling.reproduction import reproduce_run
from harness.scoring.run_scores import score_run
from harness.voting.metrics import STRICT_METRICS
from tests.support.runs.sampling_runs import (
    MODELS,
    STOPPING_POLICY,
    ambiguous_answer,
    copy_interrupted,
    predictions_without_times,
    run_sampling,
    stopping_options,
)
from tests.support.servers.chat_answers import random_faults
from tests.support.servers.chat_server import ChatServer

RULES = ("decided", "risk=0.2")
PLANNED = len(MODELS) * 20 * 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scored run for each rule, and of ``full`` without a rule."""
    folder = tmp_path_factory.mktemp("stopping")
    with ChatServer(ambiguous_answer) as server:
        run_sampling(stopping_options(server, folder / "full"))
        for rule in RULES:
            before = len(server.bodies)
            summary = run_sampling(stopping_options(server, folder / rule, stop=rule))
            assert summary.finished
            assert summary.sampled == summary.done == summary.total == len(server.bodies) - before
    for name in ("full", *RULES):
        score_run(folder / name)
    return folder


def results(run: Path) -> Results:
    return RunFolder(run).results()


def warnings_with(run: Path) -> str:
    """Return results.json without the times."""
    return results(run).model_copy(update={"cost": None}).model_dump_json()


def model_results(runs: Path, name: str) -> list[ModelResult]:
    return [results(runs / name).models[model] for model in MODELS]


def test_decided_gives_the_votes_of_the_full_run_from_fewer_predictions(runs: Path) -> None:
    for full, early in zip(model_results(runs, "full"), model_results(runs, "decided"), strict=True):
        assert early.stopping is not None
        assert 3 * early.stopping.outputs >= early.stopping.not_drawn > 0
        assert early.predictions == full.predictions - early.stopping.not_drawn
        for metric in ("vote_1", "vote_2"):
            assert early.metrics[metric] == full.metrics[metric]
        assert 0 < full.metrics["vote_1"].value < 1


@pytest.mark.parametrize("rule", RULES)
def test_predictions_are_a_subset_of_the_full_runs(runs: Path, rule: str) -> None:
    full = {record.key: record for record in predictions_without_times(runs / "full")}
    early = predictions_without_times(runs / rule)
    assert [full[record.key] for record in early] == early
    spared = sum(r.stopping.not_drawn for r in model_results(runs, rule) if r.stopping)
    assert len(early) == PLANNED - spared
    assert spared > 0


@pytest.mark.parametrize("rule", RULES)
def test_means_over_predictions_use_the_first_round_and_pass_n_is_not_given(
    runs: Path, rule: str, tmp_path: Path
) -> None:
    manifest = RunFolder(runs / rule).manifest()
    assert manifest.config.stop is not None
    first = manifest.config.stop.rounds[0]
    assert first == 8
    short = RunFolder(tmp_path)
    config = manifest.config.model_copy(update={"n": first, "stop": None})
    short.write_manifest(manifest.model_copy(update={"config": config, "predictions_sha256": None}))
    lines = [r.model_dump_json() for r in predictions_without_times(runs / "full", lambda r: r.sample_index < first)]
    short.predictions_path.write_text("\n".join(lines) + "\n")
    expected = score_run(tmp_path)
    for model, early in zip(MODELS, model_results(runs, rule), strict=True):
        assert early.stopping is not None
        assert early.stopping.first_round == first
        assert list(early.stopping.not_available) == ["pass_n"]
        assert "pass_n" not in early.metrics
        for name, metric in early.metrics.items():
            if name not in STRICT_METRICS:
                assert metric == expected.models[model].metrics[name]


def test_skipped_predictions_are_no_failures(runs: Path) -> None:
    for early in model_results(runs, "risk=0.2"):
        assert "missing" not in early.failures
        assert early.failures["unparsed"] > 0


@pytest.mark.parametrize(("rule", "lines"), [("decided", 0), ("decided", 500), ("risk=0.2", 333), ("risk=0.2", 600)])
def test_a_killed_run_is_resumed_to_the_same_predictions_and_results(
    runs: Path, tmp_path: Path, rule: str, lines: int
) -> None:
    out = tmp_path / "run"
    copy_interrupted(runs / rule, out, lines)
    complete = len(predictions_without_times(runs / rule))
    with ChatServer(ambiguous_answer) as server:
        summary = run_sampling(stopping_options(server, out, stop=rule, resume=True))
        assert len(server.bodies) == summary.sampled == max(0, complete - lines)
    score_run(out)
    assert predictions_without_times(out) == predictions_without_times(runs / rule)
    assert warnings_with(out) == warnings_with(runs / rule)


@pytest.mark.parametrize(
    ("in_flight", "models_at_once", "servers", "faults"), [(1, 1, 1, 0), (64, 2, 2, 0), (16, 1, 2, 30)]
)
def test_speed_servers_and_faults_do_not_change_the_predictions(
    runs: Path, tmp_path: Path, in_flight: int, models_at_once: int, servers: int, faults: int
) -> None:
    policy = replace(STOPPING_POLICY, max_in_flight=in_flight, retries=60, backoff=0.001)
    with ChatServer(ambiguous_answer, seconds=0.002) as first, ChatServer(ambiguous_answer) as second:
        for number, server in enumerate((first, second)):
            wrong = random_faults(number, faults)
            server.faults = lambda i, server=server, wrong=wrong: wrong(i) if server.bodies else None
        urls = (first.url, second.url)[:servers]
        chosen = stopping_options(first, tmp_path / "run", stop="risk=0.2", policy=policy, servers=urls)
        run_sampling(replace(chosen, models_at_once=models_at_once))
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(runs / "risk=0.2")


def test_an_unfinished_run_distinguishes_missing_from_skipped(runs: Path, tmp_path: Path) -> None:
    copy_interrupted(runs / "decided", tmp_path / "run", PLANNED * 7 // 8)
    whole, part = results(runs / "decided").models, score_run(tmp_path / "run").models
    early, unfinished = (sum(r.stopping.not_drawn for r in by.values() if r.stopping) for by in (whole, part))
    assert 0 < unfinished < early
    missing = sum(result.failures.get("missing", 0) for result in part.values())
    assert missing == PLANNED - PLANNED * 7 // 8 - unfinished


def test_a_run_is_not_resumed_with_another_rule(runs: Path) -> None:
    with ChatServer(ambiguous_answer) as server, pytest.raises(RunError, match="changed: stop"):
        run_sampling(stopping_options(server, runs / "decided", stop="risk=0.2", resume=True))
    with ChatServer(ambiguous_answer) as server, pytest.raises(RunError, match="changed: stop"):
        run_sampling(stopping_options(server, runs / "full", stop="decided", resume=True))
    with ChatServer(ambiguous_answer) as server, pytest.raises(ConfigError, match="neither 'decided' nor a risk"):
        run_sampling(stopping_options(server, runs / "new", stop="soon"))


def test_a_stopped_run_is_reproduced(runs: Path, tmp_path: Path) -> None:
    with ChatServer(ambiguous_answer) as server:
        summary, agreement = reproduce_run(runs / "decided", tmp_path / "again", (server.url,))
    assert summary.finished
    assert agreement is not None
    assert agreement.same == agreement.predictions == summary.total
    assert agreement.same_results


def test_unbalanced_views_make_means_over_predictions_unavailable(tmp_path: Path) -> None:
    with ChatServer(ambiguous_answer) as server:
        run_sampling(stopping_options(server, tmp_path / "run", n=12, stop="risk=0.5", models=("base",)))
    result = score_run(tmp_path / "run").models["base"]
    assert result.stopping is not None
    assert set(result.metrics) == {"vote_1", "vote_2"}
    assert "-n 16 would make it so" in result.stopping.not_available["accuracy"]


def test_a_run_too_short_to_skip_anything_is_a_full_run(tmp_path: Path) -> None:
    with ChatServer(ambiguous_answer) as server:
        run_sampling(stopping_options(server, tmp_path / "run", n=4, stop="decided", models=("base",)))
        run_sampling(stopping_options(server, tmp_path / "full", n=4, models=("base",)))
    early, full = (score_run(tmp_path / name).models["base"] for name in ("run", "full"))
    assert early.metrics == full.metrics
    assert early.stopping is not None
    assert early.stopping.not_drawn == 0
    assert "--stop decided spares nothing" in RunFolder(tmp_path / "run").manifest().warnings[0]
