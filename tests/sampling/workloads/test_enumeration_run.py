"""``--search dfs`` finds, through a server, what brute force over the server's language model finds."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.client.pool.retry import RetryPolicy
from harness.core.errors import ConfigError, RunError, ServerError
from harness.runs.folder import RunFolder
from harness.sampling.dry_run import estimate_run
from harness.sampling.unmeasured_models import NothingMeasuredError
from tests.support.runs.enumerated_runs import (
    ROOMY,
    answer_texts,
    dfs_options,
    enumerating_server,
    expected_answers,
    stable_lines,
    views,
)
from tests.support.runs.sampling_runs import PATIENT_POLICY, QUICK_POLICY, run_sampling
from tests.support.servers.chat_answers import random_faults
from tests.support.servers.chat_server import ChatServer


def assert_exact(server: ChatServer, run: Path, min_prob: float, limit: int = 60) -> None:
    """Assert that a run has the answers of brute force, and only those."""
    assert server.language_model is not None
    expected, actual = expected_answers(server.language_model, run, min_prob, limit), answer_texts(run)
    assert actual.keys() == expected.keys()
    for key, texts in expected.items():
        assert actual[key] == pytest.approx(texts, abs=1e-9), key


@pytest.mark.parametrize("min_prob", [0.02, 0.05, 0.1, 0.3])
def test_the_answers_of_every_view_are_those_of_brute_force(tmp_path: Path, min_prob: float) -> None:
    with enumerating_server(max_logprobs=100) as server:
        summary = run_sampling(dfs_options(server, tmp_path / "run", min_prob=min_prob))
        assert_exact(server, tmp_path / "run", min_prob)
    assert (summary.sampled, summary.done, summary.total, summary.noun) == (40, 40, 40, "views")
    saved = views(tmp_path / "run").values()
    assert sum(len(view.answers) for view in saved) > 10
    assert any(len(view.answers) > 1 for view in saved)
    for view in saved:
        total = math.fsum(math.exp(answer.sum_logprob or 0.0) for answer in view.answers)
        assert view.unexplored == pytest.approx(1 - total, abs=1e-9)
        assert view.greedy is not None
    config = RunFolder(tmp_path / "run").manifest().config
    assert config.search is not None
    assert (config.search.logprobs, config.api) == (math.floor(1 / min_prob + 1e-9) + 1, "completions")
    assert sum(view.requests for view in saved) == sum(len(body["prompt"]) for body in server.requests)


def test_several_stop_tokens_add_up(tmp_path: Path) -> None:
    with enumerating_server() as server:
        assert server.tokenizer is not None
        (nine,) = server.tokenizer.encode("9", add_special_tokens=False)
        options = dfs_options(server, tmp_path / "run", extra_body={"stop_token_ids": [nine]})
        run_sampling(options)
        assert server.language_model is not None
        stops = frozenset((server.language_model.end, nine))
        expected = expected_answers(server.language_model, tmp_path / "run", 0.1, 60, stops)
    assert answer_texts(tmp_path / "run") == {key: pytest.approx(texts) for key, texts in expected.items()}


@pytest.mark.parametrize("limit", [1, 5, 6, 12])
def test_answers_beyond_max_tokens_are_truncated_and_their_mass_is_unexplored(tmp_path: Path, limit: int) -> None:
    with enumerating_server(doubt=0.5) as server:
        run_sampling(dfs_options(server, tmp_path / "run", max_tokens=limit, models=("base",)))
        assert_exact(server, tmp_path / "run", 0.1, limit)
    saved = views(tmp_path / "run").values()
    assert any(view.truncated for view in saved)
    assert all(view.greedy is None or view.greedy.n_tokens <= limit for view in saved)


def test_branches_of_different_lengths_that_share_a_request_keep_to_the_limit(tmp_path: Path) -> None:
    """The right answers have 20 tokens. The request's limit is that of its shortest branch."""
    with enumerating_server(max_logprobs=100) as server:
        run_sampling(dfs_options(server, tmp_path / "run", min_prob=0.02, max_tokens=19, models=("base",)))
        assert_exact(server, tmp_path / "run", 0.02, 19)
        assert server.language_model is not None
        split = server.language_model.split
        assert any(len({len(split(ids)[1]) for ids in body["prompt"]}) > 1 for body in server.requests)
    assert any(view.truncated > 1 for view in views(tmp_path / "run").values())


