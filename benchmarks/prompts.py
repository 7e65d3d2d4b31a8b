"""Building prompts: token ids by tables against the tokenizer's own chat template.

    python -m benchmarks.prompts [--quick]

Tasks of ARC-AGI-1 under fresh views with the default prompt and encoder, each built once, by every side in a process
of its own, in turns. The ids must be equal. Writes benchmarks/prompts.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import partial
from statistics import median
from time import perf_counter, process_time

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measured, module

SIDES = {"tables": "this project", "template": "`apply_chat_template` of transformers"}
GOAL = 10
"""Times as many tokens a second as the tokenizer, at least."""


def build(side: str, n_tasks: int) -> dict[str, float | str]:
    """Tokens built a processor second, seconds to get ready, and a digest of the ids."""
    from harness.augment import training_view
    from harness.datasets import open_dataset
    from harness.encoding import DEFAULT_ENCODER, parse_encoder
    from harness.prompt import DEFAULT_PROMPT, load_prompt
    from harness.rng import Stream
    from harness.tokens import PromptTokenizer
    from trainers.tiny_tokenizer import build_tokenizer

    dataset = open_dataset("arc1/training")
    tasks = [dataset.task(i % len(dataset.ids)) for i in range(n_tasks)]
    views = [training_view(Stream("view", i), len(task.train)).apply_task(task) for i, task in enumerate(tasks)]
    tokenizer, prompt, encoder = build_tokenizer(), load_prompt(DEFAULT_PROMPT), parse_encoder(DEFAULT_ENCODER)
    start = perf_counter()
    if side == "tables":
        ready = PromptTokenizer(tokenizer, prompt, encoder)
        assert ready.path != "tokenizer", "the tables were not taken"
    start = perf_counter() - start
    cpu = process_time()
    if side == "tables":
        samples = [ready.prompt_ids(view, 0) for view in views]
    else:
        samples = []
        for view in views:
            chat = [{"role": m.role, "content": m.content} for m in prompt.messages(view, 0, encoder)]
            made = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=True)
            samples.append(made["input_ids"])
    cpu = process_time() - cpu
    tokens = sum(map(len, samples))
    digest = hashlib.sha256(json.dumps(samples).encode()).hexdigest()
    return {"rate": tokens / cpu, "cpu": cpu, "tokens": tokens, "ready": start, "digest": digest}


def main() -> int:
    """Measure what is not known yet, and write the page."""
    made = parser(__doc__, "prompts")
    made.add_argument("--side", nargs=2, metavar=("SIDE", "TASKS"), help="what is run for one measurement")
    options = made.parse_args()
    if options.side:
        print(json.dumps(build(options.side[0], int(options.side[1]))))
        return 0
    sizes = (50, 200) if options.quick else (500, 1000, 2000)
    store, repeats, names = open_store(options), repetitions(options), list(SIDES)

    def measure(side: str, size: int) -> dict[str, float | str]:
        done = measured(module("benchmarks.prompts", "--side", side, str(size)))
        return {**done.last_line(), "memory": done.memory}

    for size in sizes:
        for repeat in range(repeats):
            for side in names[repeat % 2 :] + names[: repeat % 2]:
                store.get(f"{side} {size} {repeat}", partial(measure, side, size))
            if len({store.known[f"{side} {size} {repeat}"]["digest"] for side in names}) > 1:
                raise SystemExit("the two ways give different ids")

    def values(side: str, field: str, size: int = sizes[-1]) -> tuple[float, ...]:
        return tuple(store.known[f"{side} {size} {repeat}"][field] for repeat in range(repeats))

    ours, theirs = values("tables", "rate"), values("template", "rate")
    memory = median(values("tables", "memory")), median(values("template", "memory"))
    finding = Finding("prompts", "tokens/CPU s", ours, SIDES["template"], theirs, True, memory, GOAL)
    growths = [
        Growth(f"prompts, {name}", "prompts", "CPU s", sizes, tuple(median(values(side, "cpu", n)) for n in sizes))
        for side, name in SIDES.items()
    ]
    tokens = store.known[f"tables {sizes[-1]} 0"]["tokens"]
    text = f"""\
{sizes[-1]:,} prompts of ARC-AGI-1's training tasks under fresh views, {tokens / sizes[-1]:,.0f} tokens on average,
with the tokenizer of the tiny base (one token a digit, as Qwen's). Both sides give the same ids."""
    ready = 1000 * median(values("tables", "ready"))
    more = f"The check that allows the tables takes {ready:.0f} ms at start-up."
    page = plain_page("Building prompts", text, [finding], growths, more)
    return finish(options, page, [finding], growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())
