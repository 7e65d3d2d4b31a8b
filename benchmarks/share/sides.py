"""The sides that are compared: `bench run`, a bare client with the same bodies, and offline generation.

python -m benchmarks.share.sides MODEL_FOLDER SETTING SEEDS       offline generation, a rate for each seed
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    import aiohttp

    from harness.sampling.options.run_options import RunOptions

TINY_BASE = Path(__file__).parent.parent.parent / "trainers" / "weights" / "tiny-base"
LENGTH = 2048
ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True)
class Setting:
    """A model and the requests to it."""

    name: str
    tasks: int
    samples: int
    max_tokens: int
    in_flight: int

    @property
    def predictions(self) -> int:
        return self.tasks * self.samples

    def folder(self, work: Path) -> Path:
        """Return the folder of the model; the random one is created if it is missing."""
        if self.name == "tiny base":
            return TINY_BASE
        folder = work / "random-90m"
        if not (folder / "model.safetensors").exists():
            make_random_model(folder)
        return folder


def make_random_model(folder: Path, length: int = LENGTH) -> None:
    """Write a Qwen2 of 87 million random parameters with the tiny base's tokenizer and a context of this length."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shutil.copytree(TINY_BASE, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"), dirs_exist_ok=True)
    tiny = json.loads((TINY_BASE / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=tiny["vocab_size"],
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        eos_token_id=tiny["eos_token_id"],
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def run_options(setting: Setting, url: str, api: str, seed: int, out: Path) -> RunOptions:
    """Return the options of the measured run. Each seed has different prompts."""
    from harness.client.pool.retry import RetryPolicy
    from harness.sampling.options.run_options import RunOptions

    return RunOptions(
        servers=(url,),
        models=("model",),
        dataset=f"toy/recolour/evaluation#n={setting.tasks}",
        n=setting.samples,
        out=out,
        seed=seed,
        prompt="compact-v0",
        encoder="MinimalGridEncoder()",
        max_tokens=setting.max_tokens,
        api=api,  # type: ignore[arg-type]
        policy=RetryPolicy(max_in_flight=setting.in_flight),
    )


def by_harness(setting: Setting, url: str, api: str, seed: int, work: Path) -> float:
    """Return predictions per second of `bench run`, from the first request to the last answer."""
    from harness.sampling.progress_display import Display
    from harness.sampling.session import sample_run

    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    summary = sample_run(run_options(setting, url, api, seed, out), Display(io.StringIO()))
    return summary.sampled / summary.sampling_seconds


def bodies(setting: Setting, api: str, seed: int, folder: Path) -> list[bytes]:
    """Return the request bodies that `bench run` sends."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset
    from harness.prompts.file_tokenizer import FileTokenizer
    from harness.prompts.prompt_tokenizer import PromptTokenizer
    from harness.sampling.options.config_draft import ConfigDraft
    from harness.sampling.plan import Plan
    from harness.sampling.requests.request_builder import RequestBuilder

    options = run_options(setting, "http://unused", api, seed, Path("unused"))
    dataset = open_dataset(options.dataset)
    tasks = list(iterate_tasks(dataset))
    config, _ = ConfigDraft(options, dataset, tasks).complete({})
    plan = Plan(config, tasks)
    tokenizer = FileTokenizer(folder)
    tokenizers = {f: PromptTokenizer(tokenizer, f.prompt, f.encoder) for f in plan.formats.values()}
    builder = RequestBuilder(plan, config, tokenizers if api == "completions" else None)
    blocks = plan.blocks(1, builder.prompts_per_request(setting.in_flight))
    requests = [builder.build_request([plan.sample(number) for number in block]) for block in blocks]
    return [orjson.dumps(options.sampling.body(request, ())) for request in requests]


def by_bare_client(setting: Setting, url: str, api: str, seed: int, folder: Path) -> float:
    """Return predictions per second of a loop that only sends the same bodies with the same concurrency, and parses."""
    import aiohttp

    prepared = bodies(setting, api, seed, folder)
    at_once = setting.in_flight * len(prepared) // setting.predictions

    async def go() -> float:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            start = time.perf_counter()
            await asyncio.gather(*(send(session, url + ROUTES[api], remaining) for _ in range(at_once)))
            return setting.predictions / (time.perf_counter() - start)

    remaining = iter(prepared)
    return asyncio.run(go())


async def send(session: aiohttp.ClientSession, url: str, remaining: Iterator[bytes]) -> None:
    """Send the remaining requests, one after the other."""
    for body in remaining:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            answer = orjson.loads(await response.read())
            assert "choices" in answer, answer


def by_offline(setting: Setting, folder: Path, seeds: list[int]) -> list[float]:
    """Return predictions per second of ``LLM.generate`` on the same token ids, for each seed after a warm-up.

    The engine has the settings of `bench serve`: all cores (vLLM's default leaves some free), and unchunked prompts.
    """
    from serve.launch.machine import detect_machine

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(core) for core in detect_machine().cores)
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="bfloat16",
        max_model_len=LENGTH,
        enable_prefix_caching=False,
        generation_config="vllm",
        max_num_seqs=setting.in_flight,
        max_num_batched_tokens=8192,
        enable_chunked_prefill=False,
        gpu_memory_utilization=0.5,  # of the memory of one node of a CPU, most of which need not be free
        kv_cache_memory_bytes=2 << 30,
    )
    parameters = SamplingParams(temperature=0.0, max_tokens=setting.max_tokens, logprobs=0)
    rates = []
    for seed in [seeds[0], *seeds]:
        lists = [orjson.loads(body)["prompt"] for body in bodies(setting, "completions", seed, folder)]
        prompts = [{"prompt_token_ids": ids} for ids_of_list in lists for ids in ids_of_list]
        start = time.perf_counter()
        llm.generate(prompts, parameters, use_tqdm=False)  # type: ignore[arg-type]
        rates.append(len(prompts) / (time.perf_counter() - start))
    return rates[1:]


@contextmanager
def server(folder: Path, in_flight: int, log: Path) -> Iterator[str]:
    """Start a real vLLM without prefix caching, so that no side profits from another's prompts."""
    from serve.launch.process import serving

    extra = ("--no-enable-prefix-caching", "--served-model-name", "model", "--max-num-seqs", str(in_flight))
    with serving(folder, log=log, dtype="bfloat16", max_model_len=LENGTH, extra=extra) as running:
        yield running.url


if __name__ == "__main__":
    rates = by_offline(Setting(**json.loads(sys.argv[2])), Path(sys.argv[1]), json.loads(sys.argv[3]))
    print(json.dumps(rates))
