"""The steps of the GPU check: train against a bare loop, serve, swap, compare log-probabilities, bench."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.steps import Check, Figures, StepFailed
from benchmarks.gpu.swaps import swap_under_load
from benchmarks.training.setting import SHAPES, Setting, model_folder
from serve.launch.operations import add_adapter
from serve.launch.process import Server, serving
from trainers.commands.log_odds import OddsDifferences
from trainers.commands.parity import Parity
from trainers.tiny.train import shipped_path

AIM = 0.9
"""The share of the bare loop's tokens a second that the trainer is to reach on a GPU."""
LESSONS = {"cross": 40, "diagonal": 40}
"""Families of the tiny base's two adapters, with their steps."""
SHARE = 0.5
"""Of the GPU's memory for a server: enough for both models, and other programs may hold some."""


def train_setting(check: Check) -> Setting:
    """Return a setting with so few tokens per micro-batch that 24 GB suffice without gradient checkpointing."""
    if check.small:
        return Setting("small-shaped", check.device, batch=2, max_seq_len=768, warm=1, steps=1)
    return Setting("qwen2.5-0.5b-shaped", check.device, batch=4, max_seq_len=2048, warm=3, steps=15)


def train_beside_a_loop(check: Check) -> Figures:
    """Measure the trainer and a bare loop on the same samples; the adapter is served later."""
    setting = train_setting(check)
    lines: dict[str, dict[str, Any]] = {}
    for name in ("trainer", "loop"):
        words = ["benchmarks.training.contestants", name, json.dumps(setting.describe()), str(check.work)]
        lines[name] = json.loads(check.run(*words)[0].splitlines()[-1])
    rate = {name: line["tokens"] / line["seconds"] for name, line in lines.items()}
    apart = abs(lines["trainer"]["first_loss"] - lines["loop"]["first_loss"])
    share = rate["trainer"] / rate["loop"]
    peak = lines["trainer"]["peak_gpu_gb" if check.device == "cuda" else "peak_gb"]
    figures = {
        "trainer": f"{rate['trainer']:,.0f} tokens/s",
        "bare loop": f"{rate['loop']:,.0f} tokens/s",
        "share": f"{share:.2f}",
        "first losses apart by": f"{apart:.1e}",
        "peak": f"{peak:.1f} GB",
    }
    if apart > 0.02 * lines["loop"]["first_loss"]:
        raise StepFailed(f"the first losses are not the same: {figures}")
    if check.device == "cuda" and share < AIM:
        raise StepFailed(f"the trainer has less than {AIM} of the bare loop's tokens a second: {figures}")
    return figures


def train_tiny(check: Check) -> Figures:
    """Train two adapters of the tiny base on the device that the trainer chooses."""
    steps = {}
    for family, count in LESSONS.items():
        output = check.work / "trained" / family
        recipe = {
            "model": "tiny",
            "output_dir": str(output),
            "datasets": [f"toy/{family}#n=2000"],
            "prompt": "compact-v0",
            "encoder": "MinimalGridEncoder()",
            "lora": {"rank": 16, "alpha": 32},
            "max_steps": 6 if check.small else count,
            "batch_size": 16,
            "learning_rate": 4e-3,
            "threads": 1,
        }
        path = check.work / f"{family}.json"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        check.run("harness.cli", "train", str(path), "--no-progress")
        losses = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["losses"]
        steps[family] = f"loss {losses['first']:.2f} → {losses['last']:.4f}"
        if not losses["last"] < losses["first"]:
            raise StepFailed(f"{family} has learned nothing: {steps[family]}")
    return steps


@contextmanager
def server(check: Check, model: Path, folders: dict[str, Path], **options: Any) -> Iterator[tuple[Server, list[str]]]:
    """Serve a model with these adapters in vLLM's default dtype, and yield the server and the adapter versions."""
    name = model.name
    registry = check.work / f"adapters-{name}"
    versions = [add_adapter(registry, key.partition(" ")[0], folder, str(model)).id for key, folder in folders.items()]
    log = check.work / f"server-{name}.log"

    def in_time(line: str) -> None:
        if check.left() <= 0:
            raise StepFailed(f"the time was over: {line}")

    options |= {"gpu_memory": SHARE, "shutdown_seconds": 5}
    with serving(model, registry, log=log, progress=in_time, **options) as running:
        yield running, versions


def serve_tiny(check: Check) -> Figures:
    """Check both adapters against PEFT and against each other, then swap and bench."""
    trained = {family: check.work / "trained" / family for family in LESSONS}
    swapped = {f"swapped {family}": folder for family, folder in trained.items()}
    with server(check, shipped_path(), trained | swapped, max_loras=4) as (running, versions):
        values = _loaded_with_parity(check, running, dict(zip(trained, versions[: len(trained)], strict=True)), trained)
        check.step("a wrong adapter fails parity", lambda c: _wrong_parity(c, running, trained))
        check.step("swaps under load", lambda c: _swaps(c, running, versions[len(trained) :]))
        check.step("bench of the tiny base", lambda c: _bench_tiny(c, running))
    return values


