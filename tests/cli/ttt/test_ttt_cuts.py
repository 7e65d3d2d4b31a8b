"""``bench ttt --deadline`` with a real trainer: the adapters of a run without a deadline, and no process left behind.

Tests run with a server that has the routes of ours; one starts a real vLLM, which the deadline stops.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import psutil
import pytest

from harness.cli.workflows.ttt.cutting import Missing
from harness.core.deadline import Deadline
from harness.runs.folder import RunFolder
from serve.launch.process import Server
from tests.cli.ttt.test_ttt_kills import start
from tests.support.commands import run_bench
from tests.support.runs.cut_runs import answer_again
from tests.support.runs.run_folders import load_records
from tests.support.runs.ttt_deadlines import HOUR, hang_and_pass, run
from tests.support.runs.ttt_runs import IDS, VIEWS, Site, assert_same, digests, records
from tests.support.servers.adapter_server import AdapterServer

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server(site: Site) -> AdapterServer:
    """The small server, which can hang."""
    if isinstance(site.server, Server):
        pytest.skip("a vLLM does not hang on demand")
    return site.server


def trainers() -> list[psutil.Process]:
    """Return the trainers that this process has started and that still run."""
    return [child for child in psutil.Process().children() if "trainers.ttt" in child.cmdline()]


def test_a_run_that_is_cut_has_the_adapters_of_one_without_a_deadline(
    site: Site, server: AdapterServer, finished: Path, tmp_path: Path
) -> None:
    """The server hangs in the second task, so that the deadline passes there while the third may be trained."""
    out = tmp_path / "run"
    deadline = Deadline(HOUR)
    hang_and_pass(server, VIEWS, deadline)
    try:
        missing = run(site, out, deadline, train=True)
    finally:
        answer_again(server)
    total = VIEWS * len(IDS)
    assert missing == Missing(total - VIEWS, total, "predictions")
    assert not trainers()
    assert tuple(records(out)) == IDS[:1]
    assert digests(out)[IDS[0]] == digests(finished)[IDS[0]]
    assert len(load_records(out)) == VIEWS
    assert RunFolder(out).manifest().cut_by is not None
    assert site.is_clean()
    assert start(site, out, "--resume").wait(300) == 0
    assert_same(out, finished)
    assert RunFolder(out).manifest().deadline is None


def test_a_training_is_abandoned_without_an_adapter(
    site: Site, server: AdapterServer, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    began = monotonic()
    status, _, errors = run_bench(capsys, *site.words(out, "--set", "ttt.steps=100000", "--deadline", "20s"))
    assert 20 < monotonic() - began < 120
    assert status == 1
    assert "passed during a training" in errors
    assert "nothing was answered before the deadline" in errors
    assert not list((out / "adapters").glob("cross-*"))
    assert not trainers()


def test_a_server_of_its_own_that_is_not_ready_is_stopped(
    site: Site, server: AdapterServer, tmp_path: Path, capsys: Capture
) -> None:
    """A vLLM takes longer than the deadline to start."""
    out = tmp_path / "run"
    words = site.words(out, "--training-deadline", "0.001s", "--deadline", "6s", "--schedule", "train-first")
    for option in ("--server", "--adapters"):
        del words[words.index(option) : words.index(option) + 2]
    status, _, errors = run_bench(capsys, *words)
    assert status == 1
    assert "deadline (--deadline)" in errors
    assert not [child for child in psutil.Process().children() if any("vllm" in word for word in child.cmdline())]
