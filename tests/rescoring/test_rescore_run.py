"""``bench rescore`` through a server gives what the server's language model says, once, and nothing doubtful."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.rescoring.session import estimate_rescore, rescore
from harness.sampling.progress_display import Display
from harness.scoring.prediction_loader import open_predictions
from harness.voting.selection_rules import RULES
from tests.support.runs.enumerated_runs import enumerating_server
from tests.support.runs.rescored_runs import (
    VIEWS,
    expected_logprobs,
    prompts_and_answers,
    rescore_options,
    run_rescore,
    saved_lines,
    saved_logprobs,
)
from tests.support.runs.sampling_runs import PATIENT_POLICY
from tests.support.servers.chat_answers import Body, random_faults
from tests.support.servers.chat_server import ChatServer


def refuse_prompt_logprobs(body: Body) -> tuple[int, Body] | None:
    if body.get("prompt_logprobs") is None:
        return None
    return 400, {"error": {"message": "prompt_logprobs: extra fields not permitted"}}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("arc_score", {"scores": True}),
        ("prompt_logprobs", {}),
        ("echo", {"refuse": refuse_prompt_logprobs}),
    ],
)
def test_every_candidate_gets_the_log_probability_of_the_model(
    run: Path, method: str, options: dict[str, object]
) -> None:
    output = io.StringIO()
    with enumerating_server(doubt=0.4, **options) as server:
        summary = run_rescore(rescore_options(server, run), output)
        assert saved_logprobs(run) == pytest.approx(expected_logprobs(server.language_model, run), abs=1e-9)
    count = len(saved_lines(run))
    assert count > 10 * VIEWS
    assert (summary.scored, summary.done, summary.total, summary.given_up) == (count, count, count, 0)
    assert {line["method"] for line in saved_lines(run)} == {method}
    text = output.getvalue()
    assert f"{count // VIEWS} candidates under {VIEWS} views by base, cross: {count} log-probabilities" in text
    assert ("computed again for every answer" in text) == (method != "arc_score")
    assert text.count("scores answers with") == 1


def test_the_rules_use_what_was_rescored(run: Path, server: ChatServer) -> None:
    run_rescore(rescore_options(server, run))
    values = expected_logprobs(server.language_model, run)
    saved = open_predictions(run)
    for model in saved.predictions:
        rescores = saved.rescores[model.model]
        for task, outputs in model.outputs.items():
            for index, output in enumerate(outputs):
                ranking = rescores.rank(RULES["poe"], task, index, output.votes())
                sums = [
                    sum(
                        value
                        for (scorer, one, at, grid, _), value in values.items()
                        if (scorer, one, at) == (model.model, task, index)
                        and grid.replace(" ", "") == str(entry.grid.to_rows()).replace(" ", "")
                    )
                    for entry in ranking
                ]
                assert sums == sorted(sums, reverse=True)


def test_another_model_rescores_the_candidates_of_all(run: Path, server: ChatServer) -> None:
    run_rescore(rescore_options(server, run, model="cross", top=1))
    expected = expected_logprobs(server.language_model, run, "cross", top=1)
    assert saved_logprobs(run) == pytest.approx(expected, abs=1e-9)
    run_rescore(rescore_options(server, run, model="cross"))
    assert saved_logprobs(run) == pytest.approx(expected_logprobs(server.language_model, run, "cross"), abs=1e-9)
    assert set(open_predictions(run).rescores) == {"base", "cross"}


def test_a_smaller_top_than_before_is_told(run: Path, server: ChatServer) -> None:
    for top, words in (
        (2, None),
        (None, None),
        (2, "cross rescored all candidates before; with --top 2 poe and kgmon use the 2 best only"),
        (1, "cross rescored the 2 best candidates before; with --top 1 poe and kgmon use the 1 best only"),
        (1, None),
    ):
        output = io.StringIO()
        run_rescore(rescore_options(server, run, model="cross", top=top), output)
        assert ("best only" in output.getvalue()) == (words is not None)
        assert words is None or words in output.getvalue()


def test_a_prompt_is_sent_once_to_a_server_that_shares_it(run: Path, server: ChatServer) -> None:
    run_rescore(rescore_options(server, run, policy=replace(PATIENT_POLICY, max_in_flight=256)))
    sent = [(body["model"], *item["prompt"]) for body in server.requests for item in body["prompts"]]
    assert len(sent) == len(set(sent))
    prompts = {(key[0], *prompt) for key, (prompt, _) in prompts_and_answers(run).items()}
    assert set(sent) == prompts


def test_a_second_session_has_nothing_to_do(run: Path, server: ChatServer) -> None:
    run_rescore(rescore_options(server, run))
    before = (run / "rescores.jsonl").read_bytes()
    server.requests.clear()
    again = run_rescore(rescore_options(server, run, views=None))
    assert (again.scored, again.done == again.total, server.requests) == (0, True, [])
    assert (run / "rescores.jsonl").read_bytes() == before


def test_the_cost_is_told_and_a_dry_run_writes_nothing(run: Path, server: ChatServer) -> None:
    before = sorted(path.name for path in run.iterdir())
    estimate = estimate_rescore(rescore_options(server, run), Display(io.StringIO()))
    tokens = prompts_and_answers(run)
    prompts = {(key[0], key[1], key[2], key[4]): len(prompt) for key, (prompt, _) in tokens.items()}
    assert (estimate.missing, estimate.prompts) == (len(tokens), len(prompts))
    assert estimate.is_exact
    assert estimate.prompt_tokens * estimate.prompts == pytest.approx(sum(prompts.values()))
    assert estimate.answer_tokens * estimate.missing == pytest.approx(sum(len(a) for _, a in tokens.values()))
    assert sorted(path.name for path in run.iterdir()) == before
    assert not server.requests


def test_faults_of_two_servers_cost_no_score(run: Path) -> None:
    """Half of the replies fail; a server leaves and comes back."""
    faults = random_faults(1, 40)
    kept = ("http_500", "http_503", "http_429", "reset", "not_json", "html", "null")

    def fault(number: int) -> str | None:
        chosen = faults(number)
        return chosen if chosen in kept else None

    with (
        enumerating_server(doubt=0.4, scores=True, faults=fault) as one,
        enumerating_server(doubt=0.4, scores=True, faults=lambda number: fault(number + 1000)) as other,
    ):
        options = rescore_options(one, run, servers=(one.url, other.url), policy=replace(PATIENT_POLICY, wait=20.0))
        summary = run_rescore(options)
        assert one.requests
        assert other.requests
        assert summary.finished
        assert saved_logprobs(run) == pytest.approx(expected_logprobs(one.language_model, run), abs=1e-9)


def test_the_progress_is_shown(run: Path, server: ChatServer) -> None:
    server.seconds = 0.1
    output = io.StringIO()
    options = rescore_options(server, run, policy=replace(PATIENT_POLICY, max_in_flight=8))
    rescore(options, Display(output, plain_seconds=0.05))
    assert re.search(r"^base: done \d+/\d+, rate [\d.]+/s, in flight \d+", output.getvalue(), re.MULTILINE)
    assert re.search(r"^[\d.]+ log-probabilities/s, \d+ in flight, .* left$", output.getvalue(), re.MULTILINE)