def serve_big(check: Check) -> Figures:
    """Check parity of the random model's adapter, and measure predictions per second."""
    setting = train_setting(check)
    model = Path(model_folder(setting.model, check.work))
    folder = check.work / "outputs" / "trainer"
    if not (folder / "manifest.json").exists():
        raise StepFailed("not run: its adapter was not trained")
    shape = SHAPES[setting.model]
    with server(check, model, {"learned": folder}, max_model_len=4096, max_lora_rank=setting.rank) as (running, ids):
        # PEFT computes on the CPU: two samples of 2,000 tokens take long enough there.
        values = dict(_loaded_with_parity(check, running, {"learned": ids[0]}, {"learned": folder}, samples=2))
        dataset = f"arc1/training#n={4 if check.small else 24}"
        words = ["--dataset", dataset, "-n", "2" if check.small else "8", "--max-tokens", "32"]
        values["bench"] = _bench(check, running, ["learned"], words, check.work / "bench-big")
    return {"model": f"hidden {shape.hidden}, {shape.layers} layers", **values}


def _loaded_with_parity(
    check: Check, running: Server, versions: dict[str, str], folders: dict[str, Path], samples: int = 8
) -> Figures:
    figures = {}
    for name, version in versions.items():
        check.run("harness.cli", "adapters", "load", version, "--server", running.url)
        figures[f"parity of {name}"] = _parity(check, running, folders[name], name, samples, wanted=0)
    return figures


def _wrong_parity(check: Check, running: Server, folders: dict[str, Path]) -> Figures:
    one, other = list(folders)
    return {f"{other} asked for {one}": _parity(check, running, folders[one], other, 8, wanted=1)}


def _parity(check: Check, running: Server, folder: Path, model: str, samples: int, *, wanted: int) -> str:
    """Return the values that decide parity, with their bounds in parentheses."""
    words = ["--server", running.url, "--model", model, "--samples", str(samples), "--json", "-"]
    values = json.loads(check.run("harness.cli", "parity", str(folder), *words, wanted=wanted)[0].splitlines()[-1])
    odds = values["odds"] and OddsDifferences(**values["odds"])
    return f"in {values['dtype']}: {Parity(**{**values, 'odds': odds}).figures()}"


def _swaps(check: Check, running: Server, versions: list[str]) -> Figures:
    from trainers.model.inputs import open_inputs, open_recipe_mixture
    from trainers.recipe.schema import make_recipe

    data = json.loads((check.work / "cross.json").read_text(encoding="utf-8"))
    recipe = make_recipe(data, "the check")
    mixture = open_recipe_mixture(open_inputs(recipe))
    samples = [mixture.draw_sample(k).sample for k in range(12)]
    prompts = [sample.ids[: sample.prompt_length] for sample in samples]
    values = swap_under_load(running.url, versions, prompts, 6 if check.small else 30)
    figures = {name: f"{value:g}" for name, value in values.items() if name in ("requests", "failed", "wrong")}
    figures |= {"answers as asked alone": f"{values['same']:.1%}", "a swap": f"{1000 * values['swap_seconds']:.0f} ms"}
    if values["failed"] or values["wrong"]:
        raise StepFailed(f"requests failed, or were answered by the other adapter: {figures}")
    return figures


def _bench_tiny(check: Check, running: Server) -> Figures:
    out = check.work / "bench-tiny"
    words = ["--dataset", f"toy/cross/evaluation#n={4 if check.small else 40}", "-n", "4", "--seed", "7"]
    models = ["cross", "diagonal", "tiny-base"]
    figures = {"rate": _bench(check, running, models, words, out)}
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["models"]
    votes = {model: results[model]["metrics"]["vote_2"]["value"] for model in models}
    figures |= {f"vote_2 of {model}": f"{vote:.0%}" for model, vote in votes.items()}
    if not check.small and votes["cross"] < max(0.5, votes["tiny-base"] + 0.3):
        raise StepFailed(f"the adapter does not solve what it was taught: {figures}")
    return figures


def _bench(check: Check, running: Server, models: list[str], words: list[str], out: Path) -> str:
    options = [word for model in models for word in ("--model", model)]
    prompt = ["--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()"] if "bench-tiny" in out.name else []
    _, text = check.run("harness.cli", "run", "--server", running.url, *options, *words, *prompt, "--out", str(out))
    match = re.search(r"^(\d+) predictions in ([0-9.]+) s", text, re.MULTILINE)
    if match is None:
        raise StepFailed(f"bench run said nothing of its predictions:\n{text[-1000:]}")
    return f"{int(match[1]) / max(float(match[2]), 1e-3):,.1f} predictions/s ({match[1]})"
