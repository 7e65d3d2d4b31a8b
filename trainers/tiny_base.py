"""The tiny base model: a Qwen2 of two million parameters that solves toy tasks in context, trained from nothing.

It exists so that the whole loop runs for real on a machine without weights or GPU. ``bench tiny-base`` remakes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.toy import SIZES, toy_task
from trainers.tiny_data import IGNORED, Curriculum, DenseEncoder

Report = Callable[[str], None]


def shipped_path() -> Path:
    """The folder of the tiny base that comes with the package."""
    return Path(__file__).parent / "weights" / "tiny-base"


@dataclass(frozen=True)
class TinyBase:
    """How a tiny base is made; the defaults make the shipped one."""

    hidden: int = 192
    layers: int = 5
    mlp: int = 384
    head: int = 32
    """vLLM's smallest head size on a CPU."""
    rope_theta: float = 30.0
    context: int = 16384
    families: tuple[str, ...] = ("copy", "border", "corners", "edge", "recolour", "flip")
    threshold: float = 0.7
    steps: int = 3600
    batch: int = 48
    """Sequences of a step at the smallest size; larger grids get fewer, for about as many tokens (5 mark a grid)."""
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    seed: int = 0
    device: str = "cpu"


def train(config: TinyBase, report: Report) -> tuple[Any, Any]:
    """Train a tiny base; returns (model, tokenizer).

    Muon on the matrices and AdamW on the rest; constant rate with 100 steps of warm-up, then linear decay over the
    last 40 %. Seeded and counted in steps: the same machine makes the same weights.
    """
    import torch

    from trainers.tiny_model import build_model, optimizers
    from trainers.tiny_tokenizer import build_tokenizer

    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = build_model(config, len(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>"))
    encoder = DenseEncoder(tokenizer)
    curriculum = Curriculum(config.families, config.threshold, config.seed)
    steppers = optimizers(model, config.muon_lr, config.adamw_lr)
    rates = [stepper.param_groups[0]["lr"] for stepper in steppers]
    tokens = 0
    for step in range(config.steps):
        scale = _schedule(step, config.steps)
        for stepper, rate in zip(steppers, rates, strict=True):
            stepper.param_groups[0]["lr"] = rate * scale
            stepper.zero_grad()
        size = SIZES[step % len(SIZES)]
        names, tasks = curriculum.draw(config.batch * (SIZES[0] ** 2 + 5) // (size**2 + 5), size)
        rows = [encoder.task(task) for task in tasks]
        loss, exact = _forward(model, rows, config.device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        tokens += sum(len(ids) for ids, _, _ in rows)
        joined = curriculum.learn(names, exact)
        if joined or (step + 1) % 50 == 0:
            shown = " ".join(f"{f} {a:.2f}" for f, a in curriculum.accuracy.items())
            report(f"step {step + 1}/{config.steps}  {tokens / 1e6:.1f} M tokens  loss {loss.item():.3f}  {shown}")
    return model, tokenizer


def _schedule(step: int, steps: int) -> float:
    done = step / steps
    return min(1.0, (step + 1) / 100) * (1.0 if done < 0.6 else max(0.02, (1 - done) / 0.4))


def _forward(model: Any, rows: list[tuple[list[int], list[int], int]], device: str) -> tuple[Any, list[bool]]:
    """(mean loss over the answers' tokens, whether each sequence's last answer is exact under teacher forcing)."""
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


def held_out_accuracy(
    model: Any, tokenizer: Any, family: str, size: int, *, n: int = 256, control: bool = False
) -> float:
    """Share of n held-out tasks whose test answer is exact under greedy decoding.

    Greedy decoding is exact iff every token is the most likely one after the right ones before it, so that one forward
    pass answers. ``control`` shows examples of another rule of the family: what is left is guessing.
    """
    import torch

    encoder = DenseEncoder(tokenizer)
    tasks = [toy_task(family, "evaluation", 1, i, size=size, other_rule=control) for i in range(n)]
    rows = [encoder.task(task) for task in tasks]
    length = rows[0][2]
    ids = torch.tensor([row[0] for row in rows], device=model.device)
    with torch.no_grad():
        best = model(input_ids=ids).logits.argmax(-1)
    tail = len(encoder.end) - 1
    stop = ids.shape[1] - tail
    right = (best[:, stop - length - 1 : stop - 1] == ids[:, stop - length : stop]).all(1)
    return float(right.float().mean())


def save(model: Any, tokenizer: Any, config: TinyBase, output: Path, report: Report) -> None:
    """Write the model in bf16 with tokenizer and model card; the card's scores are measured on what was written."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainers.tiny_card import model_card

    model.config._attn_implementation = "sdpa"
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    report(f"wrote {output}; measuring it on held-out tasks")
    written = AutoModelForCausalLM.from_pretrained(output, dtype=torch.bfloat16).to(config.device)
    (output / "README.md").write_text(model_card(written, AutoTokenizer.from_pretrained(output), asdict(config)))