def test_the_context_bounds_answers_and_prompts_beyond_it_are_too_long(tmp_path: Path) -> None:
    with enumerating_server(models=("base",), doubt=0.5) as server:
        options = dfs_options(server, tmp_path / "whole", models=("base",))
        run_sampling(options)
        assert server.language_model is not None
        split = server.language_model.split
        (length,) = {len(split(ids)[0]) for body in server.requests for ids in body["prompt"]}
        server.models = {"base": {**ROOMY, "max_model_len": length + 6}}
        run_sampling(replace(options, out=tmp_path / "run"))
        assert_exact(server, tmp_path / "run", 0.1, 6)
        assert all(len(ids) < length + 6 for body in server.requests[-20:] for ids in body["prompt"])
        server.models = {"base": {**ROOMY, "max_model_len": length}}
        with pytest.raises(NothingMeasuredError, match="20 too_long"):
            run_sampling(replace(options, out=tmp_path / "none"))
    assert any(view.truncated for view in views(tmp_path / "run").values())
    assert {view.outcome for view in views(tmp_path / "none").values()} == {"too_long"}


def test_max_answers_keeps_the_likeliest_and_says_what_was_cut_off(tmp_path: Path) -> None:
    with enumerating_server(max_logprobs=100) as server:
        options = dfs_options(server, tmp_path / "all", min_prob=0.02)
        run_sampling(options)
        run_sampling(replace(options, out=tmp_path / "two", max_answers=2))
    everything, two = views(tmp_path / "all"), views(tmp_path / "two")
    for key, view in two.items():
        logprobs = [answer.sum_logprob for answer in everything[key].answers[:2]]
        assert [answer.sum_logprob for answer in view.answers] == logprobs
        assert view.greedy == everything[key].greedy
    assert sum(view.dropped for view in two.values()) > 0
    assert sum(view.requests for view in two.values()) < sum(view.requests for view in everything.values())
    assert all(view.dropped == 0 for view in everything.values())


def test_a_greedy_answer_below_the_threshold_is_recorded(tmp_path: Path) -> None:
    with enumerating_server(doubt=0.6) as server:
        run_sampling(dfs_options(server, tmp_path / "run", min_prob=0.3))
    unlikely = [view for view in views(tmp_path / "run").values() if view.greedy and view.greedy not in view.answers]
    assert unlikely
    assert all(view.greedy is not None and (view.greedy.sum_logprob or 0) < math.log(0.3) for view in unlikely)


def test_keep_greedy_adds_the_greedy_answer_to_views_that_lack_it_and_changes_nothing_else(tmp_path: Path) -> None:
    with enumerating_server(doubt=0.6) as server:
        options = dfs_options(server, tmp_path / "run", min_prob=0.3)
        run_sampling(options)
        run_sampling(replace(options, out=tmp_path / "kept", keep_greedy=True))
    added = 0
    kept = views(tmp_path / "kept")
    for key, view in views(tmp_path / "run").items():
        assert view.greedy is not None
        lacking = () if view.greedy in view.answers else (view.greedy,)
        assert [a.grid for a in kept[key].answers] == [a.grid for a in (*view.answers, *lacking)]
        logprobs = [a.sum_logprob for a in (*view.answers, *lacking)]
        assert [a.sum_logprob for a in kept[key].answers] == pytest.approx(logprobs)
        assert kept[key].greedy in kept[key].answers
        explored = math.fsum(math.exp(a.sum_logprob or 0) for a in kept[key].answers)
        assert kept[key].unexplored == pytest.approx(1 - explored, abs=1e-9)
        assert kept[key].requests == view.requests
        added += len(lacking)
    assert added


def test_branches_of_many_views_are_in_flight_at_once_and_follow_ups_come_first(tmp_path: Path) -> None:
    policy = replace(QUICK_POLICY, max_in_flight=32, timeout=30.0)
    with enumerating_server(models=("base",), hold=32, seconds=0.01) as server:
        run_sampling(
            dfs_options(
                server, tmp_path / "run", models=("base",), dataset="toy/copy/evaluation#n=60", n=2, policy=policy
            )
        )
        assert server.language_model is not None
        lengths = [len(server.language_model.split(ids)[1]) for body in server.requests for ids in body["prompt"]]
    assert server.most_in_flight == 32
    first_follow_up = next(i for i, length in enumerate(lengths) if length)
    last_view = max(i for i, length in enumerate(lengths) if not length)
    assert first_follow_up < last_view - 32


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_change_no_view(tmp_path: Path, seed: int) -> None:
    with enumerating_server() as server:
        run_sampling(dfs_options(server, tmp_path / "calm"))
    with enumerating_server(faults=random_faults(seed, 30)) as server:
        server.slow = 0.05
        run_sampling(dfs_options(server, tmp_path / "run", policy=PATIENT_POLICY))
    assert stable_lines(tmp_path / "run") == stable_lines(tmp_path / "calm")


def test_a_server_that_goes_away_leaves_its_branches_to_the_other(tmp_path: Path) -> None:
    with enumerating_server() as calm:
        run_sampling(dfs_options(calm, tmp_path / "calm"))
    with enumerating_server(seconds=0.02) as one, enumerating_server(seconds=0.02) as two:
        one.faults = lambda number: "reset" if number > 8 else None
        one.refuse = lambda body: (503, {"error": "gone"}) if len(one.requests) > 8 else None
        policy = replace(PATIENT_POLICY, max_in_flight=4)
        run_sampling(dfs_options(one, tmp_path / "run", servers=(one.url, two.url), policy=policy))
        assert one.requests
        assert len(two.requests) > 20
    assert stable_lines(tmp_path / "run") == stable_lines(tmp_path / "calm")


