"""What the trainer checks beside the recipe: GPUs in sight, adapters to go on from, bases to merge into, validation."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.errors import AdapterError, ConfigError, DataError, RunError
from harness.core.hub_cache import model_digest
from harness.core.random_stream import Stream
from harness.data.dataset import TaskList
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer, TrainingSample
from tests.support.data_samples import random_task, task_json
from tests.trainers.test_mixture import _without_outputs, tokenizer
from tests.trainers.test_recipe import SMALL
from trainers.commands.merge import merge
from trainers.commands.parity import Parity, _largest, _over_http
from trainers.model.chat_template import load_tokenizer
from trainers.model.inputs import find_base, open_inputs
from trainers.model.lora import check_lora
from trainers.recipe.schema import LoraRecipe, changed_keys, make_recipe
from trainers.run.api import train
from trainers.run.validation import open_validation
from trainers.store.manifest import (
    PARITY,
    AdapterManifest,
    DatasetRecord,
    summarize_losses,
    training_environment,
    write_json,
    write_manifest,
)
from trainers.store.run_folder import STARTED, prepare_folder

MINIMAL = "MinimalGridEncoder()"


@pytest.mark.slow
def test_one_process_takes_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several in sight, transformers would take as many times the samples of a step."""
    import torch

    from trainers.run.trl_config import training_arguments

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    arguments = training_arguments(make_recipe(SMALL), 6, tmp_path, torch.float32)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("major", "auto"), [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")])
def test_auto_takes_no_emulated_bfloat16(monkeypatch: pytest.MonkeyPatch, major: int, auto: str) -> None:
    """On a V100 or T4, torch calls bfloat16 supported, because it emulates it."""
    import torch

    from trainers.run.errors import memory_advice
    from trainers.run.trl_config import chosen_dtype

    recipe = make_recipe({key: value for key, value in SMALL.items() if key != "dtype"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert torch.cuda.is_bf16_supported()
    assert chosen_dtype(recipe) == getattr(torch, auto)
    assert ("dtype=float16" in memory_advice(recipe)) is (major < 8)
    assert chosen_dtype(recipe.model_copy(update={"dtype": "bfloat16"})) == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ({}, []),
        ({"r": 4, "lora_alpha": 5}, ["lora.rank=4", "lora.alpha=5"]),
        ({"lora_dropout": 0.1}, ["lora.dropout=0.1"]),
        ({"bias": "all"}, ['lora.bias="all"']),
        ({"modules_to_save": ["lm_head"]}, ['lora.modules_to_save=["lm_head"]']),
        ({"layers_to_transform": [0]}, ["lora.layers=[0]"]),
        ({"rank_pattern": {"q_proj": 4}}, ['lora.rank_pattern={"q_proj": 4}']),
        ({"init_lora_weights": "gaussian"}, []),
        ({"init_lora_weights": "pissa"}, ['lora.init="pissa"']),
    ],
)
def test_an_adapter_that_is_gone_on_from_is_what_the_recipe_says(saved: dict[str, Any], named: list[str]) -> None:
    from trainers.model.lora import lora_config, recipe_differences

    said = LoraRecipe(targets=["q_proj", "v_proj"])
    found = lora_config(said)
    for name, value in saved.items():
        setattr(found, name, value)
    assert recipe_differences(found, said) == named


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_an_adapter_on_other_modules_is_not_gone_on_from(tmp_path: Path, targets: str | list[str]) -> None:
    from peft import get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from trainers.model.lora import lora_config
    from trainers.model.start_adapter import load_start_adapter

    base, folder = find_base("tiny"), tmp_path / "adapter"
    recipe = make_recipe({**SMALL, "adapter": str(folder), "lora": {"targets": targets}})
    assert recipe.lora is not None
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora_config(recipe.lora)).save_pretrained(folder)
    load_start_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)
    other = recipe.model_copy(update={"lora": LoraRecipe(targets=["q_proj", "k_proj"])})
    with pytest.raises(ConfigError, match=r'is another than the recipe says; set lora\.targets=\["'):
        load_start_adapter(AutoModelForCausalLM.from_pretrained(base), other)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in weights.items() if ".layers.0." in name and ".q_proj." in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"its weights are not on the modules .* \d+ differ, such as model\.layers"):
        load_start_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)


def test_an_initialisation_that_cannot_be_repeated_is_refused() -> None:
    for serveable in (True, False):
        data = {**SMALL, "lora": {"init": "pissa_niter_4"}, "serveable": serveable}
        with pytest.raises(ConfigError, match="would find another base than was trained on; use pissa"):
            check_lora(make_recipe(data))


def test_what_is_no_number_fails_parity() -> None:
    assert _largest([[-1.0, -2.0]], [[-1.5, -2.0]]) == 0.5
    for values in ([-1.0, math.nan], [math.nan, -1.0]):
        assert not Parity(2, _largest([values], [[-1.0, -1.0]]), 0.5).holds


