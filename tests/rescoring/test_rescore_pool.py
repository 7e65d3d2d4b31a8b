"""``bench rescore`` of a pool: its candidates, foreign ones too, by one model; what that cannot write is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from shutil import copytree

import pytest

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.runs.folder import RunFolder
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.rule_scores import unusable_reason
from harness.voting.selection_rules import RULES
from tests.support.runs.enumerated_runs import enumerating_server
from tests.support.runs.pools import make_pool, write_submission
from tests.support.runs.rescored_runs import prompts_and_answers, rescore_options, run_rescore, saved_logprobs
from tests.support.servers.chat_server import TINY_BASE, ChatServer


@pytest.fixture
def pool(run: Path, tmp_path: Path) -> Path:
    """A pool of an enumerated run and a submission with other candidates."""
    spec = RunFolder(run).manifest().config.dataset
    return make_pool(tmp_path / "pool", run, write_submission(tmp_path / "s.json", spec, right=2), dataset=spec)


def pooled_grids(pool: Path) -> set[Grid]:
    (predictions,) = open_predictions(pool).predictions
    return {grid for outputs in predictions.outputs.values() for output in outputs for grid in output.votes_by_grid}


def test_one_model_rescores_every_candidate(run: Path, pool: Path, server: ChatServer) -> None:
    with pytest.raises(ConfigError, match="the candidates of pool are of no single model: name a scorer with --model"):
        run_rescore(rescore_options(server, pool))
    run_rescore(rescore_options(server, pool, model="cross"))
    tokens = prompts_and_answers(run, "cross", pool=pool)
    assert server.language_model is not None
    expected = {key: server.language_model.score("cross", *pair) for key, pair in tokens.items()}
    assert saved_logprobs(pool) == pytest.approx(expected, abs=1e-9)
    alone = prompts_and_answers(run, "cross")
    assert alone.keys() < tokens.keys()
    saved = open_predictions(pool)
    (predictions,) = saved.predictions
    for rule in ("poe", "kgmon"):
        assert unusable_reason(RULES[rule], predictions, saved.rescores["pool"]) is None


def test_a_pool_that_was_made_again_is_rescored_again(
    run: Path, pool: Path, server: ChatServer, tmp_path: Path
) -> None:
    run_rescore(rescore_options(server, pool, model="cross"))
    other = make_pool(tmp_path / "other", run)
    (other / "rescores.jsonl").write_bytes((pool / "rescores.jsonl").read_bytes())
    saved = open_predictions(other)
    reason = unusable_reason(RULES["poe"], saved.predictions[0], saved.rescores["pool"])
    assert "is of other predictions than there are now" in str(reason)


def test_what_the_scorer_cannot_write_is_told_and_not_scored(pool: Path, tmp_path: Path) -> None:
    """A tokenizer that writes every 9 as 8 gives a grid with a 9, under a view, the tokens of another grid."""
    folder = copytree(TINY_BASE, tmp_path / "base")
    fields = json.loads((folder / "tokenizer.json").read_text())
    fields["normalizer"] = {"type": "Replace", "pattern": {"String": "9"}, "content": "8"}
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    output = io.StringIO()
    with enumerating_server(models=("judge",), base=folder, scores=True) as server:
        server.models["judge"] = {"root": str(folder), "max_model_len": 4096}
        summary = run_rescore(rescore_options(server, pool, model="judge"), output)
    logprobs = saved_logprobs(pool)
    unwritable = {key for key, logprob in logprobs.items() if logprob is None}
    assert 0 < len(unwritable) < len(logprobs)
    assert summary.failures == {"unwritable": len(unwritable)}
    assert "judge cannot write a candidate of task" in output.getvalue()
    assert "its tokens decode to something else" in output.getvalue()
    saved = open_predictions(pool)
    rescored = saved.rescores["pool"]
    known = {grid for grids in rescored.outputs.values() for grid in grids}
    assert known < pooled_grids(pool)
    failed = len({key[:-1] for key in unwritable})
    assert saved.warnings == (
        f"{failed} candidates of pool have no log-probability by judge under some view (too long, or not writable in "
        "its tokens): poe and kgmon rank them last",
    )
