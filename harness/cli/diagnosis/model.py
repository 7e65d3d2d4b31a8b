"""``bench doctor MODEL``: check what of a model, its tokenizer and chat template does not work or needs a setting."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.diagnosis.checks import Finding
from harness.core.errors import ArcBenchError, ConfigError
from harness.core.vllm_classes import MOST_TOKENS
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt

if TYPE_CHECKING:
    from serve.registry.base_model import BaseModel
    from trainers.model.chat_template import Chat

_CLASS = """
import json, sys
from vllm.model_executor.models.registry import ModelRegistry
entry = ModelRegistry.models.get(sys.argv[1])
if entry is None:
    answer = {"unknown": True}
else:
    try:
        model = entry.load_model_cls()
        answer = {"lora": bool(getattr(model, "supports_lora", False))}
        answer["modules"] = sorted(getattr(model, "embedding_modules", None) or {})
    except ImportError as error:
        answer = {"fault": str(error)}
print(json.dumps(answer))
"""
"""A program that prints what vLLM knows about a model class; a separate process keeps vLLM's log apart."""
_MIN_HEAD_SIZE = 32
"""The smallest head size that vLLM's attention on a CPU supports."""


def check_model(model: str, prompt: str, encoder: str, template: str | None) -> list[Finding]:
    """Check a model for preview, train, serve and run.

    Args:
        model: a folder, a Hugging Face id, or ``tiny``.
        template: the chat template of a recipe; None for the model's own.

    Raises:
        ArcBenchError: the model, prompt or encoder does not exist.
    """
    from serve.registry.base_model import BaseModel
    from trainers.model.base_model import check_weights, find_base

    load_prompt(prompt)
    parse_encoder(encoder)
    where = find_base(model)
    findings = list(_check_tokenizer(where, prompt, encoder, template))
    base = BaseModel.open(where)  # after reading, which leaves the files of a hub model in the cache
    try:
        check_weights(where)
        base.refuse_pickles()
        findings.append(Finding("ok", "train, serve: the weights are here, or can be downloaded"))
    except ArcBenchError as error:
        findings.append(Finding("problem", f"train, serve: {error}"))
    return findings + list(_check_serving(base))


def _check_tokenizer(where: Path | str, prompt: str, encoder: str, template: str | None) -> Iterator[Finding]:
    """Check tokenizer and chat template as preview and train do."""
    from trainers.model.chat_template import open_chat, today
    from trainers.recipe.schema import make_recipe

    data: dict[str, Any] = {"model": str(where), "output_dir": "out", "datasets": ["toy/copy"], "max_steps": 1}
    recipe = make_recipe({**data, "prompt": prompt, "encoder": encoder, "chat_template": template})
    try:
        chat = open_chat(where, recipe, today())
    except ConfigError as error:
        yield Finding("problem", f"preview, train: {error}")
        if "no chat template" in str(error):
            yield Finding("note", "run: the base cannot be asked by chat", "ask an adapter that has learned a template")
        return
    yield from _check_chat(chat, prompt, encoder)
    if isinstance(where, Path) and not (where / "tokenizer.json").is_file():
        yield Finding(
            "note", "run: there is no tokenizer.json, so that prompts are sent as chats and not as token ids",
            "save the tokenizer with transformers' save_pretrained",
        )  # fmt: skip


def _check_chat(chat: Chat, prompt: str, encoder: str) -> Iterator[Finding]:
    """Check that prompts can be tokenized, and say which token ends an answer."""
    row = parse_encoder(encoder).line(1, bytes(range(10)))
    try:
        used = chat.usable_prompt(prompt)
        tokens = chat.prompt_tokens(used)
        length = len(chat.tokenizer.encode(row, add_special_tokens=False))
        method = "the tokenizer, many times slower" if tokens.method == "tokenizer" else f"a table of {tokens.method}"
        yield Finding("ok", f"preview, train: a row of 10 cells takes {length} tokens; prompts are made by {method}")
    except ConfigError as error:
        yield Finding("problem", f"preview, train, run: {error}")
        return
    try:
        turn = tokens.turn
    except ConfigError as error:
        yield Finding("problem", f"train: {error}")
        yield from (Finding("note", f"preview: {line}") for line in chat.warnings)
        return
    yield Finding("ok", f"train: an answer ends with {turn.answer_suffix.strip()!r} (token {turn.end_token_id})")
    yield from (Finding("note", f"train, run: {line}") for line in chat.advice([turn], [prompt], [used]))


def _check_serving(base: BaseModel) -> Iterator[Finding]:
    """Check whether vLLM serves the model and adapters for it."""
    if not base.config:  # not on this machine: a finding says so already
        return
    text, name = base.text_config, base.architecture
    heads = text.get("num_attention_heads")
    width = text.get("head_dim") or (text["hidden_size"] // heads if heads and text.get("hidden_size") else None)
    if base.has_other_tokenizer:
        yield Finding("ok", "serve: vLLM is told to read the tokenizer of transformers (--tokenizer-mode hf)")
    if isinstance(width, int) and width < _MIN_HEAD_SIZE:
        yield Finding("note", f"serve: heads of size {width} are too small for vLLM on a CPU", "serve it on a GPU")
    if base.is_composite:
        yield Finding(
            "ok", "train: adapters are on the language model only; its vision and audio parts stay as they are"
        )
    if name is None:
        yield Finding("note", "serve: config.json names no class (architectures)", "vLLM will not know the model")
    elif find_spec("vllm") is None:
        yield Finding("note", f"serve: vLLM is not installed, so that {name} was not looked up")
    else:
        yield from _check_vllm_class(name, text.get("vocab_size"))


def _check_vllm_class(name: str, tokens: object) -> Iterator[Finding]:
    """Check a model class in the installed vLLM.

    Args:
        tokens: the size of the vocabulary.
    """
    argv = [sys.executable, "-P", "-c", _CLASS, name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        yield Finding("problem", f"serve: vLLM cannot be asked: {last}", "bench doctor looks at the installation")
        return
    if answer.get("unknown"):
        yield Finding(
            "note", f"serve: vLLM has no class {name} of its own; it may serve the model through transformers, which "
            "was not tried", "try bench serve before you train",
        )  # fmt: skip
    elif fault := answer.get("fault"):
        yield Finding("problem", f"serve: vLLM's {name} cannot be loaded: {fault}", "install what is missing")
    elif not answer["lora"]:
        yield Finding("problem", f"serve: vLLM's {name} takes no adapters", "bench merge, and serve the merged model")
    else:
        yield from _check_embeddings(name, answer["modules"], tokens)


def _check_embeddings(name: str, modules: list[str], tokens: object) -> Iterator[Finding]:
    """Check whether vLLM serves adapters on the embeddings and the output layer of a model class.

    Args:
        modules: which of the two vLLM's class declares as LoRA modules, by module name.
        tokens: the size of the vocabulary.
    """
    if "lm_head" in modules and isinstance(tokens, int) and tokens > MOST_TOKENS:
        yield Finding(
            "problem", f"serve: vLLM's {name} takes adapters up to {MOST_TOKENS:,} tokens; the model has {tokens:,}",
            "bench merge, and serve the merged model",
        )  # fmt: skip
        return
    also = f", also on {' and '.join(modules)}" if modules else ""
    yield Finding("ok", f"serve: vLLM's {name} takes adapters on all linear layers{also}")
    if not modules:
        yield Finding("note", "train: adapters on embeddings and output layer could not be served", "leave them out")
