"""Requests that fail for a while, for ever, or do not fit: no prediction is lost or made twice."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import RunError
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.scoring.run_scores import score_run
from tests.faults.matrix import count_cases
from tests.support.runs.run_folders import load_records
from tests.support.runs.sampling_runs import (
    PATIENT_POLICY,
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
)
from tests.support.servers.chat_answers import Body, echo, mixed_answer, random_faults
from tests.support.servers.chat_server import TINY_BASE, ChatServer
from tests.support.servers.chat_tokens import count_tokens

APIS = pytest.mark.parametrize("tokens", [False, True], ids=["chat", "completions"])


@APIS
@given(seed=st.integers(0, 2**32), percent=st.integers(0, 60))
@settings(max_examples=2)
def test_faults_change_nothing(tokens: bool, seed: int, percent: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random request failures (12 kinds of fault, up to 60 %) change neither predictions nor scores."""
    check_faults(tokens, seed, percent, tmp_path_factory)


@pytest.mark.slow
@APIS
@given(seed=st.integers(0, 2**32), percent=st.integers(0, 60))
@settings(max_examples=25)
def test_many_faults_change_nothing(
    tokens: bool, seed: int, percent: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Many more random faults change neither predictions nor scores."""
    check_faults(tokens, seed, percent, tmp_path_factory)


def check_faults(tokens: bool, seed: int, percent: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Assert that a run with random faults equals one without."""
    folder = tmp_path_factory.mktemp("faults")
    with ChatServer(mixed_answer) as server:
        run_sampling(run_options(server, folder / "undisturbed"))
    with ChatServer(mixed_answer, tokens=tokens) as server:
        faults = random_faults(seed, percent)
        # A server that resets the very first connections counts as absent, which ends a run that has not begun.
        server.faults = lambda i: faults(i) if server.bodies else None
        assert run_sampling(run_options(server, folder / "rough", policy=replace(PATIENT_POLICY, timeout=0.5))).finished
    assert RunFolder(folder / "rough").manifest().config.api == ("completions" if tokens else "chat")
    assert predictions_without_times(folder / "rough") == predictions_without_times(folder / "undisturbed")
    undisturbed, rough = (score_run(folder / name) for name in ("undisturbed", "rough"))
    assert rough.models == undisturbed.models
    assert len(count_outcomes(folder / "undisturbed")) >= 2
    count_cases()


@APIS
@pytest.mark.parametrize("fault", ["http_500", "reset", "not_json", "no_choice", "two_choices", "abort"])
def test_a_prediction_that_always_fails_is_recorded_as_an_error(tmp_path: Path, fault: str, tokens: bool) -> None:
    """A prediction that fails at every try is recorded as an error; all others are made."""
    poisoned: list[object] = []

    def answer(body: Body) -> str:
        if body["model"] == "base":
            poisoned.append(body["messages"])
        return f"!{fault}" if body["model"] == "cross" and body["messages"] == poisoned[7] else echo(body)

    output = io.StringIO()
    with ChatServer(answer, tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"), output)
    assert count_outcomes(tmp_path / "run") == {"grid": 39, "error": 1}
    assert "error: " in output.getvalue()


def test_only_the_aborted_prompt_of_a_list_is_requested_again(tmp_path: Path) -> None:
    """Of a list of prompts only the one with an aborted answer is requested again."""
    with ChatServer(tokens=True) as server:
        server.faults = lambda i: "abort" if len(server.requests) == 1 else None
        run_sampling(run_options(server, tmp_path / "run", models=("base",)))
    prompts = [body["prompt"] for body in server.requests]
    assert sorted(map(len, prompts)) == [1, 4, 4, 4, 4, 4]
    assert min(prompts, key=len)[0] in prompts[0]
    assert count_outcomes(tmp_path / "run") == {"grid": 20}


@pytest.mark.parametrize("fault", ["no_choice", "two_choices", "http_500"])
def test_a_list_that_fails_is_divided(tmp_path: Path, fault: str) -> None:
    """The prompts of a list that fails are requested one by one, and every prediction is made."""
    with ChatServer(tokens=True) as server:
        server.faults = lambda i: fault if len(server.requests) == 1 else None
        run_sampling(run_options(server, tmp_path / "run", models=("base",)))
    assert sorted(len(body["prompt"]) for body in server.requests) == [1, 1, 1, 1, 4, 4, 4, 4, 4]
    assert count_outcomes(tmp_path / "run") == {"grid": 20}


def test_the_last_open_request_does_not_block_the_run(tmp_path: Path) -> None:
    """A server that always answers 500 to the last open request does not block the run."""

    def refuse(body: Body) -> tuple[int, Body] | None:
        return None if body["messages"][-1]["content"] == "Hello" else (500, {"error": "always"})

    with ChatServer(refuse=refuse) as server, pytest.raises(RunError, match="no answer in 1 predictions"):
        run_sampling(run_options(server, tmp_path / "run", models=("base",), dataset="toy/copy#n=1", n=1))
    assert count_outcomes(tmp_path / "run") == {"error": 1}


@APIS
def test_refusals_are_recorded_and_shown_once(tmp_path: Path, tokens: bool) -> None:
    """Requests that a server refuses (400) are recorded as refused, and the reason is shown once."""

    def refuse(body: Body) -> tuple[int, Body] | None:
        text = body["messages"][0]["content"] if body["messages"] else ""
        return (400, {"error": {"message": "no threes"}}) if "3" in text else None

    output = io.StringIO()
    with ChatServer(refuse=refuse, tokens=tokens) as server:
        run_sampling(run_options(server, tmp_path / "run"), output)
    counts = count_outcomes(tmp_path / "run")
    assert counts["refused"] > 1
    assert counts["refused"] + counts["grid"] == 40
    assert output.getvalue().count("no threes") == 1


class SmallContext:
    """A server with a context of 180 tokens: tasks of side 3 fit with an answer, the prompts of side 4 do not.

    A token is a character, and a message takes four more: 9 x 12 + 36 = 144 tokens for side 3, 9 x 20 + 36 = 216 for
    side 4.
    """

    limit = 180

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def refuse(self, body: Body) -> tuple[int, Body] | None:
        tokens = count_tokens(body)
        if body.get("max_tokens") != 1:
            self.sizes.append(tokens)
        if tokens + (body.get("max_tokens") or 1) > self.limit:
            return 400, {"error": {"message": f"This model's maximum context length is {self.limit} tokens."}}
        return None


@pytest.mark.parametrize(("listed", "tokenize"), [(True, True), (True, False), (False, False)])
def test_prompts_beyond_the_context_are_recorded_as_too_long(tmp_path: Path, listed: bool, tokenize: bool) -> None:
    """Prompts beyond the context are recorded as too long; the others may use the rest of the context."""
    small = SmallContext()
    models: dict[str, Body] = {"base": {"max_model_len": small.limit} if listed else {}, "cross": {"parent": "base"}}
    with ChatServer(models=models, tokenize=tokenize, refuse=small.refuse) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("cross",), dataset="toy/copy/evaluation#n=20"))
    check_sides(tmp_path / "run")
    if tokenize:  # An adapter has its base's context, and nothing is sent in vain.
        assert max(small.sizes) <= small.limit


