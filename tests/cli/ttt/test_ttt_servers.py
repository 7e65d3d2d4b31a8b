"""``bench ttt`` with a real trainer: adapters, deadlines, what else reads its runs, and what stays behind.

Every test runs with a real vLLM, and with a server that has the same routes and a language model of a few lines.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Thread

import pytest

from harness.cli.workflows.ttt.answering.servers import AdapterSite
from harness.core.digests import content_hash
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from serve.client import admin
from serve.launch.operations import add_adapter
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.commands import run_bench
from tests.support.runs.enumerated_runs import views
from tests.support.runs.run_folders import load_records
from tests.support.runs.ttt_runs import DATASET, IDS, VIEWS, Site, answers, assert_alike, assert_same, digests, records
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import is_exact, tolerance
from trainers.store.manifest import read_manifest
from trainers.ttt.protocol import adapter_path

pytestmark = pytest.mark.slow
Capture = pytest.CaptureFixture[str]


def test_every_task_is_answered_by_its_own_adapter(site: Site, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    assert site.is_clean()
    manifest = RunFolder(finished).manifest()
    assert manifest.finished is not None
    assert manifest.warnings == []
    assert manifest.protocol is not None
    assert manifest.protocol.label == "demonstrations of these tasks at test time"
    assert tuple(records(finished)) == IDS
    for name, record in records(finished).items():
        assert (record.outcome, record.own_adapter, record.steps, record.samples) == ("trained", True, 6, 48)
        folder = finished / str(record.adapter)
        assert content_hash(folder) == record.digest
        plain = add_adapter(site.registry, f"plain-{name}", folder, str(TINY_BASE)).id
        admin.stage(site.server.url, plain)
        ids = tmp_path / f"{name}.txt"
        ids.write_text(name)
        out = tmp_path / name
        spec = f"toy/cross/evaluation#ids={ids}"
        words = ["run", "--server", site.server.url, "--model", plain, "--dataset", spec, "-n", VIEWS]
        assert run_bench(capsys, *words, "--max-tokens", 24, "--out", out)[0] == 0
        renamed = [r.model_copy(update={"model": "mine"}) for r in answers(out)]
        assert {r.model for r in load_records(finished)} == {"mine"}
        if is_exact():
            assert_alike(answers(finished, name), renamed)
        admin.unload(site.server.url, plain)
        Registry(site.registry).remove(plain)


def test_a_version_that_a_user_made_live_stays(site: Site, finished: Path) -> None:
    folder = finished / "adapters" / IDS[0]
    registry, base = Registry(site.registry), BaseModel.open(str(TINY_BASE))
    version = registry.add(f"ttt-{IDS[0]}", folder, base)
    registry.set_live(f"ttt-{IDS[0]}", version.version)
    with AdapterSite((site.server.url,), site.registry, base).loaded(f"ttt-{IDS[0]}", folder) as served:
        assert served == version.id
    assert registry.names() == [f"ttt-{IDS[0]}"]
    assert site.loaded() == [version.id]
    registry.set_live(f"ttt-{IDS[0]}", None)
    with AdapterSite((site.server.url,), site.registry, base).loaded(f"ttt-{IDS[0]}", folder):
        pass
    assert site.is_clean()


def test_runs_that_share_a_registry_take_turns(site: Site, finished: Path) -> None:
    folder, name = finished / "adapters" / IDS[0], f"ttt-{IDS[0]}"
    shared = AdapterSite((site.server.url,), site.registry, BaseModel.open(str(TINY_BASE)))
    events = []

    def load_too() -> None:
        with shared.loaded(name, folder):
            events.append("second")

    second = Thread(target=load_too)
    with shared.loaded(name, folder) as version:
        second.start()
        second.join(1)
        assert site.loaded() == [version]
        events.append("first")
    second.join(60)
    assert events == ["first", "second"]
    assert site.is_clean()


@pytest.mark.parametrize("change", ["altered", "absent"])
def test_adapters_do_not_depend_on_test_outputs(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture, change: str
) -> None:
    data = {}
    for task in iterate_tasks(open_dataset(DATASET)):
        train = [{"input": p.input.to_rows(), "output": p.output.to_rows() if p.output else None} for p in task.train]
        test = [{"input": p.input.to_rows(), **({"output": [[7]]} if change == "altered" else {})} for p in task.test]
        data[task.id] = {"train": train, "test": test}
    path = tmp_path / "set_challenges.json"
    path.write_text(json.dumps(data))
    status, _, errors = run_bench(capsys, *site.words(tmp_path / "run", dataset=str(path)))
    assert status == 0, errors
    assert ("not scored" in errors) == (change == "absent")
    assert_same(tmp_path / "run", finished)


def test_one_task_is_done_again(site: Site, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    manifest = out / "adapters" / IDS[1] / "manifest.json"
    before = manifest.stat().st_mtime_ns
    status, _, errors = run_bench(capsys, *site.words(out, "--resume", "--task", IDS[1]))
    assert status == 0, errors
    assert "answered cross-000001" in errors
    assert "answered cross-000000" not in errors
    assert manifest.stat().st_mtime_ns > before
    assert_same(out, finished)


def test_deadlines_and_losses_that_are_not_finite(site: Site, tmp_path: Path, capsys: Capture) -> None:
    late = tmp_path / "late"
    assert run_bench(capsys, *site.words(late, "--training-deadline", "0.001s"))[0] == 0
    base = admin.list_adapters(site.server.url)["base"]
    for record in records(late).values():
        assert (record.outcome, record.adapter, record.answered_by) == ("untrained", None, base)
        assert "--training-deadline" in str(record.reason)
    submission = tmp_path / "submission.json"
    assert run_bench(capsys, "submit", late, "-o", submission)[0] == 0
    assert run_bench(capsys, "submit", "--check", submission, "--dataset", DATASET)[0] == 0
    wild = tmp_path / "wild"
    assert run_bench(capsys, *site.words(wild, "--set", "learning_rate=1e30", "--limit", 1))[0] == 0
    (record,) = records(wild).values()
    assert (record.outcome, record.own_adapter, record.answered_by) == ("not_finite", False, base)
    assert len(load_records(wild)) == VIEWS


def test_the_starting_adapter_answers_what_was_not_trained(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    start_adapter = finished / "adapters" / IDS[0]
    out = tmp_path / "run"
    words = site.words(out, "--set", f"adapter={start_adapter}", "--training-deadline", "0.001s")
    assert run_bench(capsys, *words)[0] == 0
    version = f"ttt-start@{content_hash(start_adapter)[:12]}"
    assert {record.answered_by for record in records(out).values()} == {version}
    assert site.is_clean()
    if is_exact():  # the first task is answered as in the other run, by the same weights
        assert_alike(answers(out, IDS[0]), answers(finished, IDS[0]))


def test_a_run_is_reproduced_from_kept_adapters_only(
    site: Site, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    where = ["--server", site.server.url, "--adapters", site.registry]
    status, text, errors = run_bench(capsys, "reproduce", finished, "--out", tmp_path / "again", *where)
    assert status == (0 if is_exact() else status), errors
    assert f"of {VIEWS * len(IDS)} predictions are the same" in text
    out = tmp_path / "run"
    words = site.words(out, "--discard-adapters", "--search", "dfs", "--min-prob", "0.2")
    assert run_bench(capsys, *words)[0] == 0
    assert digests(out) == digests(finished)
    assert not any((out / "adapters").glob("cross-*"))
    status, _, errors = run_bench(capsys, "reproduce", out, "--out", tmp_path / "other", *where)
    assert status == 1
    assert "--discard-adapters" in errors


def test_score_compare_gate_submit_and_report(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run_bench(capsys, "score", finished)[0] == 0
    assert run_bench(capsys, "submit", finished, "-o", tmp_path / "submission.json")[0] == 0
    copy = shutil.copytree(finished, tmp_path / "copy")
    status, table, errors = run_bench(capsys, "compare", finished, copy)
    assert (status, "no task differs" in table or "not resolved" in table) == (0, True), (table, errors)
    status = run_bench(capsys, "gate", finished, "--baseline", finished, "--min-gain", "0.5")[0]
    assert status in (1, 3)
    status, _, errors = run_bench(capsys, "report", finished, "-o", tmp_path / "report.md")
    assert status == 0, errors
    assert "### Test-time training" in (tmp_path / "report.md").read_text()


def test_each_task_is_rescored_by_its_own_adapter(site: Site, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    status, _, errors = run_bench(capsys, *site.words(out, "--resume", "--rescore", 2))
    assert status == 0, errors
    assert site.is_clean()
    lines = [json.loads(line) for line in (out / "rescores.jsonl").read_bytes().splitlines()][1:]
    assert {line["scorer"] for line in lines} == {"mine"}
    by_task = {name: [line for line in lines if line["task_id"] == name] for name in IDS}
    assert all(by_task.values())
    task, name = open_dataset(DATASET).task(0), IDS[0]
    version = add_adapter(site.registry, "plain", finished / "adapters" / name, str(TINY_BASE)).id
    admin.stage(site.server.url, version)
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    words = ["rescore", other, "--server", site.server.url, "--model", version, "--views", 2]
    assert run_bench(capsys, *words)[0] == 0
    expected = [json.loads(line) for line in (other / "rescores.jsonl").read_bytes().splitlines()][1:]
    key = ("test_index", "grid", "view")
    scores = {repr([line[k] for k in key]): line["logprob"] for line in expected if line["task_id"] == task.id}
    for line in by_task[name]:
        assert line["logprob"] == pytest.approx(scores[repr([line[k] for k in key])], abs=tolerance())
    admin.unload(site.server.url, version)
    Registry(site.registry).remove(version)
    assert run_bench(capsys, "score", out, "--rules", "all")[0] == 0


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
