"""What ``bench rescore`` refuses, tells and records instead of a score."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import orjson
import pytest

from harness.core.augmentation import sampling_view
from harness.core.errors import ConfigError, RunError, ServerError
from harness.runs.folder import RunFolder
from tests.support.runs.enumerated_runs import ROOMY, dfs_options, enumerating_server
from tests.support.runs.rescored_runs import (
    expected_logprobs,
    prompts_and_answers,
    rescore_options,
    run_rescore,
    saved_lines,
    saved_logprobs,
)
from tests.support.runs.run_folders import edit_manifest, write_run
from tests.support.runs.sampling_runs import PATIENT_POLICY, run_sampling
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import TINY_BASE, ChatServer
from tests.support.servers.language_model import Choice


def spoiled(change: Callable[[Body], object]) -> Callable[[Body], Body]:
    """Return a change of the first score of a reply with several."""

    def spoil(reply: Body) -> Body:
        change(reply["scores"][0])
        return reply

    return spoil


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row[0].update(logprob=math.nan), "nan is not a finite log-probability"),
        (lambda row: row[0].update(logprob=0.5), "0.5 is positive"),
        (lambda row: row[0].update(n_tokens=3), "expected the score of"),
        (lambda row: row.pop(), "expected scores of"),
    ],
)
def test_doubtful_scores_end_the_session(
    run: Path, server: ChatServer, change: Callable[[Body], object], message: str
) -> None:
    server.spoil_scores = spoiled(change)
    with pytest.raises(ServerError, match=message):
        run_rescore(rescore_options(server, run))
    assert saved_lines(run) == []


def test_another_token_than_sent_ends_the_session(run: Path) -> None:
    def spoil(choice: Choice) -> Choice:
        rows = choice.get("prompt_logprobs")
        if isinstance(rows, list) and len(rows) > 10:
            rows[5] = {"7": {"logprob": -1.0}}
        return choice

    with enumerating_server(doubt=0.4, spoil=spoil) as server, pytest.raises(ServerError, match="another token than"):
        run_rescore(rescore_options(server, run))
    assert saved_lines(run) == []


def test_answers_that_do_not_fit_are_recorded_as_such(run: Path) -> None:
    """By the context that a server names, and by its refusal where it names none."""
    tokens = prompts_and_answers(run)
    lengths = {key: len(prompt) + len(answer) for key, (prompt, answer) in tokens.items()}
    limit = sorted(lengths.values())[len(lengths) // 2]
    expected = {key for key, length in lengths.items() if length + 1 > limit}

    def refuse(body: Body) -> tuple[int, Body] | None:
        longest = max((len(i["prompt"]) + len(a) for i in body.get("prompts", ()) for a in i["answers"]), default=0)
        message = f"the maximum sequence length for scoring is {limit - 1}"
        return (400, {"error": {"message": message}}) if longest + 1 > limit else None

    named = {"models": ("base", "cross"), "scores": True}
    for number, (context, refusal) in enumerate(((limit, lambda body: None), (None, refuse))):
        copy = copytree(run, run.parent / f"copy-{number}")
        with enumerating_server(doubt=0.4, refuse=refusal, **named) as server:
            server.models = {key: {**ROOMY, "max_model_len": context} for key in named["models"]}
            summary = run_rescore(rescore_options(server, copy))
        assert summary.finished
        assert summary.failures == {"too_long": len(expected)}
        assert {key for key, value in saved_logprobs(copy).items() if value is None} == expected
        assert {line.get("failure") for line in saved_lines(copy)} == {None, "too_long"}


def test_a_grid_that_the_tokenizer_cannot_write_is_told_and_not_scored(tmp_path: Path) -> None:
    """This tokenizer reads every 9 as 8."""
    base = copytree(TINY_BASE, tmp_path / "base")
    tokenizer = orjson.loads((base / "tokenizer.json").read_bytes())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "9"}, "content": "8"}
    (base / "tokenizer.json").write_bytes(orjson.dumps(tokenizer))
    run = write_run(tmp_path, "run", "toy/copy/evaluation#n=6", {"base": 0.5})
    output = io.StringIO()
    with enumerating_server(scores=True, base=base, models=("base",)) as server:
        server.models = {"base": {"root": str(base), "max_model_len": 4096}}
        summary = run_rescore(rescore_options(server, run), output)
    seed = RunFolder(run).manifest().config.seed
    expected = set()
    for task_id, index, grid, view in {(key[1], key[2], key[3], key[4]) for key in saved_logprobs(run)}:
        colours = sampling_view(seed, task_id, view, 1).colours
        if any(colours[cell] == 9 for row in orjson.loads(grid) for cell in row):
            expected.add(("base", task_id, index, grid, view))
    assert 0 < len(expected) < summary.total
    assert {key for key, value in saved_logprobs(run).items() if value is None} == expected
    assert summary.failures == {"unwritable": len(expected)}
    assert summary.finished
    assert "its tokens decode to something else" in output.getvalue()


def test_a_refused_request_is_counted_and_asked_again(run: Path, server: ChatServer) -> None:
    refused: list[int] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        if "prompts" in body and body["model"] == "cross":
            refused.append(1)
            return 400, {"error": {"message": "this cannot be done"}}
        return None

    server.refuse = refuse
    output = io.StringIO()
    summary = run_rescore(rescore_options(server, run), output)
    assert summary.given_up == summary.total - summary.done > 0
    assert not summary.interrupted
    assert "refused: HTTP 400: this cannot be done" in output.getvalue()
    server.refuse = lambda body: None
    assert run_rescore(rescore_options(server, run)).finished
    assert saved_logprobs(run) == pytest.approx(expected_logprobs(server.language_model, run), abs=1e-9)


def test_a_session_ends_when_a_server_refuses_everything(tmp_path: Path, server: ChatServer) -> None:
    run = write_run(tmp_path, "run", "toy/copy/evaluation#n=60", {"base": 0.5})
    server.refuse = lambda body: (400, {"error": {"message": "not today"}}) if "prompts" in body else None
    with pytest.raises(ServerError, match="none of 256 answers of base was scored; the last reason: HTTP 400: not tod"):
        run_rescore(rescore_options(server, run))
    assert len(server.requests) < 400


def test_changed_predictions_are_refused_before_a_server_is_asked(run: Path, server: ChatServer) -> None:
    run_rescore(rescore_options(server, run))
    path = run / "predictions.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines[:-1]) if b'"view":{' in line)
    edit_manifest(run, finished=None)
    path.write_bytes(b"".join(lines[: last + 1]))
    with pytest.raises(RunError, match=r"other predictions .*move rescores.jsonl away"):
        run_rescore(rescore_options("http://127.0.0.1:9", run))
    path.write_bytes(whole)
    with pytest.raises(RunError, match="was begun with 3 views, not 4: give --views 3"):
        run_rescore(rescore_options(server, run, views=4))


def hashed(server: ChatServer, **hashes: str) -> None:
    """Give the models of a server these hashes."""
    server.models = {name: {**ROOMY, "arc_bench": {"hash": value}} for name, value in hashes.items()}


def test_other_weights_under_the_name_of_a_scorer_are_refused(run: Path, server: ChatServer) -> None:
    hashed(server, base="b1", cross="c1")
    run_rescore(rescore_options(server, run, model="cross", top=1))
    hashed(server, base="b1", cross="c2")
    with pytest.raises(RunError, match=r"cross scored with other weights \(c1\) than .* now \(c2\)"):
        run_rescore(rescore_options(server, run, model="cross"))
    hashed(server, base="b2", cross="c1")
    assert run_rescore(rescore_options(server, run, model="cross")).finished


def test_models_rescore_their_own_candidates_with_their_own_weights(tmp_path: Path, server: ChatServer) -> None:
    hashed(server, base="b1", cross="c1")
    run_sampling(dfs_options(server, tmp_path / "run"))
    hashed(server, base="b1", cross="c2")
    with pytest.raises(RunError, match=r"cross made the candidates with other weights \(c1\).*--model cross"):
        run_rescore(rescore_options(server, tmp_path / "run"))
    run_rescore(rescore_options(server, tmp_path / "run", model="cross"))


def test_an_adapter_that_is_swapped_meanwhile_ends_the_session(run: Path, server: ChatServer) -> None:
    """The third reply comes from another version, which the list of models has from then on."""
    hashed(server, base="b1", cross="c1")
    answered: list[str] = []

    def name(body: Body) -> str:
        answered.append(str(body["model"]))
        if len(answered) < 3:
            return f"{body['model']}@1"
        hashed(server, base="b2", cross="c1")
        return f"{body['model']}@2"

    server.answered_as = name
    with pytest.raises(ServerError, match="holds another base by now: b2 instead of b1"):
        run_rescore(rescore_options(server, run, policy=replace(PATIENT_POLICY, max_in_flight=1)))
    assert len(saved_lines(run)) == 2
    assert {line["scorer_hash"] for line in saved_lines(run)} == {"b1"}


def test_a_server_that_cannot_score_is_told(run: Path) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "no"}}) if "echo" in body or "prompt_logprobs" in body else None

    with (
        enumerating_server(refuse=refuse) as server,
        pytest.raises(ServerError, match=r"cannot score given answers .*serve the model with bench serve"),
    ):
        run_rescore(rescore_options(server, run))
    assert not (run / "rescores.jsonl").exists()


def test_a_server_that_reads_other_tokens_is_refused(run: Path) -> None:
    message = r"rescoring sends prompts and answers as token ids, but .* as other tokens"
    with ChatServer(models={"base": ROOMY, "cross": ROOMY}, tokenize=True) as server:
        options = rescore_options(server, run)
        with pytest.raises(ConfigError, match=message):
            run_rescore(options)
