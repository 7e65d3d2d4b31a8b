"""``bench ttt`` on tasks with few train pairs, and with ``--search dfs``, on the servers of the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from serve.client import admin
from serve.launch.operations import add_adapter
from serve.registry.store import Registry
from tests.support.commands import run_bench
from tests.support.runs.enumerated_runs import views
from tests.support.runs.ttt_runs import DATASET, IDS, VIEWS, Site, digests, records
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import is_exact, tolerance
from trainers.store.manifest import read_manifest
from trainers.ttt.protocol import adapter_path

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]


def test_tasks_with_one_or_two_train_pairs(site: Site, tmp_path: Path, capsys: Capture) -> None:
    """The base answers a task with one pair; of two pairs one is left out where the recipe leaves out two."""
    pairs = [
        {"input": pair.input.to_rows(), "output": pair.output.to_rows()}
        for task in iterate_tasks(open_dataset(DATASET))
        for pair in task.train
        if pair.output is not None
    ]
    path = tmp_path / "set_challenges.json"
    test = [{"input": pairs[0]["input"], "output": pairs[0]["output"]}]
    path.write_text(json.dumps({f"with-{n}": {"train": pairs[:n], "test": test} for n in (1, 2)}))
    out = tmp_path / "run"
    status, _, errors = run_bench(capsys, *site.words(out, "--set", "ttt.leave_out=2", dataset=str(path)))
    assert status == 0, errors
    one, two = records(out)["with-1"], records(out)["with-2"]
    assert (one.outcome, one.adapter, one.own_adapter, one.steps) == ("untrained", None, False, 0)
    assert one.answered_by == admin.list_adapters(site.server.url)["base"]
    assert one.reason
    assert (two.outcome, two.own_adapter, two.steps) == ("trained", True, 6)
    manifest = read_manifest(adapter_path(out, "with-2"))
    assert manifest is not None
    assert manifest.ttt is not None
    assert (manifest.ttt.leave_out, manifest.ttt.fallback) == ([1], True)
    assert RunFolder(out).manifest().finished is not None
    assert site.is_clean()


def test_enumeration_of_a_task_is_that_of_its_adapter(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    search = ["--search", "dfs", "--min-prob", "0.1"]  # a plain server gives 20 log-probabilities
    out, plain = tmp_path / "run", tmp_path / "plain"
    status, _, errors = run_bench(capsys, *site.words(out, *search))
    assert status == 0, errors
    assert digests(out) == digests(finished)
    version = add_adapter(site.registry, "plain", adapter_path(out, IDS[1]), str(TINY_BASE)).id
    admin.stage(site.server.url, version)
    ids = tmp_path / "ids.txt"
    ids.write_text(IDS[1])
    words = ["run", "--server", site.server.url, "--model", version, "--dataset", f"toy/cross/evaluation#ids={ids}"]
    assert run_bench(capsys, *words, "-n", VIEWS, "--max-tokens", 24, "--out", plain, *search)[0] == 0
    admin.unload(site.server.url, version)
    Registry(site.registry).remove(version)
    actual = {key[1:]: view for key, view in views(out).items() if view.task_id == IDS[1]}
    expected = {key[1:]: view for key, view in views(plain).items()}
    assert actual.keys() == expected.keys()
    assert len(actual) == VIEWS
    if is_exact():
        for key, view in actual.items():
            mine, others = view.answers, expected[key].answers
            assert [answer.grid for answer in mine] == [answer.grid for answer in others]
            for one, two in zip(mine, others, strict=True):
                assert one.sum_logprob == pytest.approx(two.sum_logprob, abs=tolerance())
