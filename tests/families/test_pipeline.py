"""From preview to answers for each family: a model trained to answer a constant must always answer it.

Every family is previewed, trained, validated, registered, merged and evaluated through transformers. Those in
``SERVED``, one for each of vLLM's classes, are also served: evaluated over HTTP by chat and by token ids, compared by
log-probability, and benched through every API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.folder import RunFolder
from serve.client import admin
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.families.make import FAMILIES, constant_tasks, make_family
from tests.serving.conftest import own_threads
from tests.serving.world import post
from tests.support.vllm.dtypes import SERVE_OPTIONS
from trainers.commands.merge import merge
from trainers.commands.parity import check_parity
from trainers.commands.preview import preview
from trainers.model.inputs import open_inputs
from trainers.recipe.schema import Recipe, make_recipe
from trainers.run.api import train
from trainers.store.manifest import AdapterManifest, read_manifest
from trainers.store.training_log import read_log

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PROMPT, ENCODER = "output-from-examples-v1", "GridShapeEncoder(MinimalGridEncoder())"
SERVED = ("qwen3-base", "llama3-base-chat", "gemma3", "mistral")
NOT_EOS = ("qwen3-base", "llama3-base-chat", "gemma3", "gemma3-pictures", "gemma2", "phi")
"""Families whose answers end with a token at which their own files do not stop."""
MORE: dict[str, dict[str, Any]] = {
    "llama3-base": {"chat_template": "chatml"},
    "qwen3": {"chat_template_kwargs": {"enable_thinking": False}},
    # With an output layer of its own, of a class for which vLLM serves LoRA there.
    "llama3-base-chat": {"lora": {"rank": 16, "alpha": 32, "targets": r".*(_proj|embed_tokens|lm_head)"}},
}
"""Further recipe values by family."""
TASKS = 6


@dataclass(frozen=True)
class Family:
    """A trained model of a family."""

    name: str
    base: Path
    recipe: Recipe
    output: Path

    @property
    def manifest(self) -> AdapterManifest:
        """Return the adapter's manifest."""
        manifest = read_manifest(self.output)
        assert manifest is not None
        return manifest

    def prompts(self) -> list[tuple[list[dict[str, str]], list[int], str]]:
        """Return messages, token ids and answer of each task."""
        inputs = open_inputs(self.recipe)
        prompt, encoder = load_prompt(inputs.prompts[0]), parse_encoder(self.recipe.encoder)
        tokens = PromptTokenizer(inputs.chat.tokenizer, prompt, encoder, settings=inputs.chat.settings)
        dataset, prompts = open_dataset(self.recipe.datasets[0].spec), []
        for task in (dataset.task(k) for k in range(TASKS)):
            messages = [{"role": m.role, "content": m.content} for m in prompt.messages(task, 0, encoder)]
            prompts.append((messages, tokens.prompt_ids(task, 0), prompt.answer(task, 0, encoder)))
        return prompts

    def read(self, text: str) -> str:
        """Return the grid in an answer, as text."""
        prompt, encoder = load_prompt(open_inputs(self.recipe).prompts[0]), parse_encoder(self.recipe.encoder)
        return encoder.encode(prompt.decode(text, encoder))


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    name, root = request.param, tmp_path_factory.mktemp("family")
    base, tasks = make_family(name, root / name), constant_tasks(root / "tasks.json")
    recipe = make_recipe(
        {
            "model": str(base),
            "output_dir": str(root / "out"),
            "datasets": [str(tasks)],
            "prompt": PROMPT,
            "encoder": ENCODER,
            "augment": False,
            "max_steps": 60,
            "batch_size": 8,
            "max_seq_len": 1500,
            "learning_rate": 2e-2,
            "warmup": 5,
            "workers": 0,
            "threads": 1,
            "dtype": "float32",
            "lora": {"rank": 16, "alpha": 32},
            "validation": {"spec": str(tasks), "exact_tasks": TASKS},
            "eval_steps": 60,
            "save_steps": 60,
            **MORE.get(name, {}),
        }
    )
    return Family(name, base, recipe, train(recipe, root / "out", progress=False))


def test_the_preview_warns_of_the_family_s_peculiarities(family: Family) -> None:
    report = preview(family.recipe, samples=1, draws=8)
    assert (set(report.reading.stops) <= set(report.reading.eos)) == (family.name not in NOT_EOS)
    warned = any("not among the model's eos tokens" in line for line in report.advice)
    assert warned == (family.name in NOT_EOS)
    assert any("takes no system message" in line for line in report.advice) == (family.name == "gemma2")
    assert any("writes the date" in line for line in report.advice) == (family.name in ("llama3", "llama3-base-chat"))