def test_parity_asks_the_server_itself_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"prompt_logprobs": [null, {"5": {"logprob": -0.5}}]}]}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert _over_http(f"http://127.0.0.1:{server.server_port}", "m", TrainingSample([4, 5], 1), None) == [-0.5]
        thread.join()


def test_starting_over_forgets_the_parity_of_the_old_weights(tmp_path: Path) -> None:
    for name in (STARTED, PARITY):
        write_json(tmp_path / name, {})
    assert not prepare_folder(tmp_path, {"seed": 1}, resume=False)
    assert not (tmp_path / PARITY).exists()


@pytest.mark.parametrize("key", ["tokens_a_pass", "micro_batch_size", "max_padding"])
def test_a_run_that_is_resumed_with_other_passes_is_told_what_that_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    begun = {"seed": 1, "tokens_a_pass": 9, "micro_batch_size": None, "max_padding": 0.5}
    write_json(tmp_path / STARTED, begun)
    assert not prepare_folder(tmp_path, begun, resume=True)
    assert capsys.readouterr().err == ""
    assert not prepare_folder(tmp_path, {**begun, key: 0.25}, resume=True)
    said = capsys.readouterr().err
    assert said.startswith(
        f"warning: resuming with {key} {begun[key]} -> 0.25: dropout, where there is any, draws other"
    )
    assert not prepare_folder(tmp_path, {**begun, key: 0.25}, resume=True)  # is how it was begun by now
    assert capsys.readouterr().err == ""
    write_json(tmp_path / STARTED, {"seed": 1})  # as older versions wrote it
    assert not prepare_folder(tmp_path, {**begun, key: 0.25}, resume=True)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="of another recipe; changed: seed"):
        prepare_folder(tmp_path, {**begun, "seed": 2, key: 1}, resume=True)


def test_what_has_moved_is_the_same_where_its_content_is(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    begun = {
        "model": "/a", "model (its content)": "1" * 16, "adapter": "/b", "adapter (its content)": "2",
        "datasets.0.spec": "/c", "datasets.0 (its content)": "3",
        "validation.spec": "/d", "validation (its content)": "4",
    }  # fmt: skip
    moved = {key: f"/moved{value}" if "(" not in key else value for key, value in begun.items()}
    for key in ("model", "adapter", "datasets.0.spec", "validation.spec"):
        content = f"{key.removesuffix('.spec')} (its content)"
        write_json(tmp_path / STARTED, begun)
        both = ", ".join(sorted((key, content)))
        with pytest.raises(ConfigError, match=rf"changed: {re.escape(both)}\. Give"):
            prepare_folder(tmp_path, {**moved, content: "other"}, resume=True)
        write_json(tmp_path / STARTED, {**begun, content: None})  # nothing says what it was
        with pytest.raises(ConfigError, match=re.escape(f"changed: {key}")):
            prepare_folder(tmp_path, {**begun, key: "/x", content: None}, resume=True)
    write_json(tmp_path / STARTED, begun)
    assert not prepare_folder(tmp_path, moved, resume=True)
    assert not prepare_folder(tmp_path, begun, resume=True)


def test_a_hub_base_of_an_older_run_is_known_by_its_commit(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    write_json(tmp_path / STARTED, {"model": "a/b", "model (its content)": "c" * 40})
    now = {"model": "a/b", "model (its content)": "1" * 16}
    with pytest.raises(ConfigError, match=r"changed: model \(its content\)"):
        prepare_folder(tmp_path, now, resume=True, commit="d" * 40)
    assert not prepare_folder(tmp_path, now, resume=True, commit="c" * 40)
    assert not prepare_folder(tmp_path, now, resume=True, commit="e" * 40)  # recorded by its content by now


def test_an_adapter_is_not_merged_into_another_base(tmp_path: Path) -> None:
    write_json(tmp_path / "adapter_config.json", {})
    base = find_base("tiny")
    assert isinstance(base, Path)
    summarize_losses = {"first": 1, "last": 1, "mean_of_last_10": 1, "validation": {}}
    counts = dict.fromkeys(("seed", "steps", "kept_step", "tokens", "answer_tokens", "padding", "seconds"), 0)
    words = dict.fromkeys(("prompt", "prompt_digest", "encoder", "weights_sha256", "finished"), "")
    rest = {"kind": "adapter", "recipe": {}, "datasets": [], "ended": "max_steps", "serveable": True}
    there = {"environment": training_environment().model_dump(), "losses": summarize_losses, **counts, **words, **rest}
    other = {"name": "other", "digest": model_digest(base)[::-1]}
    write_manifest(tmp_path, AdapterManifest.model_validate({**there, "base": other}))
    with pytest.raises(AdapterError, match="was trained on 'other'"):
        merge("tiny", tmp_path, tmp_path / "merged")


def _without_a_weight(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def _of_other_shapes(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 2 * config["intermediate_size"]}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_without_a_weight, "1 weights are missing, such as model.layers.0.mlp.down_proj.weight"),
        (_of_other_shapes, r"its weights have other shapes than its config\.json"),
    ],
)
def test_a_base_that_would_be_random_in_part_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    import torch

    from trainers.run.load import _load_base

    model = shutil.copytree(find_base("tiny"), tmp_path / "model")
    damage(model)
    inputs = open_inputs(make_recipe({**SMALL, "model": str(model), "max_seq_len": 100}))
    with pytest.raises(ConfigError, match=expected):
        _load_base(inputs, torch.float32)


