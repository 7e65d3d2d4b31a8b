"""The trainer against plain SFTTrainer and a bare loop: tokens per second, padding, memory.

    python -m benchmarks.trainer [--quick] [--device cuda --model qwen2.5-0.5b-shaped --out FILE]

Every contestant trains the same LoRA on the same samples of ARC-AGI-1 in a separate process; they take turns, in
changing order. Writes benchmarks/trainer.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.common.entry import finish, open_store, parser, repetitions
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Line, Store
from benchmarks.training.page import AIM, NAMES, Runs, rate, write_page
from benchmarks.training.setting import SHAPES, Setting

CONTESTANTS = ("trainer", "loop", "trl", "trl-keep")
GROWTH = (1024, 2048)
"""Further limits of length, beside the setting's own, at which the trainer and the loop are compared."""
PEER_PAIRS = 3
"""Repetitions of SFTTrainer at most: it takes minutes, and its distance leaves no doubt."""
WHY = "a profile shows the same passes at the same cost; the rest is drawing the samples, which the loop has beforehand"


def stored_or_run(store: Store, key: Line, command: list[str], device: str) -> Line:
    """Return the stored measurement, or the last line that the command prints."""
    hidden = {} if device != "cpu" else {"CUDA_VISIBLE_DEVICES": ""}
    env = {**hidden, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

    def line() -> Line:
        results: Line = measure_process(module_command(*command), env).last_line()
        return results

    return store.get(json.dumps(key, sort_keys=True), line)


def measure(store: Store, setting: Setting, name: str, pair: int) -> Line:
    """Measure one contestant once."""
    command = ["benchmarks.training.contestants", name, json.dumps(setting.describe()), str(store.path.parent)]
    return stored_or_run(store, {"contestant": name, "pair": pair, **setting.describe()}, command, setting.device)


def contest(store: Store, setting: Setting, names: Sequence[str], pairs: int) -> dict[str, list[Line]]:
    """Measure all contestants in turns, with another one first each time."""
    runs: dict[str, list[Line]] = {name: [] for name in names}
    for pair in range(pairs):
        turn = pair % len(names)
        for name in (*names[turn:], *names[:turn]):
            if pair < PEER_PAIRS or not name.startswith("trl"):
                runs[name].append(measure(store, setting, name, pair))
    return runs


def shorter_runs(store: Store, setting: Setting, longest: int, pairs: int) -> dict[str, list[Line]]:
    """Measure trainer and loop with another limit of length."""
    shorter = replace(setting, max_seq_len=longest)
    runs: dict[str, list[Line]] = {"trainer": [], "loop": []}
    for pair in range(min(3, pairs)):
        for name, lines in runs.items():
            lines.append(measure(store, shorter, name, pair))
    return runs


def parse() -> argparse.Namespace:
    """Parse the options."""
    arguments = parser(__doc__, "trainer")
    arguments.add_argument("--model", help=f"tiny, a folder, or one of {', '.join(SHAPES)}")
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--workers", type=int, default=0, help="processes that prepare the trainer's batches")
    arguments.add_argument("--steps", type=int, help="timed steps")
    arguments.add_argument("--out", type=Path, help="the page; by default benchmarks/trainer.md")
    return arguments.parse_args()


def chosen_setting(options: argparse.Namespace) -> Setting:
    """Return the setting that the options select."""
    setting = Setting(model=options.model or "tiny", device=options.device, workers=options.workers)
    if options.quick:
        setting = replace(setting, model=options.model or "small-shaped", batch=4, max_seq_len=1024, steps=1)
    elif options.device != "cpu":
        setting = replace(setting, warm=3, steps=20)
    return replace(setting, steps=options.steps or setting.steps)


def findings(runs: Runs, growth: Mapping[int, Runs]) -> tuple[list[Finding], list[Growth]]:
    """Compare the trainer with its peers, and its cost at different lengths of samples."""
    results = []
    for name in list(runs)[1:]:
        count = len(runs[name])
        ours, theirs = (tuple(rate(line) for line in runs[who][:count]) for who in ("trainer", name))
        memory = tuple(1000 * median(line["peak_gb"] for line in runs[who][:count]) for who in ("trainer", name))
        goal = AIM if name == "loop" else None
        results.append(
            Finding("training", "tokens/s", ours, NAMES[name], theirs, True, (memory[0], memory[1]), goal, WHY)
        )
    ours, theirs = (tuple(1 - line["tokens"] / line["places"] for line in runs[who]) for who in ("trainer", "trl"))
    results.append(Finding("padding", "of all places", ours[: len(theirs)], NAMES["trl"], theirs))
    growths = []
    for name in ("trainer", "loop"):
        lines = [one[name] for _, one in sorted(growth.items())]
        lengths = tuple(median(line["tokens"] / line["samples"] for line in some) for some in lines)
        spent = tuple(median(line["seconds"] / line["samples"] for line in some) for some in lines)
        growths.append(Growth(NAMES[name], "mean tokens of a sample", "s a sample", lengths, spent))
    return results, growths


def main() -> int:
    """Run the missing measurements and write the page."""
    options = parse()
    setting, store, pairs = chosen_setting(options), open_store(options), repetitions(options)
    runs = contest(store, setting, CONTESTANTS[:3] if options.quick else CONTESTANTS, pairs)
    growth: dict[int, Runs] = {n: shorter_runs(store, setting, n, pairs) for n in ((768,) if options.quick else GROWTH)}
    growth[setting.max_seq_len] = {name: runs[name] for name in ("trainer", "loop")}
    work = str(store.path.parent)
    command = ["benchmarks.training.ceiling", setting.model, setting.device, str(setting.threads), work]
    ceiling = stored_or_run(store, {"ceiling": setting.device, "model": setting.model}, command, setting.device)
    page = write_page(setting, runs, growth, ceiling)
    if options.out or setting.device != "cpu":
        (options.out or Path(__file__).with_name("trainer-gpu.md")).write_text(page, encoding="utf-8")
        print(page)
        return 0
    results, growths = findings(runs, growth)
    return finish(options, page, results, growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())