def test_with_token_ids_no_prompt_beyond_the_context_is_sent(tmp_path: Path) -> None:
    """With token ids no prompt is sent that does not fit into the context."""
    models: dict[str, Body] = {"base": {"root": str(TINY_BASE)}}
    with ChatServer(models=models, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "free", models=("base",), dataset="toy/copy/evaluation#n=20"))
        longest = sorted({len(ids) for body in server.requests for ids in body["prompt"]})
        models["base"]["max_model_len"] = limit = (longest[0] + longest[-1]) // 2
        before = len(server.requests)
        run_sampling(run_options(server, tmp_path / "run", models=("base",), dataset="toy/copy/evaluation#n=20"))
    check_sides(tmp_path / "run")
    sent = server.requests[before:]
    assert all(max(map(len, body["prompt"])) + body["max_tokens"] <= limit for body in sent)
    assert sum(len(body["prompt"]) for body in sent) == count_outcomes(tmp_path / "run")["grid"]


def check_sides(run: Path) -> None:
    by_side: dict[int, set[str]] = {3: set(), 4: set()}
    tasks = {task.id: task for task in iterate_tasks(open_dataset("toy/copy/evaluation#n=20"))}
    for record in load_records(run):
        by_side[tasks[record.task_id].test[0].input.height].add(record.outcome)
    assert by_side == {3: {"grid"}, 4: {"too_long"}}


def test_pauses_are_limited_by_the_users_patience(tmp_path: Path) -> None:
    """A server that asks for a pause of a day is retried after the time that the user allows."""
    first = [True]

    def refuse(body: Body) -> tuple[int, Body] | None:
        if body.get("max_tokens") == 1 or not first:
            return None
        first.clear()
        return 500, {"error": "tomorrow"}

    with ChatServer(refuse=refuse, headers={"Retry-After": "86400"}) as server:
        chosen = run_options(server, tmp_path / "run", models=("base",), policy=replace(QUICK_POLICY, wait=0.3))
        assert run_sampling(chosen).finished
    assert count_outcomes(tmp_path / "run") == {"grid": 20}


def test_retry_after_does_not_count_as_a_try(tmp_path: Path) -> None:
    """Retry-After does not count as a try: with no retries at all the run is complete."""
    with ChatServer(mixed_answer) as server:
        server.faults = lambda i: "http_429" if server.bodies and i % 3 else None
        run_sampling(run_options(server, tmp_path / "run", policy=replace(PATIENT_POLICY, retries=0)))
    assert count_outcomes(tmp_path / "run")["error"] == 0
