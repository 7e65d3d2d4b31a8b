"""A run against a real HTTP server, by chats and by token ids, makes every prediction exactly once."""

from __future__ import annotations

import io
import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.client.protocol.response import Reply
from harness.core.augmentation import identity_view
from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt, prompt_names
from harness.runs.folder import RunFolder
from harness.runs.schemas.prediction_schema import PredictionRecord
from harness.sampling.plan import Plan, PromptFormat, Sample
from harness.sampling.recording import prediction_line
from harness.scoring.run_scores import score_run
from tests.support.runs.run_folders import load_records, run_manifest
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    right_answers,
    run_options,
    run_sampling,
    used_api,
)
from tests.support.servers.chat_answers import Body, no_grid
from tests.support.servers.chat_server import TINY_BASE, ChatServer

TASKS = ("toy/edge/evaluation#n=6", "compact-v0", "MinimalGridEncoder()")
ARC = (
    "arc1/evaluation#n=8#seed=3",
    "output-from-examples-v1",
    "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
)


@pytest.fixture(params=[False, True], ids=["chat", "completions"])
def tokens(request: pytest.FixtureRequest) -> bool:
    """Whether the server accepts token ids."""
    return bool(request.param)


@pytest.mark.parametrize(("dataset", "prompt", "encoder"), [TASKS, ARC])
def test_right_answers_score_one(tmp_path: Path, tokens: bool, dataset: str, prompt: str, encoder: str) -> None:
    chosen = run_options("http://later", tmp_path / "run", dataset=dataset, prompt=prompt, encoder=encoder, n=9)
    answers = right_answers(chosen)
    roomy = {"root": str(TINY_BASE), "max_model_len": 32768} if tokens else {}
    models = {"base": roomy, "cross": roomy}
    with ChatServer(lambda body: answers[json.dumps(body["messages"])], models=models, tokens=tokens) as server:
        assert run_sampling(replace(chosen, servers=(server.url,))).finished
    assert used_api(tmp_path / "run") == ("completions" if tokens else "chat")
    results = score_run(tmp_path / "run")
    for model in ("base", "cross"):
        metrics = results.models[model].metrics
        assert {name: metrics[name].value for name in metrics if name != "unanswered"} == dict.fromkeys(
            metrics.keys() - {"unanswered"}, 1.0
        )
        assert results.models[model].failures == {}


