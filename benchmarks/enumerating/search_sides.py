"""`bench run --search dfs` beside a bare client that sends the very same requests, and sampling on the same views."""

from __future__ import annotations

import asyncio
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.enumerating.recorder import recording
from benchmarks.share.sides import ROUTES, send
from harness.client.pool.retry import RetryPolicy
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import EnumeratedView, read_predictions, read_views
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import sample_run

MODEL = "model"
VIEWS = 8
DRAWS = 4
"""Samples of each view at temperature 1."""
IN_FLIGHT = 64


@dataclass(frozen=True)
class Enumeration:
    """What is enumerated: the tasks and the threshold."""

    min_prob: float
    tasks: int
    dataset: str = "toy/flip/evaluation"

    def options(self, url: str, seed: int, out: Path, **changed: Any) -> RunOptions:
        """Return the options of a run. Each seed has different views."""
        values: dict[str, Any] = {
            "servers": (url,),
            "models": (MODEL,),
            "dataset": f"{self.dataset}#n={self.tasks}",
            "n": VIEWS,
            "out": out,
            "seed": seed,
            "prompt": "compact-v0",
            "encoder": "MinimalGridEncoder()",
            "max_tokens": 64,
            "search": "dfs",
            "min_prob": self.min_prob,
            "policy": RetryPolicy(max_in_flight=IN_FLIGHT),
        }
        return RunOptions(**{**values, **changed})


def run_views(case: Enumeration, url: str, seed: int, out: Path) -> tuple[list[EnumeratedView], float]:
    """Return the views of an enumerated run, and the seconds from its first request to the last answer."""
    shutil.rmtree(out, ignore_errors=True)
    summary = sample_run(case.options(url, seed, out), Display(io.StringIO()))
    return list(read_views(RunFolder(out).predictions_path)), summary.sampling_seconds


def by_harness(case: Enumeration, url: str, seed: int, out: Path) -> dict[str, float]:
    """Return completions per second of `bench run --search dfs`, and what its answers cost."""
    views, seconds = run_views(case, url, seed, out)
    requests, answers = sum(view.requests for view in views), sum(len(view.answers) for view in views)
    tokens = sum(view.n_tokens for view in views)
    return {
        "rate": requests / seconds,
        "requests": requests,
        "tokens": tokens,
        "answers": answers,
        "views": len(views),
        "unexplored": sum(view.unexplored for view in views) / len(views),
    }


def by_bare_client(bodies: Sequence[bytes], url: str) -> dict[str, float]:
    """Return completions per second of a loop that sends recorded requests, as many at once, and parses the answers."""
    prompts = sum(len(orjson.loads(body)["prompt"]) for body in bodies)
    at_once = max(1, round(IN_FLIGHT * len(bodies) / prompts))

    async def send_all() -> float:
        remaining = iter(bodies)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            start = time.perf_counter()
            await asyncio.gather(*(send(session, url + ROUTES["completions"], remaining) for _ in range(at_once)))
            return prompts / (time.perf_counter() - start)

    return {"rate": asyncio.run(send_all())}


def record_bodies(case: Enumeration, url: str, seed: int, out: Path) -> list[bytes]:
    """Return the bodies of all requests for answers that `bench run --search dfs` sends."""
    with recording(url) as (proxy, recorder):
        run_views(case, proxy, seed, out)
        return [body for body in recorder.bodies if orjson.loads(body).get("logprobs", 0) > 1]


def by_sampling(case: Enumeration, url: str, seed: int, out: Path) -> dict[str, float]:
    """Return how many of the answers that enumeration gives DRAWS samples of each view at temperature 1 give."""
    views, _ = run_views(case, url, seed, out)
    likely = {
        (view.task_id, view.test_index, view.sample, answer.grid)
        for view in views
        for answer in view.answers
        if answer.grid is not None
    }
    shutil.rmtree(out, ignore_errors=True)
    sampling = {"search": None, "min_prob": None, "temperature": 1.0, "samples_per_view": DRAWS, "n": VIEWS * DRAWS}
    sample_run(case.options(url, seed, out, **sampling), Display(io.StringIO()))
    drawn, tokens, count = set(), 0, 0
    for prediction in read_predictions(RunFolder(out).predictions_path):
        view = prediction.sample // DRAWS
        drawn.add((prediction.task_id, prediction.test_index, view, prediction.grid))
        tokens, count = tokens + (prediction.n_tokens or 0), count + 1
    hits = len(drawn & likely)
    return {"requests": count, "tokens": tokens, "answers": hits, "likely": len(likely)}
