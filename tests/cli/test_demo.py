"""``bench demo`` with real processes: its results, what it reuses, and that it stops its server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from harness.core.augmentation import sampling_view
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.folder import RunFolder
from serve.registry.store import Registry
from tests.support.runs.run_folders import edit_manifest, load_records
from trainers.tiny.train import shipped_path

TASKS = 16
COMMAND = [sys.executable, "-m", "harness.cli", "demo", "--tasks", str(TASKS), "--out"]


def accuracy(out: Path, dataset: str, model: str) -> float:
    """Return the accuracy of a model in one of the demo's runs."""
    results = json.loads((out / "bench" / dataset / "results.json").read_text())
    return float(results["models"][model]["metrics"]["accuracy"]["value"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.mark.slow
def test_adapters_differ_for_a_visible_reason(finished: Path) -> None:
    for family in ("cross", "diagonal"):
        assert accuracy(finished, family, family) > 0.8
        assert accuracy(finished, family, "mix") > 0.7
        assert accuracy(finished, family, "tiny-base") < 0.1
        other = {"cross": "diagonal", "diagonal": "cross"}[family]
        assert accuracy(finished, family, other) < accuracy(finished, family, family) - 0.2
    assert accuracy(finished, "edge", "tiny-base") > 0.5
    report = (finished / "report.md").read_text()
    for text in ("| cross ", "better than **tiny-base**", "BCa bootstrap", "Next steps", "arc1/evaluation"):
        assert text in report
    for name in re.findall(r"\]\(([^)]+\.png)\)", report):
        assert (finished / name).stat().st_size > 10_000


@pytest.mark.slow
def test_test_time_training_learns_a_family_that_nothing_was_trained_on(finished: Path) -> None:
    assert accuracy(finished, "centre-ttt", "ttt") > 0.5
    assert accuracy(finished, "centre-before", "tiny-base") < accuracy(finished, "centre-ttt", "ttt") - 0.2
    for name in ("centre-ttt", "arc1-ttt"):
        manifest = RunFolder(finished / "bench" / name).manifest()
        assert manifest.protocol is not None
        assert manifest.protocol.label == "demonstrations of these tasks at test time"
    assert (finished / "report.md").read_text().count("### Test-time training\n") == 2
    assert not Registry(finished / "adapters").versions("ttt-centre-000000")


@pytest.mark.slow
def test_a_demo_of_an_earlier_version_is_completed(finished: Path, tmp_path: Path) -> None:
    """Without the runs of test-time training, which it did not make, only these are made."""
    for name in ("arc1-before", "arc1-ttt"):
        shutil.move(finished / "bench" / name, tmp_path / name)
    watched = list(finished.glob("bench/*/predictions.jsonl"))
    before = [path.stat().st_mtime_ns for path in watched]
    done = subprocess.run([*COMMAND, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [path.stat().st_mtime_ns for path in watched] == before
    for name in ("arc1-before", "arc1-ttt"):
        assert load_records(finished / "bench" / name), name


@pytest.mark.slow
def test_a_second_call_repeats_no_step(finished: Path) -> None:
    watched = [*finished.glob("trained/*/adapter_model.safetensors"), *finished.glob("bench/*/predictions.jsonl")]
    watched.append(finished / "server.log")
    before = [path.stat().st_mtime_ns for path in watched]
    report = (finished / "report.md").read_bytes()
    done = subprocess.run([*COMMAND, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.stat().st_mtime_ns for path in watched] == before
    assert (finished / "report.md").read_bytes() == report


@pytest.mark.slow
def test_an_interrupt_stops_the_server_and_the_next_call_resumes(finished: Path) -> None:
    from transformers import AutoTokenizer

    run = finished / "bench" / "cross"
    whole = (run / "results.json").read_bytes()
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "results.json").unlink()
    edit_manifest(run, finished=None)
    (run / "predictions.jsonl").write_bytes(b"".join(lines[:100]) + lines[100][:20])
    tokenizer = AutoTokenizer.from_pretrained(shipped_path())
    child = subprocess.Popen(
        [*COMMAND, str(finished)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("serving at"):
            check_token_ids(line.split()[-1], tokenizer)
            break
    os.killpg(child.pid, signal.SIGINT)
    rest = child.stdout.read()
    assert child.wait(90) == 130, rest
    assert not servers_of(finished)
    done = subprocess.run([*COMMAND, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not servers_of(finished)
    again, before = json.loads((run / "results.json").read_bytes()), json.loads(whole)
    assert again["models"] == before["models"]


def check_token_ids(url: str, tokenizer: Any) -> None:
    """Check that the server tokenizes the harness's chats to the token ids of the trainer, also for real tasks."""
    name = shipped_path().name
    for spec, prompt_name, encoder in (
        ("toy/edge/evaluation#n=3", "compact-v0", "MinimalGridEncoder()"),
        ("arc1/evaluation#n=2", "output-from-examples-v1", DEFAULT_ENCODER),
    ):
        prompt, grids = load_prompt(prompt_name), parse_encoder(encoder)
        made = PromptTokenizer(tokenizer, prompt, grids)
        for task in iterate_tasks(open_dataset(spec)):
            seen = sampling_view(7, task.id, 3, len(task.train)).apply_task(task)
            messages = [{"role": m.role, "content": m.content} for m in prompt.messages(seen, 0, grids)]
            ids = post(f"{url}/tokenize", {"model": name, "messages": messages})["tokens"]
            assert ids == list(made.prompt_ids(seen, 0)), task.id
            if spec.startswith("arc1"):
                answer = post(f"{url}/v1/chat/completions", {"model": name, "messages": messages, "max_tokens": 1})
                assert answer["usage"]["prompt_tokens"] == len(ids)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST JSON and read JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        answer: dict[str, Any] = json.load(reply)
        return answer


def servers_of(out: Path) -> list[str]:
    """Return the process ids of servers that use this demo's registry; wait a few seconds for them to end."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = entry.read_bytes() + entry.with_name("cmdline").read_bytes()
            except OSError:
                continue
            if str(out / "adapters").encode() in text:
                found.append(entry.parent.name)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
