"""Merged models answer as base and adapter do through PEFT, or are not written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import AdapterError
from trainers.commands.merge import merge

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings|Setting .save_embed")]


def make_adapter(folder: Path, base: Path, targets: list[str], scale: float = 0.05) -> Path:
    """Save a random adapter on these modules; with scale 0, lora_B stays zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, weight in peft.named_parameters():
        if "lora_" in name and scale:
            weight.data += torch.randn_like(weight) * scale
    peft.save_pretrained(folder)
    return folder


def difference(base: Path, adapter: Path, merged: Path) -> float:
    """Return the largest difference of a logit between PEFT and the merged model, on tokens other than ``merge``'s."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 60)[None]
    through_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    with torch.no_grad():
        gap = through_peft(ids).logits - AutoModelForCausalLM.from_pretrained(merged).eval()(ids).logits
    return float(gap.abs().max())


@pytest.mark.parametrize(
    ("targets", "tied"),
    [
        (["q_proj"], True),
        (["q_proj", "lm_head"], False),
        (["embed_tokens"], False),
        (["embed_tokens", "lm_head"], False),
    ],
)
def test_a_merged_model_answers_as_base_and_adapter(tmp_path: Path, qwen: Path, targets: list[str], tied: bool) -> None:
    adapter = make_adapter(tmp_path / "adapter", qwen, targets)
    merged = merge(str(qwen), adapter, tmp_path / "merged")
    assert difference(qwen, adapter, merged) < 1e-3
    assert json.loads((merged / "config.json").read_bytes())["tie_word_embeddings"] == tied
    agreement = json.loads((merged / "merged.json").read_bytes())
    assert agreement["error"] < 1e-3 < agreement["effect"]


def test_adapters_without_effect_or_with_ignored_weights_are_refused(tmp_path: Path, qwen: Path) -> None:
    idle = make_adapter(tmp_path / "idle", qwen, ["q_proj"], scale=0)
    with pytest.raises(AdapterError, match="changes nothing: lora_B is zero in all of its modules"):
        merge(str(qwen), idle, tmp_path / "merged")
    adapter = make_adapter(tmp_path / "adapter", qwen, ["q_proj", "v_proj"])
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    with pytest.raises(AdapterError, match=r"its weights are not on the modules that its adapter_config\.json names"):
        merge(str(qwen), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merged_model_that_rounding_changed_is_removed(tmp_path: Path, qwen: Path) -> None:
    """An adapter whose effect is smaller than bfloat16's steps would be lost in the merged model."""
    adapter = make_adapter(tmp_path / "adapter", qwen, ["q_proj", "v_proj", "o_proj"], scale=3e-3)
    with pytest.raises(AdapterError, match="rounding to bfloat16 may be the cause: merge with --dtype float32"):
        merge(str(qwen), adapter, tmp_path / "merged", dtype="bfloat16")
    assert not (tmp_path / "merged").exists()
    assert difference(qwen, adapter, merge(str(qwen), adapter, tmp_path / "merged", dtype="float32")) < 1e-3
