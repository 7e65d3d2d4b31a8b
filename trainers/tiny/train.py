"""Train the tiny base: a Qwen2 of two million parameters that solves toy tasks in context, trained from scratch.

With it the whole loop runs on a machine without weights or GPU. ``bench tiny-base`` trains it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.data.toy_tasks import SIDES
from trainers.data.micro_batches import IGNORED
from trainers.tiny.card import model_card
from trainers.tiny.data import Curriculum, DenseEncoder
from trainers.tiny.model import TinyBaseConfig, build_model, build_optimizers

Report = Callable[[str], None]


def shipped_path() -> Path:
    """Return the folder of the tiny base that is part of the package."""
    return Path(__file__).parent.parent / "weights" / "tiny-base"


def train_tiny_base(config: TinyBaseConfig, report: Report) -> tuple[Any, Any]:
    """Train a tiny base and return (model, tokenizer).

    Muon optimizes the matrices and AdamW the rest; constant learning rate after 100 warm-up steps, linear decay over
    the last 40 %. Seeded, and measured in steps instead of time: the same machine gives the same weights.

    Args:
        report: called with a line of text on the progress.
    """
    import torch

    from trainers.tiny.tokenizer import build_tokenizer

    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = build_model(config, len(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>"))
    encoder = DenseEncoder(tokenizer)
    curriculum = Curriculum(config.families, config.threshold, config.seed)
    optimizers = build_optimizers(model, config.muon_lr, config.adamw_lr)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    tokens = 0
    for step in range(config.steps):
        scale = _schedule(step, config.steps)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
            optimizer.zero_grad()
        size = SIDES[step % len(SIDES)]
        names, tasks = curriculum.draw_tasks(max(1, config.batch * (SIDES[0] ** 2 + 5) // (size**2 + 5)), size)
        rows = [encoder.encode_task(task) for task in tasks]
        loss, exact = _forward(model, rows, config.device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        tokens += sum(len(ids) for ids, _, _ in rows)
        joined = curriculum.record_answers(names, exact)
        if joined or (step + 1) % 50 == 0:
            accuracies = " ".join(f"{f} {a:.2f}" for f, a in curriculum.accuracy.items())
            report(f"step {step + 1}/{config.steps}  {tokens / 1e6:.1f} M tokens  loss {loss.item():.3f}  {accuracies}")
    return model, tokenizer


def _schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step."""
    done = step / steps
    return min(1.0, (step + 1) / 100) * (1.0 if done < 0.6 else max(0.02, (1 - done) / 0.4))


def _forward(model: Any, rows: list[tuple[list[int], list[int], int]], device: str) -> tuple[Any, list[bool]]:
    """Return the mean loss over the answers' tokens, and whether each sequence's last answer is exact."""
    import torch

    ids = torch.tensor([row[0] for row in rows], device=device)
    labels = torch.tensor([row[1] for row in rows], device=device)[:, 1:]
    learned = labels != IGNORED
    with torch.autocast(device, torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[learned]).float()
    targets = labels[learned]
    hits = (logits.argmax(-1) == targets).view(len(rows), -1, rows[0][2])
    return torch.nn.functional.cross_entropy(logits, targets), hits.all(2)[:, -1].tolist()


def save_tiny_base(model: Any, tokenizer: Any, config: TinyBaseConfig, output: Path, report: Report) -> None:
    """Write the model in bfloat16 with tokenizer and model card, whose scores are measured on the written model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model.config._attn_implementation = "sdpa"
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    report(f"wrote {output}; measuring it on held-out tasks")
    written = AutoModelForCausalLM.from_pretrained(output, dtype=torch.bfloat16).to(config.device)
    (output / "README.md").write_text(model_card(written, AutoTokenizer.from_pretrained(output), asdict(config)))
