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
from harness.sampling.options import load_tasks
from harness.scoring.run_scores import score_run
from tests.conftest import edit_manifest
from tests.support.chat_answers import Body, moody
from tests.support.chat_server import ChatServer
from tests.support.sampling_toys import options, outcomes, sample, stable


def test_resume_refuses_another_configuration_and_names_it(tmp_path: Path) -> None:
    with ChatServer() as server:
        chosen = options(server, tmp_path / "run")
        sample(chosen)
        before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
        with pytest.raises(RunError, match="--resume completes it"):
            sample(chosen)
        with pytest.raises(RunError, match=r"n: 4 -> 5; seed: 0 -> 1"):
            sample(replace(chosen, n=5, seed=1, resume=True))
        with pytest.raises(RunError, match=r"base's encoder: .*; base's max_tokens"):
            sample(replace(chosen, encoder="RepeatNumberEncoder(2)", resume=True))
        server.models = {"base": {"arc_bench": {"hash": "new"}}, "cross": {}}
        with pytest.raises(RunError, match='base\'s hash: null -> "new"'):
            sample(replace(chosen, resume=True))
        server.models = {"base": {}, "cross": {}}
        assert sample(replace(chosen, resume=True)).sampled == 0
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before


def test_a_resumed_run_keeps_its_api(tmp_path: Path) -> None:
    with ChatServer(moody, tokens=True) as server:
        chosen = options(server, tmp_path / "run", api="chat")
        sample(chosen)
        cut_to(tmp_path / "run", 10)
        assert sample(replace(chosen, api="auto", resume=True)).sampled == 30
        with pytest.raises(RunError, match='api: "chat" -> "completions"'):
            sample(replace(chosen, api="completions", resume=True))
        by_ids = options(server, tmp_path / "ids", api="auto")
        sample(by_ids)
        cut_to(tmp_path / "ids", 10)
        assert sample(replace(by_ids, resume=True)).sampled == 30
    assert stable(tmp_path / "ids") == stable(tmp_path / "run")
    with ChatServer(moody) as plain, pytest.raises(ConfigError, match="--api completions: "):
        sample(replace(by_ids, servers=(plain.url,), resume=True))


def cut_to(run: Path, lines: int) -> None:
    """Leave the first predictions only, as of a run that has not finished."""
    edit_manifest(run, finished=None)
    path = run / "predictions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))


def test_retry_errors_requests_failed_predictions_again_exactly_once(tmp_path: Path) -> None:
    bad = [True]

    def refuse(body: Body) -> tuple[int, Body] | None:
        odd = body.get("max_tokens") != 1 and body["messages"][-1]["content"][0] in "12345"
        return (500, {"error": "not today"}) if bad[0] and odd else None

    with ChatServer(moody, refuse=refuse) as server:
        chosen = options(server, tmp_path / "run")
        sample(chosen)
        score_run(tmp_path / "run")
        given_up = outcomes(tmp_path / "run")["error"]
        assert 0 < given_up < 40
        others = [r for r in stable(tmp_path / "run") if r.outcome != "error"]
        bad[0] = False
        assert sample(replace(chosen, resume=True)).sampled == 0
        shown = io.StringIO()
        before = len(server.bodies)
        assert sample(replace(chosen, resume=True, retry_errors=True), shown).sampled == given_up
        assert len(server.bodies) - before == given_up
        assert f"asking again for {given_up} predictions" in shown.getvalue()
        assert not (tmp_path / "run" / "results.json").exists()
        assert sample(replace(chosen, resume=True, retry_errors=True)).sampled == 0
        sample(options(server, tmp_path / "calm"))
    assert stable(tmp_path / "run") == stable(tmp_path / "calm")
    assert [r for r in stable(tmp_path / "run") if r in others] == others
    assert RunFolder(tmp_path / "run").manifest().finished is not None


@pytest.mark.parametrize("damage", [b'{"outcome": "error"', b'{"error": 1}', b'["error"]'])
def test_retry_errors_names_a_damaged_line(tmp_path: Path, damage: bytes) -> None:
    with ChatServer() as server:
        chosen = options(server, tmp_path / "run")
        sample(chosen)
        edit_manifest(tmp_path / "run", finished=None)
        path = tmp_path / "run" / "predictions.jsonl"
        content = path.read_bytes() + damage + b"\n"
        path.write_bytes(content)
        number = content.count(b"\n")
        with pytest.raises(RunError, match=rf"predictions\.jsonl, line {number}: not a prediction"):
            sample(replace(chosen, resume=True, retry_errors=True))
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
        sample(options(server, tmp_path / "run", **changes))
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
