"""Failures before and during training are one line each: bad input, missing packages, no memory; and the dry run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.core.errors import DataError, RunError
from harness.data.spec import open_dataset
from tests.support.data_samples import task_json
from tests.support.training.recipes import SMALL
from tests.support.training.train_runs import Data, last_error_line, recipe_data, run_python, train_command
from trainers.data.mixture import open_mixture
from trainers.model.tokenizer import load_tokenizer
from trainers.recipe.schema import make_recipe
from trainers.store.training_log import read_log

pytestmark = pytest.mark.slow


LITTLE_MEMORY = """
import resource, sys
import trainers.run.dry_run
from harness.cli import cli
from harness.cli.entry import run_cli

with open("/proc/self/status") as file:
    size = next(int(line.split()[1]) for line in file if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + 400 * 2**20, resource.RLIM_INFINITY))
sys.exit(run_cli(cli, sys.argv[1:]))
"""


def error_of_refused_recipe(data: Data, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error line of a recipe that is refused before training."""
    status = run_cli(cli, train_command(data)[2:])
    assert status in (1, 2)
    last = last_error_line(capsys.readouterr().err)
    assert last.startswith("error: ")
    assert read_log(Path(data["output_dir"]) / "log.jsonl") == []
    return last


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "nowhere"}, "model 'nowhere': no such folder"),
        ({"adapter": "nowhere"}, "adapter 'nowhere': no adapter_config.json there"),
        ({"max_seq_len": 4000}, "over the model's context of 2048"),
        ({"max_seq_len": 50}, "cannot supply the mixture"),
        ({"lora": {"targets": ["nothing"]}}, "nothing"),
        ({"datasets": "nowhere.json"}, "nowhere.json"),
        ({"validation": "toy/copy"}, "validation"),
        ({"sharding": "fsdp"}, "needs GPUs and at least two processes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_recipes_are_refused(
    tmp_path: Path, qwen: Path, changes: Data, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in error_of_refused_recipe({**recipe_data(qwen, tmp_path / "bad"), **changes}, capsys)


@pytest.mark.parametrize(
    ("changes", "packages"),
    [
        ({"report_to": "tensorboard"}, ["tensorboard", "tensorboardX"]),
        ({"report_to": "wandb"}, ["wandb"]),
        ({"report_to": "trackio"}, ["trackio"]),
        ({"report_to": "mlflow"}, ["mlflow"]),
        ({"quantize_4bit": True}, ["bitsandbytes"]),
    ],
)
def test_missing_packages_are_named(
    tmp_path: Path,
    changes: Data,
    packages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    extra = f'-e ".[{changes["report_to"]}]"' if "report_to" in changes else packages[0]
    expected = f"needs {packages[0]}, not installed here: pip install {extra}"
    assert expected in error_of_refused_recipe(recipe_data("tiny", tmp_path / "bad", **changes), capsys)


def test_damaged_models_and_adapters_are_refused(
    tmp_path: Path, qwen: Path, plain_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(qwen, tmp_path / "model")
    data = recipe_data(model, tmp_path / "out", lora={"rank": 8})
    weights = model / "model.safetensors"
    adapter = shutil.copytree(plain_run, tmp_path / "adapter")
    other = {"lora": {"rank": 4, "alpha": 5}, "adapter": str(adapter)}
    assert "set lora.rank=8, lora.alpha=32" in error_of_refused_recipe({**data, **other}, capsys)
    (adapter / "adapter_model.safetensors").write_bytes(b"short")
    assert f"{adapter}: its weights are not what training wrote" in error_of_refused_recipe(
        {**data, "adapter": str(adapter)}, capsys
    )
    (adapter / "manifest.json").unlink()
    assert f"adapter '{adapter}' cannot be loaded on" in error_of_refused_recipe(
        {**data, "adapter": str(adapter)}, capsys
    )
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"model '{model}' cannot be loaded" in error_of_refused_recipe(data, capsys)
    weights.unlink()
    assert f"model '{model}' cannot be loaded" in error_of_refused_recipe(data, capsys)


def test_a_missing_hub_model_is_refused(tmp_path: Path) -> None:
    done = run_python(train_command(recipe_data("nobody/no-such-model", tmp_path / "out")))
    assert done.returncode == 2
    expected = "error: model nobody/no-such-model: it is not in the Hugging Face cache, and HF_HUB_OFFLINE forbids the "
    assert last_error_line(done.stderr).startswith(expected)


def test_datasets_without_outputs_are_refused(tmp_path: Path, qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [open_dataset("toy/copy#n=5").task(k) for k in range(5)]
    path = tmp_path / "silent.json"
    silent = {task.id: {**task_json(task), "test": [{"input": task.test[0].input.to_rows()}]} for task in tasks}
    path.write_text(json.dumps(silent), encoding="utf-8")
    data = recipe_data(qwen, tmp_path / "out")
    assert "had no output; use a dataset with known test outputs" in error_of_refused_recipe(
        {**data, "datasets": str(path)}, capsys
    )
    check = {"validation": {"spec": str(path)}}
    assert "no task with a known output fits in 800 tokens" in error_of_refused_recipe({**data, **check}, capsys)


def test_an_output_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    data = recipe_data(qwen, tmp_path / "below") | {"output_dir": str(tmp_path / "file" / "out")}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert run_cli(cli, ["train", str(path)]) == 2
    assert "file/out cannot be written: Not a directory" in last_error_line(capsys.readouterr().err)


def test_the_dry_run_writes_nothing(tmp_path: Path, qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = recipe_data(qwen, tmp_path / "out", datasets="toy/cross#n=50", validation={"spec": "toy/cross"})
    assert run_cli(cli, [*train_command(data, "--dry-run", "--json", "-")[2:]]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.yaml"]
    assert result["schedule"]["steps"] == 40
    assert result["schedule"]["tokens"] > 40 * 6 * 100
    assert result["schedule"]["most_tokens"]["tokens"] >= result["schedule"]["tokens"] / 40
    assert result["peak_memory"] > 2**27
    assert result["tokens_per_second"] > 10


def test_out_of_memory_says_what_to_change(train_root: Path, qwen: Path) -> None:
    data = recipe_data(qwen, train_root / "big", batch_size=512, max_padding=0.9, tokens_a_pass=10**6, max_steps=1)
    done = run_python(["-c", LITTLE_MEMORY, *train_command(data, "--dry-run")[2:]])
    assert done.returncode == 1
    last = last_error_line(done.stderr)
    assert last.startswith("error: out of memory (")
    same = "with the same result but for other draws of dropout: tokens_a_pass=500000, micro_batch_size=1, "
    same += "gradient_checkpointing=true. "
    other = "Then, with another: dtype=bfloat16, quantize_4bit=true, max_seq_len=400, lora.rank=4, or a smaller model"
    assert last.endswith(f"Change, in this order, {same}{other}")


@pytest.mark.parametrize(
    ("killed", "error", "expected"),
    [
        (False, DataError, r"^dataset 'toy/copy#n=9' cannot supply the mixture: [^\n]*$"),
        (True, RunError, r"^DataLoader worker [^\n]*\. Set workers=0, or fewer where memory is short\. The check"),
    ],
)
def test_an_error_in_a_worker_is_one_line(qwen: Path, killed: bool, error: type[Exception], expected: str) -> None:
    from torch.utils.data import DataLoader

    from trainers.data.hf_dataset import MixtureDataset
    from trainers.run.errors import explain_training_errors

    def batch(rows: list[object]) -> list[object]:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    toys, length = [open_dataset("toy/copy#n=9")], 800 if killed else 20
    tokenizer = load_tokenizer(qwen)
    options = {"encoder": "MinimalGridEncoder()", "seed": 0, "max_seq_len": length}
    mixture = open_mixture(toys, ["compact-v0"], [1], tokenizer, **options)
    loader = DataLoader(MixtureDataset.from_mixture(mixture, range(4)), num_workers=1, collate_fn=batch)
    with pytest.raises(error, match=expected), explain_training_errors(make_recipe(SMALL)):
        list(loader)
