"""The trainer for real: TRL in processes of its own on tiny models, killed, stopped, spread and served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.datasets import open_dataset
from harness.errors import AdapterError, ConfigError
from serve import admin
from serve.launcher import serving
from serve.registry import Registry
from tests.data_samples import barc_lines, task_json, write_lines
from tests.test_recipe import EXPERIMENT
from tests.tiny_qwen import make_model
from trainers.artifact import AdapterManifest, read_manifest, weights_digest
from trainers.merge import merge
from trainers.parity import check_parity
from trainers.progress import read_log
from trainers.recipe import make_recipe
from trainers.sft import train

pytestmark = pytest.mark.slow

STEPS, BATCH = 40, 6


Data = dict[str, Any]
FEW: Data = {"lora": {"rank": 8}, "max_steps": 8}


def recipe_data(model: Path | str, output: Path, **changes: Any) -> Data:
    return {
        "model": str(model),
        "output_dir": str(output),
        "datasets": [{"spec": "toy/cross#n=50", "weight": 1}, {"spec": "toy/copy#n=50", "weight": 2}],
        "prompt": "compact-v0",
        "encoder": "MinimalGridEncoder()",
        "max_steps": STEPS,
        "batch_size": BATCH,
        "max_seq_len": 800,
        "too_long": "skip",
        "learning_rate": 1e-3,
        "save_steps": 7,
        "threads": 1,
        "lora": {"rank": 8, "dropout": 0.1},
        **changes,
    }


def command(data: Data, folder: Path) -> list[str]:
    path = folder / f"{Path(data['output_dir']).name}.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML
    return ["-m", "harness.cli", "train", str(path)]


def bench(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, *arguments]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, error = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            kill(psutil.Process(process.pid))  # with what torchrun has started
            raise
    return subprocess.CompletedProcess(argv, process.returncode, out, error)


def kill(process: psutil.Process) -> None:
    for one in [*process.children(recursive=True), process]:
        one.kill()


def trained(data: Data, folder: Path) -> Path:
    done = bench(command(data, folder))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def interrupted(
    arguments: list[str], output: Path, steps: int, stop: Callable[[psutil.Process], None]
) -> tuple[int, str]:
    """Start, stop it once its log has ``steps`` lines; (exit status, standard error)."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = output / "log.jsonl"
    old = log.stat().st_ino if log.exists() else None  # a session that goes on writes the log anew
    process = subprocess.Popen([sys.executable, *arguments], env=env, stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while process.poll() is None and (not log.exists() or log.stat().st_ino == old or len(read_log(log)) < steps):
        assert time.monotonic() - started < 300
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    stop(psutil.Process(process.pid))
    error = process.communicate(timeout=120)[1]
    return process.returncode, error


def steps_of(folder: Path) -> list[Data]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder / "log.jsonl")]


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder / "log.jsonl")]


def manifest_of(folder: Path) -> AdapterManifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    return make_model(root / "tiny-qwen")


@pytest.fixture(scope="module")
def whole(root: Path, model: Path) -> Path:
    """An uninterrupted run with dropout."""
    return trained(recipe_data(model, root / "whole"), root)


@pytest.fixture(scope="module")
def plain(root: Path, model: Path) -> Path:
    """An uninterrupted run without dropout, and with a large rate, so that it differs much from the base."""
    return trained(recipe_data(model, root / "plain", lora={"rank": 8}, learning_rate=1e-2), root)


@pytest.fixture(scope="module")
def few(root: Path, model: Path) -> Path:
    """A few steps without dropout, each sample in a forward pass of its own."""
    return trained(recipe_data(model, root / "few", micro_batch_size=1, **FEW), root)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_killed_torn_and_stopped_it_ends_with_the_same_bits(root: Path, model: Path, whole: Path, workers: int) -> None:
    output = root / f"cut{workers}"
    arguments = command(recipe_data(model, output, workers=workers), root)
    status, _ = interrupted(arguments, output, 16, kill)
    assert status == -signal.SIGKILL
    newest = max((output / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    torn = newest / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:1000])
    assert read_manifest(output) is None
    status, error = interrupted(arguments, output, 18, lambda p: p.send_signal(signal.SIGTERM))
    assert status == 130
    assert "stopped by SIGTERM after step" in error
    assert newest.name in error
    assert not (output / "manifest.json").exists()
    finished = bench(arguments)
    assert finished.returncode == 0, finished.stderr
    assert steps_of(output) == steps_of(whole)
    assert weights_digest(output) == weights_digest(whole) == manifest_of(whole).weights_sha256
    assert manifest_of(output).datasets == manifest_of(whole).datasets


