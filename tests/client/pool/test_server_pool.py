"""Runs with several servers, and with servers that go down: jobs are shared, handed over, and waited for."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ConfigError, RunError, ServerError
from harness.runs.folder import RunFolder
from tests.support.commands import wait_until
from tests.support.runs.run_folders import edit_manifest
from tests.support.runs.sampling_runs import (
    PATIENT_POLICY,
    QUICK_POLICY,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
)
from tests.support.servers.balancer import Balancer
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import TINY_BASE, ChatServer

APIS = pytest.mark.parametrize("tokens", [False, True], ids=["chat", "completions"])


def in_thread(action: object) -> threading.Thread:
    """Start an action in a thread."""
    thread = threading.Thread(target=action)  # type: ignore[arg-type]
    thread.start()
    return thread


@APIS
def test_the_jobs_of_a_dead_server_go_to_the_other(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(mixed_answer) as calm:
        run_sampling(run_options(calm, tmp_path / "calm", n=16))
    policy = replace(QUICK_POLICY, max_in_flight=4)
    with (
        ChatServer(mixed_answer, seconds=0.02, tokens=tokens) as first,
        ChatServer(mixed_answer, seconds=0.02, tokens=tokens) as second,
    ):
        chosen = run_options(first, tmp_path / "run", servers=(first.url, second.url), n=16, policy=policy)
        killer = in_thread(lambda: (wait_until(lambda: len(first.bodies) > 20), first.stop()))
        assert run_sampling(chosen).finished
        killer.join()
    assert 20 < len(first.bodies) < 80
    assert len(second.bodies) > 80
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")


@APIS
def test_a_balancer_in_front_of_two_replicas_of_which_one_dies(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(mixed_answer) as calm:
        run_sampling(run_options(calm, tmp_path / "calm", n=16))
    with (
        ChatServer(mixed_answer, seconds=0.01, tokens=tokens) as first,
        ChatServer(mixed_answer, seconds=0.01, tokens=tokens) as second,
        Balancer([first.url, second.url]) as front,
    ):
        killer = in_thread(lambda: (wait_until(lambda: len(first.bodies) > 20), first.stop()))
        patient = replace(PATIENT_POLICY, max_in_flight=4)
        assert run_sampling(run_options(front.url, tmp_path / "run", n=16, policy=patient)).finished
        killer.join()
    assert len(first.bodies) > 20
    assert len(second.bodies) > 80
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")


@APIS
def test_a_server_that_recovers_in_time_is_waited_for(tmp_path: Path, tokens: bool) -> None:
    with ChatServer(mixed_answer) as calm:
        run_sampling(run_options(calm, tmp_path / "calm"))
    shown = io.StringIO()
    with ChatServer(mixed_answer, seconds=0.01, tokens=tokens) as server:

        def restart() -> None:
            wait_until(lambda: len(server.bodies) > 10)
            server.stop()
            wait_until(lambda: "does not answer" in shown.getvalue())
            server.start()

        restarter = in_thread(restart)
        assert run_sampling(run_options(server, tmp_path / "run"), shown).finished
        restarter.join()
    assert "answers again" in shown.getvalue()
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")


def test_a_server_that_stays_down_ends_the_run_with_everything_saved(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as calm:
        run_sampling(run_options(calm, tmp_path / "calm"))
    with ChatServer(mixed_answer, seconds=0.01) as server:
        killer = in_thread(lambda: (wait_until(lambda: len(server.bodies) > 20), server.stop()))
        chosen = run_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, wait=0.5, max_in_flight=2))
        with pytest.raises(RunError, match=r"no server answered for 0\.5 s"):
            run_sampling(chosen)
        killer.join()
        saved = len(predictions_without_times(tmp_path / "run"))
        assert saved >= 18
        server.start()
        summary = run_sampling(replace(chosen, resume=True))
    assert summary.sampled == 40 - saved
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")
    assert len(RunFolder(tmp_path / "run").manifest().resumed) == 1


def test_a_model_that_disappears_is_waited_for_and_causes_no_failures(tmp_path: Path) -> None:
    shown = io.StringIO()
    models: dict[str, Body] = {"base": {}, "cross": {}}
    with ChatServer(models=models, seconds=0.01) as server:

        def swap() -> None:
            wait_until(lambda: len(server.bodies) > 10)
            adapter = models.pop("cross")
            wait_until(lambda: "`cross` does not exist" in shown.getvalue())
            models["cross"] = adapter

        swapper = in_thread(swap)
        run_sampling(run_options(server, tmp_path / "run"), shown)
        swapper.join()
    assert count_outcomes(tmp_path / "run") == {"grid": 40}


def test_the_dtypes_of_all_servers_and_sessions_are_recorded(tmp_path: Path) -> None:
    """Also of servers that were there in an earlier session only."""
    servers = [
        ChatServer(models={"base": {"arc_bench": {"dtype": name}}}) for name in ("float32", "bfloat16", "float16")
    ]
    with servers[0] as first, servers[1] as second, servers[2] as third:
        options = run_options(first, tmp_path / "run", models=("base",), servers=(first.url, second.url))
        run_sampling(options)
        assert [model.dtypes for model in RunFolder(options.out).manifest().served] == [("bfloat16", "float32")]
        edit_manifest(options.out, finished=None, predictions_sha256=None)
        run_sampling(replace(options, servers=(third.url,), resume=True))
    assert [m.dtype for m in RunFolder(options.out).manifest().served] == ["bfloat16, float16, float32"]


def test_servers_with_other_weights_do_not_share_a_run(tmp_path: Path) -> None:
    one, two = ({"base": {"arc_bench": {"hash": name}}, "cross": {}} for name in ("h1", "h2"))
    with ChatServer(models=one) as first, ChatServer(models=two) as second:
        with pytest.raises(ConfigError, match="different versions of base: h1 and h2"):
            run_sampling(run_options(first, tmp_path / "run", servers=(first.url, second.url)))
        second.stop()
        shown = io.StringIO()
        helper = in_thread(lambda: (wait_until(lambda: len(first.bodies) > 4), second.start()))
        slow = replace(PATIENT_POLICY, max_in_flight=1)
        chosen = run_options(first, tmp_path / "run", servers=(first.url, second.url), n=24, policy=slow)
        first.seconds = 0.005
        assert run_sampling(chosen, shown).finished
        helper.join()
    assert second.bodies == []
    assert "does not answer" in shown.getvalue()


def test_a_late_server_with_another_tokenizer_gets_no_jobs(tmp_path: Path) -> None:
    """Token ids have a meaning only for the tokenizer that made them."""
    same = {"root": str(TINY_BASE), "max_model_len": 4096}
    with (
        ChatServer(mixed_answer, tokens=True, seconds=0.01) as first,
        ChatServer(mixed_answer, models={"base": same, "cross": same}, tokenize=True) as other,
    ):
        other.stop()
        shown = io.StringIO()
        helper = in_thread(lambda: (wait_until(lambda: len(first.bodies) > 4), other.start()))
        policy = replace(PATIENT_POLICY, max_in_flight=4)
        chosen = run_options(first, tmp_path / "run", servers=(first.url, other.url), n=24, policy=policy)
        assert run_sampling(chosen, shown).finished
        helper.join()
    assert other.requests == []


def test_parameters_are_negotiated_with_a_late_server(tmp_path: Path) -> None:
    """It refuses log-probabilities without naming them: without negotiation every prediction would be refused."""

    def refuse(body: Body) -> tuple[int, Body] | None:
        return (400, {"error": {"message": "bad request"}}) if "logprobs" in body else None

    with ChatServer(mixed_answer, seconds=0.01) as first, ChatServer(mixed_answer, refuse=refuse) as late:
        late.stop()
        shown = io.StringIO()
        helper = in_thread(lambda: (wait_until(lambda: len(first.bodies) > 4), late.start()))
        policy = replace(PATIENT_POLICY, max_in_flight=1)
        chosen = run_options(first, tmp_path / "run", servers=(first.url, late.url), n=24, policy=policy)
        assert run_sampling(chosen, shown).finished
        helper.join()
    assert late.bodies
    assert count_outcomes(tmp_path / "run")["refused"] == 0
    assert f"{late.url} does not take 'logprobs'" in shown.getvalue()


def test_a_server_of_another_kind_is_recognised(tmp_path: Path) -> None:
    with ChatServer() as server, pytest.raises(ServerError, match="OpenAI-compatible"):
        run_sampling(run_options(f"{server.url}/elsewhere", tmp_path / "run"))


def test_an_adapter_swapped_during_a_run_is_a_warning(tmp_path: Path) -> None:
    shown = io.StringIO()
    with ChatServer(mixed_answer) as server:
        server.answered_as = lambda body: f"{body['model']}@{len(server.bodies) // 60}"
        run_sampling(run_options(server, tmp_path / "run", models=("base",), n=20), shown)
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.answered_as == {"base": ["base@0", "base@1"]}
    assert "base was answered by base@0 and base@1" in shown.getvalue()
    assert any("base@0 and base@1" in warning for warning in manifest.warnings)