def test_validation_finds_every_answer_exact(family: Family) -> None:
    last = [line for line in read_log(family.output / "log.jsonl") if "eval_exact" in line][-1]
    assert last["eval_exact"] == 1


def test_every_answer_is_exact_in_transformers_and_in_the_merged_model(family: Family, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = merge(str(family.base), family.output, tmp_path / "merged")
    bare = AutoModelForCausalLM.from_pretrained(family.base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(family.base)
    stops = family.manifest.stop_token_ids
    for model in (
        PeftModel.from_pretrained(bare, str(family.output)),
        AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32),
    ):
        for _, ids, answer in family.prompts():
            prompt_ids = torch.tensor([ids])
            with torch.no_grad():
                out = model.eval().generate(
                    input_ids=prompt_ids, attention_mask=torch.ones_like(prompt_ids), max_new_tokens=60,
                    do_sample=False, eos_token_id=stops, pad_token_id=0,
                )  # fmt: skip
            answer_ids = out[0, len(ids) :].tolist()
            assert answer_ids[-1] in stops
            assert family.read(tokenizer.decode(answer_ids, skip_special_tokens=True)) in answer


def test_the_adapter_can_be_registered(family: Family, tmp_path: Path) -> None:
    warnings: list[str] = []
    version = Registry(tmp_path / "adapters").add(
        "learned", family.output, BaseModel.open(family.base), warn=warnings.append
    )
    assert (version.name, warnings) == ("learned", [])


@contextmanager
def server_of(family: Family, root: Path) -> Iterator[str]:
    """Yield the address of a server with the adapter ``learned``."""
    registry = Registry(root / "adapters")
    registry.set_live("learned", registry.add("learned", family.output, BaseModel.open(family.base)).version)
    options: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 1, "max_lora_rank": 16, "kv_cache_gib": 0.5}
    with own_threads(), serving(family.base, registry.root, log=root / "log", **options) as server:
        yield server.url


def test_every_answer_of_a_server_is_exact(family: Family, tmp_path: Path) -> None:
    if family.name not in SERVED:
        pytest.skip("another family with the same class is served")
    with server_of(family, tmp_path) as url:
        check_http_answers(family, url)
        parity = check_parity(family.output, url, "learned", samples=4)
        assert parity.holds, parity.as_text()
        check_bench_run(family, url, tmp_path)
        assert "learned" in json.dumps(admin.list_adapters(url))


def check_http_answers(family: Family, url: str) -> None:
    """Request every task by chat, with the manifest's settings, and by token ids; both stop at the end of the turn."""
    stops, variables = family.manifest.stop_token_ids, open_inputs(family.recipe).chat.settings.request_kwargs()
    body = {"model": "learned", "temperature": 0, "max_tokens": 60, "stop_token_ids": stops}
    for messages, ids, answer in family.prompts():
        status, chat = post(
            f"{url}/v1/chat/completions", {**body, "messages": messages, "chat_template_kwargs": variables}
        )
        assert status == 200, chat
        status, plain = post(f"{url}/v1/completions", {**body, "prompt": ids})
        assert status == 200, plain
        choices = chat["choices"][0], plain["choices"][0]
        assert [choice["finish_reason"] for choice in choices] == ["stop", "stop"]
        for text in (choices[0]["message"]["content"], choices[1]["text"]):
            assert family.read(text) in answer, json.dumps(text)


def check_bench_run(family: Family, url: str, root: Path) -> None:
    """Check that ``bench run`` scores 100 % through every API, under augmentations that leave the answer unchanged."""
    words = ["run", "--server", url, "--model", "learned", "--dataset", family.recipe.datasets[0].spec, "-n", "1"]
    words += ["--limit", str(TASKS), "--no-augment"]
    used = {}
    for api in ("auto", "chat", "completions"):
        out = root / f"run-{api}"
        assert run_cli(cli, [*words, "--api", api, "--out", str(out)]) == 0
        used[api] = RunFolder(out).manifest().config.api
        assert RunFolder(out).results().models["learned"].metrics["accuracy"].value == 1.0
    assert used == {"auto": "completions", "chat": "chat", "completions": "completions"}
