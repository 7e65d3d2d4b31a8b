"""What the API process costs per answer: `bench serve` against plain vLLM, with a model that costs next to nothing.

    python -m benchmarks.api_process [--quick]

Both serve a model of one layer with one adapter and are measured in turns. The figure is the processor time of
the API process alone (HTTP, checks, detokenization, responses), not of the engine's process, so that it holds on a busy
machine too; a process can serve at most the inverse of it per second. Writes benchmarks/api_process.md.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from textwrap import fill

import numpy as np
import psutil

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process
from benchmarks.common.store import Store
from benchmarks.share.sides import TINY_BASE
from benchmarks.swapping.adapters import RANK, write_adapter
from benchmarks.swapping.stock import stock_vllm
from benchmarks.traffic.client import IN_FLIGHT, Form, drive
from harness.core.digests import content_hash
from serve.launch.machine import detect_machine
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry

LENGTH = 2304
ADAPTER = "a"
FORMS = (
    Form(16, 1),
    Form(16, 32),
    Form(16, 128),
    Form(512, 1),
    Form(2048, 1),
    Form(1271, 100, prompts=16),
)
"""The last is an ARC task as `bench run` sends it: benchmarks/harness_overhead.md has the mean lengths."""
ANSWERS, PROMPTS = FORMS[:3], (FORMS[0], *FORMS[3:5])
"""Forms that differ in the length of the answer, and of the prompt."""
GOAL = 0.9
"""Our server may take 11 % more processor time than a plain vLLM."""
WHY = (
    "the middleware checks the body, resolves the adapter's name, and writes the body again for vLLM: 4 % of a "
    "profile's samples with 16 + 1 tokens; the rest is in vLLM's own code and not explained (two equal plain servers, "
    "in 15 turns, were 0.71 to 1.32 times each other)"
)
TEXT = """\
Processor time of the API process per answer, beside a plain vLLM with the same model, adapter, threads and limits.
Answers come with the log-probabilities of their tokens; up to {in_flight} prompts are in flight, all for an adapter of
rank {rank} on a model of one layer, {width} wide. The inverse is the ceiling of one API process with a core of its own,
here in answers per second: {ceilings}. The rates further down are lower, because client and engine run on the same two
cores. An adapter is hashed when it is added to a registry and again when it is loaded."""
WIDTH = 64
LARGE_MB = 320
"""Size of the adapter that is hashed: one of rank 32 for a model of 7 B."""


def make_model(folder: Path) -> Path:
    """Write a Qwen2 of one layer with the tiny base's tokenizer, once; its answers are one token over and over.

    Random answers would not be text, which the detokenizer decodes again from the beginning at every token.
    """
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shutil.copytree(TINY_BASE, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"), dirs_exist_ok=True)
    torch.manual_seed(0)
    config = Qwen2Config.from_pretrained(TINY_BASE)
    config.update({"num_hidden_layers": 1, "layer_types": ["full_attention"], "max_position_embeddings": LENGTH})
    config.update({"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "head_dim": 32})
    config.update({"num_key_value_heads": 2})
    model = Qwen2ForCausalLM(config).float()
    torch.nn.init.zeros_(model.model.norm.weight)  # every token is as likely, and the first is taken
    model.save_pretrained(folder)
    return folder


@contextmanager
def two_servers(work: Path) -> Iterator[dict[str, tuple[str, int]]]:
    """Start both servers and yield the URL and the API process of each."""
    base = BaseModel.open(make_model(work / "one-layer"))
    assert base.folder is not None
    registry = Registry(work / "adapters")
    source = work / "adapter"
    if not (source / "adapter_config.json").exists():
        write_adapter(source, base, 0)
    registry.add(ADAPTER, source, base)
    registry.set_live(ADAPTER, registry.find(ADAPTER).version)
    limits = {"max_loras": 4, "max_cpu_loras": 32, "max_lora_rank": RANK}
    words = [word for name, value in limits.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--dtype", "float32", "--max-model-len", str(LENGTH), "--kv-cache-memory-bytes", str(2**29)]
    env = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, detect_machine().cores))}
    options = {"dtype": "float32", "max_model_len": LENGTH, "kv_cache_gib": 0.5, **limits}
    with (
        serving(base.folder, registry.root, log=work / "ours.log", **options) as ours,
        stock_vllm(base.folder, {ADAPTER: source}, work / "plain.log", words, env) as plain,
    ):
        yield {"ours": (ours.url, ours.pid), "plain": (plain.url, plain.pid)}


def measure(url: str, pid: int, form: Form, tokens: int, seed: int) -> dict[str, float]:
    """Return the API process's CPU time per answer in ms, answers per second, and failed requests.

    Args:
        tokens: about how many are computed; a token of a prompt costs an eighth of one of an answer.
    """
    answers = max(2 * IN_FLIGHT, min(2000, tokens // (form.prompt // 8 + form.answer)))
    answers -= answers % form.prompts
    asyncio.run(drive(url, form, ADAPTER, IN_FLIGHT, seed + 500_000))
    process = psutil.Process(pid)
    before = process.cpu_times()
    seconds, failed = asyncio.run(drive(url, form, ADAPTER, answers, seed))
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return {"cpu_ms": 1000 * used / answers, "per_second": answers / seconds, "failed": failed}


def measure_all(store: Store, work: Path, forms: tuple[Form, ...], repeats: int, tokens: int) -> None:
    """Run the missing measurements of about ``tokens`` tokens each, with the sides in turns."""
    keys = {f"{side} {form.key} {repeat}" for side in SIDES for form in forms for repeat in range(repeats)}
    if keys <= store.known.keys():
        return
    with two_servers(work) as servers:
        for repeat in range(repeats):
            for at, form in enumerate(forms):
                for side in SIDES if (at + repeat) % 2 else SIDES[::-1]:
                    run = partial(measure, *servers[side], form, tokens, 1000 * repeat + at)
                    store.get(f"{side} {form.key} {repeat}", run)


SIDES = ("ours", "plain")


def hashing(work: Path) -> dict[str, float]:
    """Return the MB per processor second at which an adapter is hashed, and that of sha256sum on the same file."""
    folder = work / "large"
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
        weights.write_bytes(np.random.default_rng(0).bytes(LARGE_MB * 1_000_000))
    started = time.process_time()
    content_hash(folder)
    ours = time.process_time() - started
    return {"ours": LARGE_MB / ours, "sha256sum": LARGE_MB / measure_process(["sha256sum", str(weights)]).cpu}


def main() -> int:
    """Measure and write the page."""
    options = parser(__doc__, "api_process", repeats=3).parse_args()
    forms = (FORMS[0], FORMS[1]) if options.quick else FORMS
    store, repeats = open_store(options), repetitions(options)
    work = work_folder(options)
    measure_all(store, work, forms, repeats, 4_000 if options.quick else 48_000)
    hashed = [store.get(f"hashing {repeat}", partial(hashing, work)) for repeat in range(repeats)]

    def values(side: str, form: Form, field: str) -> tuple[float, ...]:
        return store.repeated(f"{side} {form.key}", field, repeats)

    findings = []
    for form in forms:
        ours, theirs = (values(side, form, "cpu_ms") for side in SIDES)
        findings.append(Finding(form.label, "CPU ms", ours, "plain vLLM", theirs, goal=GOAL, why=WHY))
    for form in forms:
        ours, theirs = (values(side, form, "per_second") for side in SIDES)
        label = f"{form.label}, answers"
        findings.append(Finding(label, "/s", ours, "plain vLLM", theirs, more_is_better=True, why=WHY))
    ours, theirs = (tuple(line[side] for line in hashed) for side in ("ours", "sha256sum"))
    findings.append(Finding("hashing an adapter", "MB/s", ours, "sha256sum", theirs, more_is_better=True))
    growths = []
    for what, size, group in (("answer tokens", "answer", ANSWERS), ("prompt tokens", "prompt", PROMPTS)):
        if set(group) <= set(forms):
            costs = tuple(median(values("ours", form, "cpu_ms")) for form in group)
            growths.append(Growth("an answer", f"{what}", "CPU ms", tuple(getattr(f, size) for f in group), costs))
    failed = sum(sum(values(side, form, "failed")) for side in SIDES for form in forms)
    ceilings = ", ".join(f"{1000 / median(values('ours', form, 'cpu_ms')):,.0f}/s ({form.label})" for form in forms)
    text = fill(TEXT.format(in_flight=IN_FLIGHT, width=WIDTH, rank=RANK, ceilings=ceilings), 120)
    goals = [f"{failed:.0f} requests failed"] if failed else []
    page = plain_page("One API process", text, findings, growths)
    return finish(options, page, findings, growths, goals, store.versions())


if __name__ == "__main__":
    sys.exit(main())
