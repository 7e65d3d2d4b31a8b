"""The trained folder: its files and manifest, merging, serving, and answers that end."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.core.errors import AdapterError, ConfigError
from harness.data.spec import open_dataset
from serve.client import admin
from serve.launch.process import serving
from serve.registry.store import Registry
from tests.support.training.train_runs import (
    BATCH,
    FEW_STEPS,
    STEPS,
    Data,
    adapter_manifest,
    recipe_data,
    run_python,
    train_adapter,
    train_command,
)
from tests.support.vllm.dtypes import SERVE_OPTIONS
from trainers.commands.cli import train
from trainers.commands.merge import merge
from trainers.commands.parity import check_parity
from trainers.recipe.files.yaml_file import load_recipe

pytestmark = pytest.mark.slow


def test_a_trained_folder_has_its_manifest_and_files(whole_run: Path) -> None:
    manifest = adapter_manifest(whole_run)
    assert (manifest.steps, manifest.kept_step, manifest.ended) == (STEPS, STEPS, "max_steps")
    assert sum(d.drawn for d in manifest.datasets) == STEPS * BATCH
    assert [d.declared_share for d in manifest.datasets] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    assert [d.share for d in manifest.datasets] == pytest.approx([1 / 3, 2 / 3], abs=0.1)
    assert [d.digest for d in manifest.datasets] == [open_dataset(d.spec).digest() for d in manifest.datasets]
    assert manifest.answer_tokens < manifest.tokens
    assert manifest.padding < 0.05
    assert manifest.losses.last < manifest.losses.first
    assert {"torch", "trl", "peft"} <= set(manifest.environment.packages)
    assert (manifest.prompt, manifest.encoder) == ("compact-v0", "MinimalGridEncoder()")
    names = {path.name for path in whole_run.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {"README.md", "loss.png", "log.jsonl", "manifest.json"} <= names
    assert "checkpoints" not in names
    assert "toy/copy#n=50" in (whole_run / "README.md").read_text()


def test_merged_model_answers_as_base_with_adapter(plain_run: Path, qwen: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(merge(str(qwen), plain_run, tmp_path / "merged"))
    base = AutoModelForCausalLM.from_pretrained(qwen)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        alone = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(plain_run))(input_ids=ids).logits
        assert torch.allclose(merged(input_ids=ids).logits, adapted, atol=1e-3)
        assert (alone - adapted).abs().max() > 0.1
    with pytest.raises(ConfigError, match="not empty"):
        merge(str(qwen), plain_run, tmp_path / "merged")
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        merge(str(qwen), qwen, tmp_path / "other")


def test_merged_dora_answers_as_peft_does(qwen: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(qwen)
    config = LoraConfig(r=4, target_modules="all-linear", use_dora=True, init_lora_weights=False, task_type="CAUSAL_LM")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        alone = base(input_ids=ids).logits
    dora = get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in dora.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(1.2)  # what training changes beside the directions
    dora.save_pretrained(tmp_path / "dora")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(qwen), str(tmp_path / "dora"))
    merged = AutoModelForCausalLM.from_pretrained(merge(str(qwen), tmp_path / "dora", tmp_path / "merged"))
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-3)
        assert (alone - expected).abs().max() > 0.1


def test_a_trained_adapter_solves_its_family_and_ends_its_answers(train_root: Path) -> None:
    """An answer is exact only if the model ended it."""
    check = {"spec": "toy/diagonal/evaluation#n=40", "exact_tasks": 40}
    data = recipe_data("tiny", train_root / "diagonal", datasets=["toy/diagonal#n=2000"], validation=check)
    data |= {"batch_size": 16, "learning_rate": 4e-3, "lora": {"rank": 16}, "max_steps": 30, "save_steps": 30}
    assert adapter_manifest(train_adapter(data)).losses.validation["exact"] > 0.7


def test_parity_holds_for_the_served_adapter_only(train_root: Path, qwen: Path, plain_run: Path) -> None:
    registry = Registry(train_root / "adapters")
    version = registry.add("plain", plain_run)
    with serving(qwen, registry.root, log=train_root / "server.log", **SERVE_OPTIONS) as server:
        admin.load(server.url, version.id)
        parity = check_parity(plain_run, server.url, "plain")
        assert parity.tokens > 50
        assert parity.holds, parity
        base = check_parity(plain_run, server.url, qwen.name)
        assert base.difference > 0.1


def test_parity_with_a_16_bit_server(
    train_root: Path, qwen: Path, plain_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right adapter passes, also at the end of a training; the base and an alpha 1.5 times as large fail."""
    louder = shutil.copytree(plain_run, train_root / "louder")
    settings = json.loads((louder / "adapter_config.json").read_text())
    (louder / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 1.5 * settings["lora_alpha"]}))
    (louder / "manifest.json").unlink()
    registry = Registry(train_root / "rounded")
    wrong = registry.add("louder", louder).id
    with serving(
        qwen, registry.root, log=train_root / "rounded.log", **{**SERVE_OPTIONS, "dtype": "bfloat16"}
    ) as server:
        admin.load(server.url, wrong)
        recipe = train_command(recipe_data(qwen, plain_run, lora={"rank": 8}, learning_rate=1e-2))
        done = run_python([*recipe, "--server", server.url, "--adapters", str(registry.root)])
        assert done.returncode == 0, done.stderr
        assert "server in bfloat16: the server has the model that was trained" in done.stderr
        right = json.loads((plain_run / "parity.json").read_text())
        with capsys.disabled():
            print(right)
        assert (right["dtype"], right["holds"]) == ("bfloat16", True)
        for model in (wrong, qwen.name):
            parity = check_parity(plain_run, server.url, model)
            assert not parity.holds, parity
            other = run_python(
                ["-m", "harness.cli", "parity", str(plain_run), "--server", server.url, "--model", model]
            )
            assert (other.returncode, "PARITY FAILED" in other.stderr) == (1, True)
        exact = run_python(["-m", "harness.cli", "parity", str(plain_run), "--server", server.url, "--model", "plain",
                       "--dtype", "float32"])  # fmt: skip
        assert "or the server computes in 16 bits (then give bench parity its --dtype)" in exact.stderr


