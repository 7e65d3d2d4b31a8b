"""A run is resumed with its own configuration only; wrong use is reported before anything is written."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ArcBenchError, ConfigError, DataError, RunError, ServerError
from harness.data.dataset import TaskList
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.sampling.options.config_draft import load_tasks
from harness.scoring.run_scores import score_run
from tests.support.runs.run_folders import edit_manifest
from tests.support.runs.sampling_runs import count_outcomes, predictions_without_times, run_options, run_sampling
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import ChatServer


def test_resume_refuses_another_configuration_and_names_it(tmp_path: Path) -> None:
    with ChatServer() as server:
        chosen = run_options(server, tmp_path / "run")
        run_sampling(chosen)
        before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
        with pytest.raises(RunError, match="--resume completes it"):
            run_sampling(chosen)
        with pytest.raises(RunError, match=r"n: 4 -> 5; seed: 0 -> 1"):
            run_sampling(replace(chosen, n=5, seed=1, resume=True))
        with pytest.raises(RunError, match=r"base's encoder: .*; base's max_tokens"):
            run_sampling(replace(chosen, encoder="RepeatNumberEncoder(2)", resume=True))
        server.models = {"base": {"arc_bench": {"hash": "new"}}, "cross": {}}
        with pytest.raises(RunError, match='base\'s hash: null -> "new"'):
            run_sampling(replace(chosen, resume=True))
        server.models = {"base": {}, "cross": {}}
        assert run_sampling(replace(chosen, resume=True)).sampled == 0
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before


def test_a_resumed_run_keeps_its_api(tmp_path: Path) -> None:
    with ChatServer(mixed_answer, tokens=True) as server:
        chosen = run_options(server, tmp_path / "run", api="chat")
        run_sampling(chosen)
        cut_to(tmp_path / "run", 10)
        assert run_sampling(replace(chosen, api="auto", resume=True)).sampled == 30
        with pytest.raises(RunError, match='api: "chat" -> "completions"'):
            run_sampling(replace(chosen, api="completions", resume=True))
        by_ids = run_options(server, tmp_path / "ids", api="auto")
        run_sampling(by_ids)
        cut_to(tmp_path / "ids", 10)
        assert run_sampling(replace(by_ids, resume=True)).sampled == 30
    assert predictions_without_times(tmp_path / "ids") == predictions_without_times(tmp_path / "run")
    with ChatServer(mixed_answer) as plain, pytest.raises(ConfigError, match="--api completions: "):
        run_sampling(replace(by_ids, servers=(plain.url,), resume=True))


def cut_to(run: Path, lines: int) -> None:
    """Keep only the first predictions of a run, as if it had been interrupted."""
    edit_manifest(run, finished=None)
    path = run / "predictions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


def test_retry_errors_requests_failed_predictions_again_exactly_once(tmp_path: Path) -> None:
    bad = [True]

    def refuse(body: Body) -> tuple[int, Body] | None:
        odd = body.get("max_tokens") != 1 and body["messages"][-1]["content"][0] in "12345"
        return (500, {"error": "not today"}) if bad[0] and odd else None

    with ChatServer(mixed_answer, refuse=refuse) as server:
        chosen = run_options(server, tmp_path / "run")
        run_sampling(chosen)
        score_run(tmp_path / "run")
        given_up = count_outcomes(tmp_path / "run")["error"]
        assert 0 < given_up < 40
        others = [r for r in predictions_without_times(tmp_path / "run") if r.outcome != "error"]
        bad[0] = False
        assert run_sampling(replace(chosen, resume=True)).sampled == 0
        shown = io.StringIO()
        before = len(server.bodies)
        assert run_sampling(replace(chosen, resume=True, retry_errors=True), shown).sampled == given_up
        assert len(server.bodies) - before == given_up
        assert f"asking again for {given_up} predictions" in shown.getvalue()
        assert not (tmp_path / "run" / "results.json").exists()
        assert run_sampling(replace(chosen, resume=True, retry_errors=True)).sampled == 0
        run_sampling(run_options(server, tmp_path / "calm"))
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(tmp_path / "calm")
    assert [r for r in predictions_without_times(tmp_path / "run") if r in others] == others
    assert RunFolder(tmp_path / "run").manifest().finished is not None


@pytest.mark.parametrize("damage", [b'{"outcome": "error"', b'{"error": 1}', b'["error"]'])
def test_retry_errors_names_a_damaged_line(tmp_path: Path, damage: bytes) -> None:
    with ChatServer() as server:
        chosen = run_options(server, tmp_path / "run")
        run_sampling(chosen)
        edit_manifest(tmp_path / "run", finished=None)
        path = tmp_path / "run" / "predictions.jsonl"
        content = path.read_bytes() + damage + b"\n"
        path.write_bytes(content)
        number = content.count(b"\n")
        with pytest.raises(RunError, match=rf"predictions\.jsonl, line {number}: not a prediction"):
            run_sampling(replace(chosen, resume=True, retry_errors=True))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": ("nobody",)}, ServerError, "no model 'nobody'; it has: base, cross"),
        ({"samples_per_view": 2}, ConfigError, "temperature"),
        ({"augment": False}, ConfigError, "temperature"),
        ({"models": ("base", "base")}, ConfigError, "given twice"),
        ({"servers": ("localhost:8000",)}, ConfigError, "not a URL"),
        ({"extra_body": {"n": 3}}, ConfigError, "must not set n"),
        ({"dataset": "toy/none"}, ArcBenchError, "unknown family"),
        ({"prompt": "nothing-v9"}, ArcBenchError, "is not known"),
        ({"servers": ("http://127.0.0.1:9",)}, ServerError, "Cannot connect"),
        ({"api": "completions"}, ConfigError, "--api completions: .* --api chat"),
        ({"retry_errors": True}, ConfigError, "use it with --resume"),
    ],
)
def test_wrong_use_is_a_clear_error_and_creates_no_run(
    tmp_path: Path, changes: dict[str, object], error: type[ArcBenchError], message: str
) -> None:
    with ChatServer() as server, pytest.raises(error, match=message):
        run_sampling(run_options(server, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_empty_dataset_and_repeated_ids_are_refused() -> None:
    task = open_dataset("toy/copy#n=1").task(0)
    with pytest.raises(DataError, match="no test inputs"):
        load_tasks(TaskList("empty", ()), None)
    with pytest.raises(DataError, match="no test inputs"):
        load_tasks(TaskList("headless", (replace(task, test=()),)), None)
    with pytest.raises(DataError, match="two tasks are named copy-000000"):
        load_tasks(TaskList("twice", (task, task)), None)
    assert load_tasks(TaskList("twice", (task, task)), 1) == [task]
