"""The trainer against plain SFTTrainer and against a bare loop: tokens a second, padding, memory.

    python -m benchmarks.trainer [--quick] [--pairs N] [--device cuda --model qwen2.5-0.5b-shaped --out FILE]

Every contestant trains the same LoRA on the same samples of ARC-AGI-1 in a process of its own; they take turns, in
changing order. What is measured is kept in ``--work``, so that the same command goes on where it stopped. Writes
benchmarks/trainer.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training.page import write_page
from benchmarks.training.setting import SHAPES, Setting

CONTESTANTS = ("trainer", "loop", "trl", "trl-keep")
GROWTH = (1024, 2048)
"""Further limits of length, beside the setting's own, at which the trainer and the loop are compared."""
PEER_PAIRS = 3
"""Repetitions of SFTTrainer at most: it takes minutes, and its distance leaves no doubt."""
Line = dict[str, Any]


class Store:
    """Measurements by what was measured, one line each."""

    def __init__(self, work: Path) -> None:
        self.path = work / "measurements.jsonl"
        work.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.known: dict[str, Line] = {line["key"]: line for line in map(json.loads, lines)}

    def get(self, key: Line, command: list[str], device: str) -> Line:
        """What is known under a key, else what the command prints as its last line."""
        text = json.dumps(key, sort_keys=True)
        if text not in self.known:
            print(f"measuring {text}", file=sys.stderr, flush=True)
            line = {"key": text, **_run(command, device)}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.known[text] = line
        return self.known[text]


def _run(command: list[str], device: str) -> Line:
    hidden = {} if device != "cpu" else {"CUDA_VISIBLE_DEVICES": ""}
    env = {**os.environ, **hidden, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-m", *command], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    line: Line = json.loads(done.stdout.splitlines()[-1])
    return line


def measure(store: Store, setting: Setting, name: str, pair: int) -> Line:
    """One contestant once."""
    command = ["benchmarks.training.contestants", name, json.dumps(setting.describe()), str(store.path.parent)]
    return store.get({"contestant": name, "pair": pair, **setting.describe()}, command, setting.device)


def contest(store: Store, setting: Setting, pairs: int) -> dict[str, list[Line]]:
    """All contestants in turns, another first each time."""
    runs: dict[str, list[Line]] = {name: [] for name in CONTESTANTS}
    for pair in range(pairs):
        turn = pair % len(CONTESTANTS)
        for name in CONTESTANTS[turn:] + CONTESTANTS[:turn]:
            if pair < PEER_PAIRS or not name.startswith("trl"):
                runs[name].append(measure(store, setting, name, pair))
    return runs


def shorter_runs(store: Store, setting: Setting, longest: int, pairs: int) -> dict[str, list[Line]]:
    """Trainer and loop under another limit of length."""
    shorter = replace(setting, max_seq_len=longest)
    runs: dict[str, list[Line]] = {"trainer": [], "loop": []}
    for pair in range(min(3, pairs)):
        for name, lines in runs.items():
            lines.append(measure(store, shorter, name, pair))
    return runs


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, one pair; prints and writes no page")
    parser.add_argument("--pairs", type=int, default=5, help=f"repetitions; of SFTTrainer at most {PEER_PAIRS}")
    parser.add_argument("--model", help=f"tiny, a folder, or one of {', '.join(SHAPES)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches for the trainer")
    parser.add_argument("--steps", type=int, help="timed steps")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-trainer"), help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="the page; on a CPU benchmarks/trainer.md, else trainer-gpu.md")
    return parser.parse_args()


def chosen_setting(options: argparse.Namespace) -> Setting:
    """The setting that the options ask for."""
    setting = Setting(model=options.model or "tiny", device=options.device, workers=options.workers)
    if options.quick:
        setting = replace(setting, model=options.model or "small-shaped", batch=4, max_seq_len=1024, steps=1)
    elif options.device != "cpu":
        setting = replace(setting, warm=3, steps=20)
    return replace(setting, steps=options.steps or setting.steps)


def main() -> int:
    options = parse()
    setting, store = chosen_setting(options), Store(options.work)
    pairs = 1 if options.quick else options.pairs
    runs = contest(store, setting, pairs)
    growth = {n: shorter_runs(store, setting, n, pairs) for n in ((768, 896) if options.quick else GROWTH)}
    growth[setting.max_seq_len] = {name: runs[name] for name in ("trainer", "loop")}
    command = ["benchmarks.training.ceiling", setting.model, setting.device, str(setting.threads), str(options.work)]
    ceiling = store.get({"ceiling": setting.device, "model": setting.model}, command, setting.device)
    page = write_page(setting, runs, growth, ceiling)
    print(page)
    name = "trainer.md" if setting.device == "cpu" else "trainer-gpu.md"
    out = options.out or (None if options.quick else Path(__file__).with_name(name))
    if out is not None:
        out.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
