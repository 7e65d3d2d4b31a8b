"""``bench doctor MODEL`` reports in advance what training, serving and evaluation would report."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.diagnosis.command import doctor
from harness.cli.diagnosis.model import _check_tokenizer
from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from tests.families.make import make_family, make_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

FINDINGS: dict[str, tuple[str, ...]] = {
    "llama3-base": ("problem preview, train: model", "set chat_template", "note run: the base cannot be asked by chat"),
    "llama3-base-chat": ("a table of triples", "the chat template writes the date"),
    "gemma2": ("output-from-examples-nosystem-v1 is used instead",),
    "r1": ("opens a thought (<think>) before every answer",),
    "mistral": ("a table of cells", "an answer ends with '</s>' (token 2)"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "qwen3-base": (
        "note train, run: the chat template ends an answer with '<|im_end|>'",
        "note train, run: the chat template writes an empty thought",
        "ok serve: vLLM's Qwen3ForCausalLM takes adapters on all linear layers, also on embed_tokens and lm_head",
    ),
    "gemma3-pictures": ("adapters are on the language model only",),
}


def run_doctor(*words: str) -> tuple[int, list[str]]:
    """Return the exit status, and the findings one per line."""
    done = CliRunner().invoke(doctor, [*words, "--json", "-"], standalone_mode=False)
    findings = json.loads(done.stdout)
    return int(done.return_value), [f"{f['level']} {f['what']} {f['advice']}" for f in findings]


def tokenizer_findings(folder: Path) -> list[str]:
    """Return the findings on tokenizer and template only: looking a class up in vLLM takes ten seconds."""
    findings = _check_tokenizer(folder, DEFAULT_PROMPT, DEFAULT_ENCODER, None)
    return [f"{one.level} {one.what} {one.advice}" for one in findings]


@pytest.mark.parametrize("name", FINDINGS)
def test_doctor_reports_what_tokenizer_and_template_need(name: str, tmp_path: Path) -> None:
    lines = tokenizer_findings(make_family(name, tmp_path / name))
    for expected in FINDINGS[name]:
        assert any(expected in line for line in lines), lines
    assert any(line.startswith("problem") for line in lines) == (name == "llama3-base")


@pytest.mark.parametrize("name", SETTINGS)
def test_doctor_reports_what_must_be_set(name: str, tmp_path: Path) -> None:
    status, lines = run_doctor(str(make_family(name, tmp_path / name)))
    text = "\n".join(lines)
    for expected in SETTINGS[name]:
        assert expected in text, text
    assert status == int(any(line.startswith("problem") for line in lines))
    if name == "gemma3-pictures" and find_spec("torchvision") is None:
        assert "problem serve: vLLM's Gemma3ForConditionalGeneration cannot be loaded: No module named" in text
    else:
        assert status == 0


def test_doctor_with_a_chat_template_and_missing_files(tmp_path: Path) -> None:
    folder = make_family("llama3-base", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "head_dim": 16, "architectures": ["NobodyForCausalLM"]}))
    status, lines = run_doctor(str(folder), "--chat-template", "chatml")
    text = "\n".join(lines)
    assert status == 1
    assert "ok train: an answer ends with" in text
    assert "problem train, serve: model" in text
    assert "heads of size 16 are too small" in text
    assert "vLLM has no class NobodyForCausalLM" in text


@pytest.mark.parametrize(
    ("loaded_as", "level"), [("LlamaTokenizer", "problem preview, train"), ("Qwen2Tokenizer", "note train, run")]
)
def test_a_tokenizer_that_transformers_loads_differently_from_its_file(
    loaded_as: str, level: str, tmp_path: Path
) -> None:
    """A byte-level BPE loses its blanks under Llama's class, and digits are split differently under Qwen's."""
    folder = make_tokenizer("llama3", tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": loaded_as}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    lines = tokenizer_findings(folder)
    assert any(
        line.startswith(level) and f"loads its tokenizer as {loaded_as}, which reads text otherwise" in line
        for line in lines
    ), lines


def test_mistral_s_own_tokenizer_file_beside_that_of_transformers(tmp_path: Path) -> None:
    folder = make_family("mistral", tmp_path / "model")
    before = tokenizer_findings(folder)
    (folder / "tekken.json").write_text("{}")
    status, lines = run_doctor(str(folder))
    assert (status, lines[: len(before)]) == (0, before)
    assert any("--tokenizer-mode hf" in line for line in lines)
