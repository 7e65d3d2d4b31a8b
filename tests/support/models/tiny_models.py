"""Random small models with a byte tokenizer and random LoRA adapters, for tests that start a real server."""

from __future__ import annotations

from pathlib import Path

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(folder: Path, seed: int = 0, *, family: str = "qwen2", tied: bool = True) -> Path:
    """Save a model of 0.3 M parameters in float32, with weights so large that the best token is well ahead.

    Args:
        family: transformers' model type. vLLM wraps the LM head for LoRA in ``qwen3`` and ``llama``, not in ``qwen2``.
        tied: whether the LM head shares the weights of the embeddings.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab={c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>"}
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        vocab_size=320,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_lora(folder: Path, model: Path, seed: int, *, rank: int = 8, targets: str | list[str] = "all-linear") -> Path:
    """Save a random LoRA adapter on ``targets``, large enough to change most answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    peft = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    peft.save_pretrained(folder, save_embedding_layers=False)
    return folder


def greedy_tokens(model: Path, adapter: Path | None, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """Return the token ids that transformers (with PEFT) generates at temperature 0 in float32.

    Generation continues after the end of a turn, as with vLLM's ``ignore_eos``.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter))
    network.eval()
    network.generation_config.eos_token_id = None
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        answers.append(out[0, len(prompt) :].tolist())
    return answers