def test_two_processes_take_the_same_steps(root: Path, model: Path, few: Path) -> None:
    output = root / "two"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = bench([*launch, *command(recipe_data(model, output, **FEW), root)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["counts"] for line in steps_of(output)] == [line["counts"] for line in steps_of(few)]
    for one, two in zip(losses_of(few), losses_of(output), strict=True):
        assert abs(one - two) < 3e-4


def test_passes_do_not_change_the_gradient(root: Path, model: Path, few: Path) -> None:
    padded = trained(recipe_data(model, root / "padded", max_padding=0.9, **FEW), root)
    assert manifest_of(few).padding == 0
    assert manifest_of(padded).padding > 0.1
    for one, two in zip(losses_of(few), losses_of(padded), strict=True):
        assert abs(one - two) < 2e-4


def test_the_folder_says_what_it_is(whole: Path, model: Path) -> None:
    manifest = manifest_of(whole)
    assert manifest.steps == STEPS
    assert sum(d.drawn for d in manifest.datasets) == STEPS * BATCH
    assert [d.declared_share for d in manifest.datasets] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    assert [d.share for d in manifest.datasets] == pytest.approx([1 / 3, 2 / 3], abs=0.1)
    assert [d.digest for d in manifest.datasets] == [open_dataset(d.spec).digest() for d in manifest.datasets]
    assert manifest.answer_tokens < manifest.tokens
    assert manifest.padding < 0.05
    assert manifest.losses.last < manifest.losses.first
    assert {"torch", "trl", "peft"} <= set(manifest.environment.packages)
    assert (manifest.prompt, manifest.encoder) == ("compact-v0", "MinimalGridEncoder()")
    names = {path.name for path in whole.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {"README.md", "loss.png", "log.jsonl", "manifest.json"} <= names
    assert "checkpoints" not in names
    assert "toy/copy#n=50" in (whole / "README.md").read_text()


def test_finished_is_returned_at_once_and_changed_is_refused(whole: Path, model: Path) -> None:
    data = recipe_data(model, whole)
    before = (whole / "manifest.json").stat().st_mtime_ns
    assert train(make_recipe({**data, "workers": 1, "save_steps": 99}), whole) == whole
    assert (whole / "manifest.json").stat().st_mtime_ns == before
    changed = {**data, "seed": 5, "lora": {"rank": 4, "dropout": 0.1}}
    with pytest.raises(ConfigError, match=r"another recipe; changed: lora\.rank, seed\. Give another output_dir"):
        train(make_recipe(changed), whole)


def test_merged_model_answers_as_base_with_adapter(plain: Path, model: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(merge(str(model), plain, tmp_path / "merged"))
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        alone = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(plain))(input_ids=ids).logits
        assert torch.allclose(merged(input_ids=ids).logits, adapted, atol=1e-3)
        assert (alone - adapted).abs().max() > 0.1
    with pytest.raises(ConfigError, match="not empty"):
        merge(str(model), plain, tmp_path / "merged")
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        merge(str(model), model, tmp_path / "other")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("full", {"lora": None, "learning_rate": 1e-4, "gradient_checkpointing": True}, "model"),
        ("bf16", {"dtype": "bfloat16", "lora": {"rank": 4, "rslora": True, "targets": ["q_proj"]}}, "adapter"),
        ("dora", {"lora": {"rank": 4, "dora": True}, "serveable": False}, "adapter"),
    ],
)
def test_other_ways_to_train(root: Path, model: Path, name: str, changes: Data, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = trained(recipe_data(model, root / name, **({"max_steps": 4} | changes)), root)
    assert manifest_of(folder).kind == kind
    assert (folder / "config.json").exists() == (kind == "model")
    if kind == "model":
        network = AutoModelForCausalLM.from_pretrained(folder)
        assert network.config.vocab_size == 320


def test_going_on_from_an_adapter_starts_where_it_ended(root: Path, model: Path, plain: Path) -> None:
    check = {"spec": "toy/cross/evaluation#n=8", "max_tasks": 8}
    data = recipe_data(model, root / "further", adapter=str(plain), lora={"rank": 8}, max_steps=4, seed=1)
    further = trained({**data, "validation": check, "eval_steps": 2}, root)
    assert losses_of(plain)[0] - read_log(further / "log.jsonl")[0]["loss"] > 0.5
    checks = [line for line in read_log(further / "log.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in checks] == [2, 4]
    assert manifest_of(further).losses.validation == {"loss": checks[-1]["eval_loss"]}


def test_bad_recipes_end_in_one_clear_line(root: Path, model: Path) -> None:
    cases: list[tuple[Data, str]] = [
        ({"max_seq_len": 4000}, "over the model's context of 2048"),
        ({"lora": {"targets": ["nothing"]}}, "nothing"),
        ({"max_seq_len": 50}, "cannot supply the mixture"),
    ]
    for k, (changes, expected) in enumerate(cases):
        done = bench(command(recipe_data(model, root / f"bad{k}", **changes), root))
        assert done.returncode in (1, 2)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert expected in last
        assert "Traceback" not in done.stderr


@pytest.mark.long
def test_the_two_commands_of_the_experiment_run(root: Path) -> None:
    for split in ("training", "evaluation"):
        dataset = open_dataset(f"arc1/{split}")
        tasks = {dataset.ids[k]: task_json(dataset.task(k)) for k in range(len(dataset.ids))}
        (root / f"{split}.json").write_text(json.dumps(tasks))
    barc = write_lines(root / "barc.jsonl", barc_lines(60, 12))
    own = ["--train_datasets", str(root / "training.json"), "output-from-examples-v1"]
    other = ["--train_datasets", f"barc-400-10-{barc}", "output-from-examples-v1"]
    check = ["--val_dataset", str(root / "evaluation.json"), "output-from-examples-v1"]
    less = [
        "-o",
        "max_steps=2",
        "-o",
        "batch_size=3",
        "-o",
        "threads=1",
        "-o",
        "validation.max_tasks=3",
    ]  # else as given, to save time
    for name, data in (("both", [*own, *other]), ("barc", other)):
        paths = ["--model_path", "tiny", "--output_dir", str(root / name)]
        done = bench(["-m", "harness.cli", "train", *paths, *data, *check, *EXPERIMENT, *less])
        assert done.returncode == 0, done.stderr
        manifest = manifest_of(root / name)
        assert [d.ids for d in manifest.datasets] == ([400, 400] if name == "both" else [400])
        assert manifest.seed == 7


def test_a_trained_adapter_solves_its_family_and_stops_by_itself(root: Path) -> None:
    """An answer counts as exact only where the model ended it itself."""
    check = {"spec": "toy/diagonal/evaluation#n=40", "exact_tasks": 40}
    data = recipe_data("tiny", root / "diagonal", datasets=["toy/diagonal#n=2000"], validation=check, eval_steps=40)
    data |= {"batch_size": 32, "learning_rate": 4e-3, "lora": {"rank": 16}, "max_steps": 40, "save_steps": 40}
    assert manifest_of(trained(data, root)).losses.validation["exact"] > 0.7


def test_the_server_has_the_model_that_was_trained(root: Path, model: Path, plain: Path) -> None:
    registry = Registry(root / "adapters")
    version = registry.add("plain", plain)
    with serving(model, registry.root, log=root / "server.log", dtype="float32") as server:
        admin.load(server.url, version.id)
        parity = check_parity(plain, server.url, "plain")
        assert parity.tokens > 50
        assert parity.holds, parity
        base = check_parity(plain, server.url, model.name)
        assert base.difference > 0.1
