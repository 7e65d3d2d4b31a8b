"""Write the model card of a tiny base: what it is, how it was trained, and its measured scores."""

from __future__ import annotations

from typing import Any

from harness.data.toy_tasks import FAMILIES, SIDES, toy_task
from trainers.tiny.data import DenseEncoder

_HEAD = """\
---
license: apache-2.0
pipeline_tag: text-generation
---
# Tiny base of arc-bench

A Qwen2 causal language model of {parameters:,} parameters ({layers} layers, hidden size {hidden}, {heads} heads),
trained from nothing on generated tasks, with a byte-level BPE tokenizer of {vocabulary} tokens and a ChatML template.
It exists so that training, serving, hot-swap, sampling and scoring run for real without weights or a GPU. It is not a
model of ARC: real tasks pass through it, and it solves next to none of them.

It reads the prompt `compact-v0` with `MinimalGridEncoder()`: each example is a turn of the chat.

## Scores

Share of {n} held-out tasks a cell whose test grid is exact under greedy decoding, in bf16. Held-out tasks share no
input grid with training, up to rotation, reflection and colour. *Control*: the examples follow another rule of the
family than the test, so that only guessing is left.

| family | in training | what it asks | {columns} |
|---|---|---|{rules}|
"""

_TAIL = """
## How it was made

`bench tiny-base -o FOLDER` repeats it: seeded, counted in steps, one family after another (`{order}`; the next
joins when all before it are above {threshold} on fresh tasks), loss on every example's output from the second on.

{settings}

Families marked *no* were never shown: they are what the demo's adapters learn.
"""


def model_card(model: Any, tokenizer: Any, config: dict[str, Any], n: int = 256) -> str:
    """Return the card as markdown, with measured scores of every family at every grid size."""
    columns = " | ".join(f"{s}x{s} | control {s}x{s}" for s in SIDES)
    text = _HEAD.format(
        parameters=model.num_parameters(),
        layers=config["layers"],
        hidden=config["hidden"],
        heads=config["hidden"] // config["head"],
        vocabulary=len(tokenizer),
        n=n,
        columns=columns,
        rules="---:|" * (2 * len(SIDES) - 1) + "---:",
    )
    for family in FAMILIES.values():
        cells = []
        for size in SIDES:
            cells.append(f"{held_out_accuracy(model, tokenizer, family.name, size, n=n):.2f}")
            inferred = family.inferred
            control = held_out_accuracy(model, tokenizer, family.name, size, n=n, control=True) if inferred else None
            cells.append("" if control is None else f"{control:.2f}")
        trained = "yes" if family.name in config["families"] else "no"
        text += f"| {family.name} | {trained} | {family.summary} | {' | '.join(cells)} |\n"
    settings = "\n".join(f"- {key}: {value}" for key, value in config.items())
    return text + _TAIL.format(order=" → ".join(config["families"]), threshold=config["threshold"], settings=settings)


def held_out_accuracy(
    model: Any, tokenizer: Any, family: str, size: int, *, n: int = 256, control: bool = False
) -> float:
    """Return the share of n held-out tasks whose test answer is exact under greedy decoding.

    Greedy decoding is exact if and only if every token is the most likely one after the correct tokens before it, so
    that one forward pass suffices.

    Args:
        control: show examples of another rule of the family, so that only guessing is left.
    """
    import torch

    encoder = DenseEncoder(tokenizer)
    tasks = [toy_task(family, "evaluation", 1, i, size=size, other_rule=control) for i in range(n)]
    rows = [encoder.encode_task(task) for task in tasks]
    length = rows[0][2]
    ids = torch.tensor([row[0] for row in rows], device=model.device)
    with torch.no_grad():
        best = model(input_ids=ids).logits.argmax(-1)
    tail = len(encoder.end) - 1
    stop = ids.shape[1] - tail
    right = (best[:, stop - length - 1 : stop - 1] == ids[:, stop - length : stop]).all(1)
    return float(right.float().mean())