def test_garbage_scores_zero_and_every_failure_is_counted(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(no_grid, tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"))
    results = score_run(tmp_path / "run")
    for model in ("base", "cross"):
        assert results.models[model].failures == {"unparsed": 20}
        assert results.models[model].metrics["accuracy"].value == 0.0
        assert results.models[model].metrics["unanswered"].value == 1.0


def test_every_prediction_is_made_once_with_equal_prompts_for_all_models(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(tokens=tokens) as server:
        summary = run_sampling(run_options(server, tmp_path / "run"))
    assert (summary.sampled, summary.done, summary.total) == (40, 40, 40)
    assert len(server.bodies) == 40
    assert len(server.requests) == (10 if tokens else 40)
    records = predictions_without_times(tmp_path / "run")
    assert len({record.key for record in records}) == 40
    by_model = [[r for r in records if r.model == model] for model in ("base", "cross")]
    assert [(r.augmentation, r.seed, r.text) for r in by_model[0]] == [
        (r.augmentation, r.seed, r.text) for r in by_model[1]
    ]
    assert len({record.augmentation.symmetry for record in records}) == 4
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.finished is not None
    assert manifest.answered_as == {"base": ["base"], "cross": ["cross"]}


def test_answers_at_the_limit_are_truncated_whatever_they_contain(tmp_path: Path, tokens: bool) -> None:
    def answer(body: Body) -> tuple[str, str]:
        text = body["messages"][-1]["content"]
        return text, "length" if text[0] in "01234" else "stop"

    with ChatServer(answer, tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"))
        cut = sum(chat["messages"][-1]["content"][0] in "01234" for chat in server.bodies)
    assert 0 < cut < 40
    assert count_outcomes(tmp_path / "run") == {"truncated": cut, "grid": 40 - cut}


@pytest.mark.slow
@pytest.mark.parametrize("by_ids", [False, True])
def test_a_thousand_requests_are_really_in_flight(tmp_path: Path, by_ids: bool) -> None:
    policy = replace(QUICK_POLICY, max_in_flight=1024, timeout=60.0)
    with ChatServer(hold=1024, tokens=by_ids) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=300", policy=policy))
    assert server.most_in_flight == 1024


def test_a_low_limit_on_open_files_does_not_limit_the_requests_in_flight(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with ChatServer(hold=150) as server:
            policy = replace(QUICK_POLICY, max_in_flight=150, timeout=30.0)
            run_sampling(
                run_options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=50", policy=policy)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.most_in_flight == 150
    assert count_outcomes(tmp_path / "run") == {"grid": 200}


def test_as_many_models_are_mixed_as_the_server_computes_adapters_at_once(tmp_path: Path) -> None:
    three = {"base": {"arc_bench": {"max_loras": 2}}, "a": {"parent": "base"}, "b": {"parent": "base"}}
    with ChatServer(models=three) as server:
        chosen = run_options(
            server, tmp_path / "run", models=("a", "b", "base"), policy=replace(QUICK_POLICY, max_in_flight=1)
        )
        run_sampling(chosen)
        order = [body["model"] for body in server.bodies]
        assert set(order[:40]) == {"a", "b"}
        assert order[:4] == ["a", "b", "a", "b"]
        assert order[40:] == ["base"] * 20
        run_sampling(replace(chosen, out=tmp_path / "apart", models_at_once=1))
        assert [body["model"] for body in server.bodies[60:80]] == ["a"] * 20
        run_sampling(replace(chosen, out=tmp_path / "alone", models=("a",)))
    assert predictions_without_times(tmp_path / "apart") == predictions_without_times(tmp_path / "run")
    assert score_run(tmp_path / "apart").models == score_run(tmp_path / "run").models
    assert predictions_without_times(tmp_path / "alone") == [
        r for r in predictions_without_times(tmp_path / "run") if r.model == "a"
    ]


def test_prompt_and_encoder_come_from_the_adapters_manifest(tmp_path: Path) -> None:
    trained = {"arc_bench": {"hash": "h", "manifest": {"prompt": "compact-v0", "encoder": "RepeatNumberEncoder(2)"}}}
    with ChatServer(models={"base": {}, "cross": trained}) as server:
        run_sampling(run_options(server, tmp_path / "run", prompt=None, encoder=None))
        shown = io.StringIO()
        run_sampling(run_options(server, tmp_path / "other", encoder=None, prompt="output-from-examples-v0"), shown)
    assert "cross was trained with prompt compact-v0, but is asked with output-from-examples-v0" in shown.getvalue()
    models = RunFolder(tmp_path / "run").manifest().config.models
    assert [(m.prompt, m.encoder, m.hash) for m in models] == [
        ("compact-v0", "RepeatNumberEncoder(2)", None),
        ("compact-v0", "RepeatNumberEncoder(2)", "h"),
    ]
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def test_an_adapter_without_a_manifest_gets_a_warning(tmp_path: Path) -> None:
    shown = io.StringIO()
    with ChatServer(models={"base": {}, "a": {"parent": "base"}}) as server:
        run_sampling(
            run_options(server, tmp_path / "run", models=("base", "a"), prompt=None, encoder="MinimalGridEncoder()"),
            shown,
        )
        assert "a: nothing says with which prompt it was trained; it is asked with" in shown.getvalue()
        assert shown.getvalue().count("nothing says") == 1
        run_sampling(run_options(server, tmp_path / "other", models=("base", "a")), shown)  # the user says both
    assert shown.getvalue().count("nothing says") == 1


def test_the_default_limit_holds_the_largest_answer(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"))
        run_sampling(run_options(server, tmp_path / "chosen", max_tokens=33))
    assert [server.bodies[0]["max_tokens"], server.bodies[-1]["max_tokens"]] == [30 * 31 - 1 + 8, 33]


def test_samples_of_one_view_have_seeds_and_requests_of_their_own(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",), samples_per_view=2, temperature=1.0))
    records = predictions_without_times(tmp_path / "run")
    assert len({r.seed for r in records if r.task_id == "copy-000000"}) == 4
    assert len({r.augmentation.symmetry for r in records}) == 2
    assert len(server.requests) == len(records)
    assert {body["seed"] for body in server.requests} == {record.seed for record in records}


def test_missing_log_probabilities_are_mentioned_once(tmp_path: Path, tokens: bool) -> None:
    shown = io.StringIO()
    with ChatServer(logprobs=False, tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"), shown)
    assert shown.getvalue().count("no log-probabilities") == 1
    assert {record.cumulative_logprob for record in predictions_without_times(tmp_path / "run")} == {None}


def test_results_contain_the_cost_of_a_run(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"))
    cost = score_run(tmp_path / "run").cost
    assert cost is not None
    records = [r for r in load_records(tmp_path / "run") if r.model == "cross"]
    assert (cost["cross"].requests, cost["cross"].tokens) == (20, sum(r.n_tokens or 0 for r in records))
    assert cost["cross"].seconds == pytest.approx(sum(r.seconds for r in records), abs=0.001)


def test_a_lenient_format_parses_what_the_original_scripts_did() -> None:
    prompt, encoder = load_prompt("output-from-examples-v1"), parse_encoder("GridShapeEncoder(MinimalGridEncoder())")
    sample = replace(sample_of(0), augmentation=identity_view(4))
    unclosed = "### Output\n\n```grid shape: 2x2\n01\n23"
    assert PromptFormat(prompt, encoder).parse_answer(unclosed, sample) == ("unparsed", None)
    lenient = PromptFormat(prompt, encoder, lenient=True)
    assert lenient.parse_answer(unclosed, sample) == ("grid", Grid.from_rows([[0, 1], [2, 3]]))


def sample_of(task: int, sample_index: int = 0) -> Sample:
    dataset = open_dataset("arc1/training#n=30")
    plan = Plan(run_manifest(dataset.spec, ["base"], 9).config, [dataset.task(i) for i in range(30)])
    return plan.sample(task * 9 + sample_index)


@pytest.mark.parametrize("name", prompt_names())
@given(
    task=st.integers(0, 29), sample_index=st.integers(0, 8), encoder=st.sampled_from(["MinimalGridEncoder()", ARC[2]])
)
def test_messages_equal_those_that_the_prompt_renders(name: str, task: int, sample_index: int, encoder: str) -> None:
    drawn, format_ = sample_of(task, sample_index), PromptFormat(load_prompt(name), parse_encoder(encoder))
    view = drawn.augmentation.apply_task(drawn.task)
    assert format_.messages(drawn) == format_.prompt.messages(view, drawn.test_index, format_.encoder)


@given(
    text=st.text(),
    logprob=st.none() | st.floats(-1e3, 0),
    finish=st.sampled_from(["stop", None]),
    cells=st.none() | st.binary(min_size=6, max_size=6),
)
def test_a_stored_line_is_a_prediction_record(
    text: str, logprob: float | None, finish: str | None, cells: bytes | None
) -> None:
    drawn = sample_of(3)
    grid = None if cells is None else Grid(2, 3, bytes(cell % 10 for cell in cells))
    line = prediction_line(
        drawn, "unparsed" if grid is None else "grid", grid, Reply(text, finish, "m", 7, logprob, 0.1)
    )
    record = PredictionRecord.model_validate_json(line)
    assert json.loads(line) == json.loads(record.model_dump_json())
    assert list(json.loads(line)) == list(PredictionRecord.model_fields)
    assert (record.key, record.text, record.cumulative_logprob) == (
        ("base", drawn.task.id, drawn.test_index, drawn.sample_index),
        text,
        logprob,
    )
    unsent = PredictionRecord.model_validate_json(prediction_line(drawn, "too_long", None, None))
    assert (unsent.text, unsent.n_tokens, unsent.seconds) == (None, None, 0.0)