@pytest.mark.slow
def test_greedy_answers_ignore_the_penalties_of_a_model() -> None:
    """Qwen's own generation settings punish repetition, which ruins grids."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(find_base("tiny"))
    tokens = PromptTokenizer(load_tokenizer(find_base("tiny")), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    held = open_dataset("toy/copy/evaluation#n=4")
    found = open_validation(held, tokens, max_seq_len=512, max_tasks=4, exact_tasks=4, pad_id=0)
    plain = found._exact(model, found.tasks, "cpu")
    model.generation_config.update(repetition_penalty=1.5, no_repeat_ngram_size=2)
    assert found._exact(model, found.tasks, "cpu") == plain > 1


def test_validation_data_are_part_of_what_decides(tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    data = {**SMALL, "validation": {"spec": str(held), "keep": "best", "prompt": "compact-v0"}}
    found = []
    for k in range(2):
        held.write_text(json.dumps({"t": task_json(random_task(Stream("held out", k), 2, 5, "t"))}))
        found.append(open_inputs(make_recipe(data)).deciding_values())
    assert changed_keys(*found) == ["validation (its content)"]
    assert found[0]["prompt compact-v0 (its text)"] == load_prompt("compact-v0").digest


@pytest.mark.parametrize("key", ["model", "adapter"])
def test_what_is_trained_from_is_not_written_over(tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(find_base("tiny"), tmp_path / "there")
    write_json(folder / "adapter_config.json", {})
    with pytest.raises(ConfigError, match=f"is the folder of the {key} that is trained from"):
        train(make_recipe({**SMALL, key: str(folder)}), tmp_path / "other" / ".." / "there")


def test_a_dataset_says_what_it_gave() -> None:
    counts = {"ids": 9, "drawn": 30, "too_long": 4, "no_output": 2, "dropped_pairs": 1, "tokens": 5, "answer_tokens": 3}
    words = {"spec": "toy/copy", "prompt": "p", "prompt_digest": "d", "digest": "d"}
    record = DatasetRecord.model_validate({**words, **counts, "declared_share": 0.5, "share": 0.45})
    text = "30 samples, 45.0% (declared 50.0%); skipped: 4 too long, 2 without output; 1 pairs dropped"
    assert record.as_text() == f"toy/copy: {text}"


def test_the_heaviest_validation_is_known() -> None:
    tokens = PromptTokenizer(tokenizer(), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    held = TaskList("held", tuple(random_task(Stream("held out", k), 2, 5, f"t{k}") for k in range(6)))
    found = replace(open_validation(held, tokens, max_tasks=6, exact_tasks=2, max_seq_len=900, pad_id=0), micro_batch=3)
    batch, asked = found.heaviest_batches(2)
    longest = sorted((len(q.sample.ids) for q in found.tasks), reverse=True)[:3]
    for process in range(2):
        assert [len(q.sample.ids) for q in batch.tasks[process::2]] == longest
    assert (batch.exact, asked.exact) == (0, 2)
    assert asked.tasks[0] == asked.tasks[1] == max(found.tasks[:2], key=lambda q: len(q.sample.ids))
    (only,) = replace(found, exact=0).heaviest_batches(1)
    assert len(only.tasks) == 3


def test_validation_says_what_it_leaves_out() -> None:
    tasks = [random_task(Stream("held out", k), 2, 5, f"t{k}") for k in range(6)]
    given = TaskList("held", (*map(_without_outputs, tasks[:2]), *tasks[2:]))
    tokens = PromptTokenizer(tokenizer(), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    lengths = sorted(len(tokens.sample(task, 0).ids) for task in tasks[2:])
    options = {"max_tasks": 9, "exact_tasks": 5, "pad_id": 0}
    found = open_validation(given, tokens, max_seq_len=lengths[1], **options)
    assert (len(found.tasks), found.skipped) == (2, 4)
    expected = "validation: 2 tasks, 2 of them for the exact grid; 4 have no known output or are too long"
    assert found.as_text() == expected
    with pytest.raises(DataError, match="no task with a known output fits"):
        open_validation(given, tokens, max_seq_len=lengths[0] - 1, **options)


def test_a_log_without_a_step_is_an_error_and_no_traceback() -> None:
    with pytest.raises(RunError, match="has lost every step"):
        summarize_losses([{"eval_loss": 0.5, "step": 3}], kept=3)
