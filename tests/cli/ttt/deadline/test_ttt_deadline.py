"""``bench ttt --deadline`` without a trainer: what is missing is recorded over the whole run, and a resume adds it.

``--training-deadline`` is over at once, so that the base answers every task.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import monotonic

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.cli.workflows.ttt.cutting import Missing
from harness.core.deadline import Deadline
from harness.runs.folder import RunFolder
from harness.runs.schemas.deadline_record import RunDeadline
from tests.support.commands import run_bench
from tests.support.runs.cut_runs import answer_again
from tests.support.runs.run_folders import load_records
from tests.support.runs.ttt_deadlines import HOUR, hang_and_pass, passes_at, run
from tests.support.runs.ttt_runs import DATASET, IDS, VIEWS, Site, answers, records
from tests.support.servers.adapter_server import AdapterServer

Capture = pytest.CaptureFixture[str]
TOTAL = VIEWS * len(IDS)


def check_cut(out: Path, seconds: float) -> int:
    """Check what the manifest says of a cut run against its lines, and return how many predictions it has."""
    done = len(load_records(out))
    manifest = RunFolder(out).manifest()
    assert manifest.finished is None
    assert manifest.deadline == RunDeadline(
        seconds=seconds,
        passed=manifest.deadline.passed if manifest.deadline else None,
        missing={"mine": TOTAL - done},
        requested={"mine": TOTAL},
    )
    assert manifest.cut_by is not None
    return done


def check_completed(site: Site, out: Path, whole: Path) -> None:
    """Complete a run without a deadline, and check that it is the run without one."""
    assert run(site, out, None) is None
    manifest = RunFolder(out).manifest()
    assert manifest.finished is not None
    assert manifest.deadline is None
    assert tuple(records(out)) == IDS
    assert answers(out) == answers(whole)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(number=st.integers(1, TOTAL))
def test_a_deadline_that_passes_anywhere_is_recorded_over_the_whole_run(
    site: Site,
    server: AdapterServer,
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: Capture,
    number: int,
) -> None:
    """It passes while a task is answered, whose session ends; then no other task begins, and no server is asked."""
    out = tmp_path_factory.mktemp("any") / "run"
    deadline = Deadline(HOUR)
    server.refuse = passes_at(deadline, number)
    missing = run(site, out, deadline)
    answer_again(server)
    tasks = -(-number // VIEWS)
    assert tuple(records(out)) == IDS[:tasks]
    if tasks == len(IDS):
        assert missing is None
        assert RunFolder(out).manifest().deadline == RunDeadline(seconds=HOUR)
        return
    assert missing == Missing(TOTAL - tasks * VIEWS, TOTAL, "predictions")
    assert check_cut(out, HOUR) == tasks * VIEWS
    assert f"passed before task {IDS[tasks]} was answered\n" in capsys.readouterr().err
    check_completed(site, out, whole)


def test_a_server_that_is_lost_after_the_deadline_changes_nothing(
    site: Site, server: AdapterServer, whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The server is lost, and the deadline passes, when the second task begins."""
    out, calls, deadline = tmp_path / "run", iter((False, True)), Deadline(HOUR)

    def fail(route: str) -> bool:
        if is_lost := next(calls):
            object.__setattr__(deadline, "started", monotonic() - HOUR)
        return is_lost

    server.fail_admin = fail
    assert run(site, out, deadline) == Missing(TOTAL - VIEWS, TOTAL, "predictions")
    server.fail_admin = lambda route: False
    assert "the deadline (--deadline) passed: http://" in capsys.readouterr().err
    assert check_cut(out, HOUR) == VIEWS
    check_completed(site, out, whole)


@pytest.mark.parametrize("number", [1, VIEWS + 2])
def test_a_task_that_is_cut_is_not_recorded_as_answered(
    site: Site, server: AdapterServer, whole: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    hang_and_pass(server, number, deadline)
    missing = run(site, out, deadline)
    answer_again(server)
    assert check_cut(out, HOUR) == number
    assert missing == Missing(TOTAL - number, TOTAL, "predictions")
    assert tuple(records(out)) == IDS[: number // VIEWS]
    check_completed(site, out, whole)


def test_a_deadline_before_the_first_request_of_a_resumed_run(
    site: Site, server: AdapterServer, whole: Path, tmp_path: Path
) -> None:
    """The manifest has the last deadline, the predictions stay, and no task begins: not even a greeting is sent."""
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    server.refuse = passes_at(deadline, 1)
    run(site, out, deadline)
    requests = len(server.requests)
    assert run(site, out, Deadline(0.002)) == Missing(TOTAL - VIEWS, TOTAL, "predictions")
    assert len(server.requests) == requests
    assert check_cut(out, 0.002) == VIEWS
    check_completed(site, out, whole)
    assert run(site, out, Deadline(0.002)) is None
    assert RunFolder(out).manifest().deadline is None


def test_views_are_counted_as_views(site: Site, server: AdapterServer, tmp_path: Path) -> None:
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    hang_and_pass(server, 3, deadline)
    missing = run(site, out, deadline, search="dfs", min_prob=0.1)
    assert missing is not None
    assert (missing.total, missing.noun) == (TOTAL, "views")
    assert 0 < missing.count <= TOTAL
    assert RunFolder(out).manifest().cut_text() == f"missing by the deadline (1h): {missing.count} of {TOTAL} views"


def test_a_cut_run_is_scored_compared_reported_and_submitted(
    site: Site, server: AdapterServer, whole: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    server.refuse = passes_at(deadline, 1)
    run(site, out, deadline)
    words = site.words(out, "--training-deadline", "0.001s", "--deadline", "0.002s", "--resume")
    monkeypatch.setattr("sys.argv", ["bench", *words])
    status, table, errors = run_bench(capsys, *words)
    assert status == 0, errors
    text = f"missing by the deadline: {TOTAL - VIEWS} of {TOTAL} predictions"
    assert f"{text}; to ask for them: bench ttt" in errors
    assert "--training-deadline 0.001s --resume\n" in errors
    assert text in table
    assert orjson.loads((out / "results.json").read_bytes())["models"]["mine"]["deadline"]["tasks_without"] == 2
    assert f"mine: {text}" in run_bench(capsys, "score", out)[1]
    shutil.copytree(whole, tmp_path / "whole")
    assert "unequal numbers of predictions" in run_bench(capsys, "compare", out, tmp_path / "whole")[2]
    page, submission = tmp_path / "report.md", tmp_path / "submission.json"
    status, _, errors = run_bench(capsys, "report", out, "-o", page)
    assert status == 0, errors
    assert "**Cut by its deadline**" in page.read_text()
    status, _, errors = run_bench(capsys, "submit", out, "-o", submission)
    assert status == 0, errors
    assert "2 of them have no prediction (2 tasks have none)" in errors
    assert run_bench(capsys, "submit", "--check", submission, "--dataset", DATASET)[0] == 0
    assert set(json.loads(submission.read_text())) == set(IDS)


def test_a_run_without_an_answer_fails(site: Site, tmp_path: Path, capsys: Capture) -> None:
    """As ``bench run``: without a server that answered there is no manifest."""
    out = tmp_path / "run"
    status, _, errors = run_bench(capsys, *site.words(out, "--deadline", "0.001s"))
    assert status == 1
    assert f"missing by the deadline: {TOTAL} of {TOTAL} predictions" in errors
    assert "nothing was answered before the deadline" in errors
    assert not (out / "manifest.json").exists()
    assert run_bench(capsys, *site.words(out, "--resume", "--training-deadline", "0.001s"))[0] == 0
    assert RunFolder(out).manifest().finished is not None
