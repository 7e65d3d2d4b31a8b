"""A tracker that fails, hangs or is missing: a warning or a refusal, and never another result."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psutil
import pytest

from harness.cli.report_to import report_to_trackers
from harness.trackers.delivery import deliver
from harness.trackers.report import ReportedMetric, TrackerReport
from tests.conftest import ROOT
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=12"
REPORT = TrackerReport("r@cross", "score", {"model": "cross"}, {"vote_2": ReportedMetric(0.5, 0.2, 0.8)})


def test_a_store_that_cannot_be_written_costs_one_warning(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("r", SPEC, {"cross": 0.8})
    status, plain, _ = run_bench(capsys, "score", run, "--json", "-")
    results = (run / "results.json").read_bytes()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file" / "below"))
    reported = run_bench(capsys, "score", run, "--json", "-", "--report-to", "tensorboard")
    assert (status, *reported[:2]) == (0, 0, plain)
    [warning] = reported[2].splitlines()
    assert warning.startswith("warning: not reported to tensorboard: NotADirectoryError: ")
    assert warning.endswith(f"report it again with bench score {run} --report-to tensorboard")
    assert (run / "results.json").read_bytes() == results
    assert not (run / "trackers.jsonl").exists()


@pytest.mark.slow
def test_trackio_and_mlflow_that_store_nothing_are_noticed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("r", SPEC, {"cross": 0.8})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/below.db")
    status, _, err = run_bench(capsys, "score", run, "--report-to", "trackio,mlflow")
    assert status == 0
    assert "warning: not reported to trackio: " in err
    assert "warning: not reported to mlflow: " in err
    assert "reported to trackio: r" not in err.replace("not reported", "")


@pytest.mark.slow
def test_a_server_that_never_answers_is_left_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = set(psutil.Process().children(recursive=True))
        start = monotonic()
        [delivery] = deliver([REPORT], ["mlflow"], seconds=8)
        assert monotonic() - start < 60
    assert delivery.error == "it did not finish within 8 s and was stopped"
    left = [p for p in set(psutil.Process().children(recursive=True)) - before if "spawn_main" in " ".join(p.cmdline())]
    assert left == []


@pytest.mark.parametrize("error", [RuntimeError("no disk\nat all"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_report_that_cannot_be_made_costs_one_warning(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> list[TrackerReport]:
        raise error

    report_to_trackers(["wandb", "mlflow"], build, "the same command")
    [warning] = capsys.readouterr().err.splitlines()
    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "RuntimeError: no disk at all"
    assert warning.startswith(f"warning: not reported to wandb, mlflow: {reason}; ")
    assert warning.endswith("the same command --report-to wandb,mlflow")


def test_an_unknown_tracker_is_refused_before_any_work(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("r", SPEC, {"cross": 0.8})
    for words in ("wandb,nobody", "", ","):
        status, out, err = run_bench(capsys, "score", run, "--report-to", words)
        assert (status, out) == (2, "")
        assert "choose of wandb, mlflow, trackio, tensorboard" in err
    assert not (run / "results.json").exists()


@pytest.mark.parametrize(
    ("tracker", "package"),
    [("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio"), ("tensorboard", "tensorboardX")],
)
def test_a_missing_package_is_refused_before_any_work(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tracker: str, package: str
) -> None:
    run = make_run("r", SPEC, {"cross": 0.8})
    monkeypatch.setitem(sys.modules, package, None)
    status, out, err = run_bench(capsys, "score", run, "--report-to", tracker)
    assert (status, out) == (1, "")
    assert err == f'error: --report-to {tracker} needs {package}, not installed here: pip install -e ".[{tracker}]"\n'
    assert not (run / "results.json").exists()


def test_nothing_of_a_tracker_is_imported_without_the_option(make_run: MakeRun) -> None:
    run = make_run("r", SPEC, {"cross": 0.8})
    code = (
        "import sys\nfrom harness.cli import cli\nfrom harness.cli.entry import run_cli\n"
        f"run_cli(cli, ['score', {str(run)!r}])\n"
        "names = {'wandb', 'mlflow', 'trackio', 'tensorboard', 'tensorboardX', 'multiprocessing', 'matplotlib'}\n"
        "print('IMPORTED', sorted(name for name in names | {'harness.trackers.delivery'} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "IMPORTED []" in done.stdout