def test_one_of_two_servers_that_gives_too_few_log_probabilities_is_told_and_left_out(tmp_path: Path) -> None:
    shown = io.StringIO()
    with enumerating_server(max_logprobs=100) as calm:
        run_sampling(dfs_options(calm, tmp_path / "calm", min_prob=0.02))
    with enumerating_server(max_logprobs=100) as one, enumerating_server() as two:
        options = dfs_options(one, tmp_path / "run", servers=(two.url, one.url), min_prob=0.02)
        run_sampling(options, shown)
        assert two.requests == []
    assert f"{two.url} refuses the 51 log-probabilities for each token that --min-prob needs" in shown.getvalue()
    assert stable_lines(tmp_path / "run") == stable_lines(tmp_path / "calm")


def test_a_view_that_is_refused_or_fails_has_no_answers_and_can_be_retried(tmp_path: Path) -> None:
    broken = [True]

    def refuse(body: dict[str, list[list[int]]]) -> tuple[int, dict[str, str]] | None:
        odd = broken[0] and body.get("max_tokens") != 1 and hash(tuple(body["prompt"][0])) % 5 == 0
        return (500, {"error": "not today"}) if odd else None

    with enumerating_server(refuse=refuse) as server:
        options = dfs_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, retries=1))
        run_sampling(options)
        failed = [view for view in views(tmp_path / "run").values() if view.outcome == "error"]
        assert failed
        assert all(view.answers == () and view.unexplored == 1.0 for view in failed)
        broken[0] = False
        again = run_sampling(replace(options, resume=True, retry_errors=True))
        assert again.sampled == len(failed)
        run_sampling(replace(options, out=tmp_path / "calm"))
    assert stable_lines(tmp_path / "run") == stable_lines(tmp_path / "calm")


def test_too_many_log_probabilities_are_refused_with_the_flag_to_raise(tmp_path: Path) -> None:
    with (
        enumerating_server() as server,
        pytest.raises(ServerError, match=r"start it with --max-logprobs 51 .*max allow"),
    ):
        run_sampling(dfs_options(server, tmp_path / "run", min_prob=0.02))
    assert not (tmp_path / "run").exists()


def test_a_server_of_chats_only_is_refused_with_the_reason(tmp_path: Path) -> None:
    with (
        ChatServer() as server,
        pytest.raises(ConfigError, match="--search dfs continues answers by their token ids, but"),
    ):
        run_sampling(dfs_options(server, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 1.0}, "cannot have --temperature"),
        ({"top_p": 0.9}, "cannot have --top-p"),
        ({"min_p": 0.1}, "cannot have --min-p"),
        ({"samples_per_view": 2}, "cannot have --samples-per-view"),
        ({"stop": "decided"}, "cannot have --stop"),
        ({"api": "chat"}, "cannot have --api chat"),
        ({"extra_body": {"repetition_penalty": 1.1}}, "cannot have repetition_penalty in --extra-body"),
        ({"extra_body": {"logit_bias": {"3": 1}}}, "cannot have logit_bias in --extra-body"),
        ({"min_prob": 0.0}, "--min-prob must be at least"),
        ({"max_answers": 0}, "--max-answers must be at least 1"),
        ({"search": None}, "--min-prob belongs to --search dfs"),
        ({"search": "greedy", "min_prob": None, "max_answers": 2}, "--max-answers belongs to --search dfs"),
        ({"search": "sample", "min_prob": None, "temperature": 1.0, "keep_greedy": True}, "--keep-greedy belongs to"),
        ({"search": "greedy", "min_prob": None, "temperature": 1.0}, "--search greedy is temperature 0"),
        ({"search": "sample", "min_prob": None}, "--search sample draws answers at a temperature above 0"),
    ],
)
def test_options_that_contradict_the_search_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sampling(dfs_options("http://127.0.0.1:9", tmp_path / "run", **changes))


def test_a_dry_run_says_what_would_be_requested_and_writes_nothing(tmp_path: Path) -> None:
    with enumerating_server() as server:
        estimate = estimate_run(dfs_options(server, tmp_path / "run"))
        assert server.requests == []
    assert estimate.views == 40
    assert "40 views: 2 models, 5 test outputs, 4 each" in estimate.text()
    assert "completions: 40 (one for each view) to about 400 " in estimate.text()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"notes|not empty"):
        estimate_run(dfs_options("http://127.0.0.1:9", tmp_path / "run"))


def test_the_policy_of_a_real_run_is_the_default(tmp_path: Path) -> None:
    with enumerating_server() as server:
        run_sampling(dfs_options(server, tmp_path / "run", policy=RetryPolicy()))
        assert_exact(server, tmp_path / "run", 0.1)