def test_a_fully_trained_model_is_served(train_root: Path, qwen: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    changes = {**FEW_STEPS, "lora": None, "learning_rate": 1e-2}
    folder = train_adapter(recipe_data(qwen, train_root / "whole-model", **changes))
    ids = list(range(40))
    with torch.no_grad():
        expected, before = (
            torch.log_softmax(AutoModelForCausalLM.from_pretrained(one)(input_ids=torch.tensor([ids])).logits[0], -1)
            for one in (folder, qwen)
        )
    assert (expected - before).abs().max() > 0.1
    body = {"model": folder.name, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    eager = ("--enforce-eager",)  # without adapters vLLM would compile, for 15 s
    with serving(folder, None, log=train_root / "whole.log", dtype="float32", extra=eager) as server:
        reply = post_json(f"{server.url}/v1/completions", body)
    logprobs = reply["choices"][0]["prompt_logprobs"]
    for k in range(1, len(ids)):
        assert logprobs[k][str(ids[k])]["logprob"] == pytest.approx(float(expected[k - 1, ids[k]]), abs=1e-3)


def post_json(url: str, body: Data) -> Data:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return dict(json.load(reply))


def test_the_manifest_records_the_files_of_a_recipe_that_extends_another(
    qwen: Path, plain_run: Path, tmp_path: Path
) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    data = recipe_data(qwen, tmp_path / "unused", **FEW_STEPS)
    base.write_text(json.dumps(data))
    child.write_text(json.dumps({"extends": "base.yaml", "output_dir": str(tmp_path / "out"), "seed": 9}))
    result = CliRunner().invoke(train, [str(child), "--no-progress"], catch_exceptions=False)
    assert result.exit_code == 0
    manifest = adapter_manifest(tmp_path / "out")
    assert manifest.recipe == load_recipe(child).model_dump(mode="json")
    assert (manifest.recipe["seed"], manifest.recipe["max_steps"]) == (9, data["max_steps"])
    files = [(record.path, record.sha256) for record in manifest.recipe_files or []]
    assert files == [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in (child, base)]
    assert "recipe_files" not in (plain_run / "manifest.json").read_text()
