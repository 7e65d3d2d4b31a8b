"""Building prompts: token ids from tables against the tokenizer's own chat template.

    python -m benchmarks.prompts [--quick]

Prompts of ARC-AGI-1's tasks in fresh views with the default prompt and encoder. Every side builds each prompt once, in
a separate process, in turns. The ids must be equal. Writes benchmarks/prompts.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from statistics import median
from time import perf_counter, process_time
from typing import Any

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Store

SIDES = {"tables": "this project", "template": "`apply_chat_template` of transformers"}
TOKENIZERS = {"digits": "one token a digit, as Qwen's", "threes": "one token for up to three digits, as Llama 3's"}
GOALS = {"digits": 10, "threes": 8}
"""Times as many tokens a second as the tokenizer, at least."""
_THREES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3's tokenizer cuts text before it looks for tokens."""


def grouping_tokenizer() -> Any:
    """Return a tokenizer of bytes and of all groups of two and three digits, which splits text as Llama 3's does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from trainers.tiny.tokenizer import CHATML

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    groups = [str(n).zfill(width) for width in (2, 3) for n in range(10**width)]
    words = {word: n for n, word in enumerate([*alphabet, *groups])}
    pairs = [(a[:-1], a[-1]) for a in groups]
    bpe = Tokenizer(models.BPE(vocab=words, merges=pairs, ignore_merges=True))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_THREES), "isolated"), level])
    bpe.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=CHATML, **special)


def build(side: str, kind: str, n_tasks: int) -> dict[str, float | str]:
    """Return tokens built per processor second, seconds of set-up, and a digest of the ids."""
    from harness.core.augmentation import random_view
    from harness.core.random_stream import Stream
    from harness.data.spec import open_dataset
    from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
    from harness.prompts.prompt_template import DEFAULT_PROMPT, load_prompt
    from harness.prompts.prompt_tokenizer import PromptTokenizer
    from trainers.tiny.tokenizer import build_tokenizer

    dataset = open_dataset("arc1/training")
    tasks = [dataset.task(i % len(dataset.ids)) for i in range(n_tasks)]
    views = [random_view(Stream("view", i), len(task.train)).apply_task(task) for i, task in enumerate(tasks)]
    tokenizer = build_tokenizer() if kind == "digits" else grouping_tokenizer()
    prompt, encoder = load_prompt(DEFAULT_PROMPT), parse_encoder(DEFAULT_ENCODER)
    start = perf_counter()
    if side == "tables":
        ready = PromptTokenizer(tokenizer, prompt, encoder)
        assert ready.method != "tokenizer", "the tables were not taken"
    start = perf_counter() - start
    cpu = process_time()
    if side == "tables":
        samples = [ready.prompt_ids(view, 0) for view in views]
    else:
        samples = []
        for view in views:
            chat = [{"role": m.role, "content": m.content} for m in prompt.messages(view, 0, encoder)]
            encoded = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=True)
            samples.append(encoded["input_ids"])
    cpu = process_time() - cpu
    tokens = sum(map(len, samples))
    digest = hashlib.sha256(json.dumps(samples).encode()).hexdigest()
    return {"rate": tokens / cpu, "cpu": cpu, "tokens": tokens, "ready": start, "digest": digest}


def measure_sides(store: Store, sizes: Sequence[int], repeats: int) -> None:
    """Run the missing measurements, the two sides in turns.

    Raises:
        SystemExit: their token ids differ.
    """
    names = list(SIDES)

    def measure(side: str, kind: str, size: int) -> dict[str, float | str]:
        done = measure_process(module_command("benchmarks.prompts", "--side", side, kind, str(size)))
        return {**done.last_line(), "memory": done.memory}

    for size, kind, repeat in product(sizes, TOKENIZERS, range(repeats)):
        for side in names[repeat % 2 :] + names[: repeat % 2]:
            store.get(f"{side} {kind} {size} {repeat}", partial(measure, side, kind, size))
        if len({store.known[f"{side} {kind} {size} {repeat}"]["digest"] for side in names}) > 1:
            raise SystemExit("the two ways give different ids")


def main() -> int:
    """Run the missing measurements and write the page."""
    encoded = parser(__doc__, "prompts")
    encoded.add_argument("--side", nargs=3, metavar=("SIDE", "TOKENIZER", "TASKS"), help="run one measurement")
    options = encoded.parse_args()
    if options.side:
        print(json.dumps(build(*options.side[:2], int(options.side[2]))))
        return 0
    sizes = (50, 200) if options.quick else (500, 1000, 2000)
    store, repeats = open_store(options), repetitions(options)
    measure_sides(store, sizes, repeats)

    def values(side: str, kind: str, field: str, size: int = sizes[-1]) -> tuple[float, ...]:
        return store.repeated(f"{side} {kind} {size}", field, repeats)

    findings, growths = [], []
    for kind, what in TOKENIZERS.items():
        ours, theirs = values("tables", kind, "rate"), values("template", kind, "rate")
        memory = median(values("tables", kind, "memory")), median(values("template", kind, "memory"))
        name = f"prompts, {what.split(',')[0]}"
        findings.append(Finding(name, "tokens/CPU s", ours, SIDES["template"], theirs, True, memory, GOALS[kind]))
        growths += [
            Growth(
                f"{name}, {by}", "prompts", "CPU s", sizes, tuple(median(values(side, kind, "cpu", n)) for n in sizes)
            )
            for side, by in SIDES.items()
        ]
    tokens = {kind: store.known[f"tables {kind} {sizes[-1]} 0"]["tokens"] / sizes[-1] for kind in TOKENIZERS}
    text = f"""\
{sizes[-1]:,} prompts of ARC-AGI-1's training tasks under fresh views. With the tokenizer of the tiny base
({TOKENIZERS["digits"]}) they have {tokens["digits"]:,.0f} tokens on average, with one that has
{TOKENIZERS["threes"]}, {tokens["threes"]:,.0f}. Both sides give the same ids."""
    ready = {kind: 1000 * median(values("tables", kind, "ready")) for kind in TOKENIZERS}
    more = f"The check that allows the tables takes {ready['digits']:.0f} and {ready['threes']:.0f} ms at start-up."
    page = plain_page("Building prompts", text, findings, growths, more)
    return finish(options, page, findings, growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())
