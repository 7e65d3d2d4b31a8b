"""Measurements of a contestant: throughput, time to the first token, and swaps under load."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import aiohttp
import numpy as np

from benchmarks.swapping.adapters import CHECKED_TOKENS, NAMES, PROMPTS, SECOND, Adapters
from benchmarks.swapping.contestants import Contestant

IN_FLIGHT = 32
PROMPT_TOKENS, TOKENS = 128, 32
Line = dict[str, Any]
Answer = tuple[str, int, str, list[int]]
"""What was asked, the prompt's number, what answered ("" for a failure), and the token ids."""


def fresh_prompts(seed: tuple[int, ...], count: int, vocabulary: int = 300) -> list[list[int]]:
    """Return prompts that no earlier measurement has used."""
    tokens: list[list[int]] = np.random.default_rng(seed).integers(0, vocabulary, (count, PROMPT_TOKENS)).tolist()
    return tokens


async def _ask(
    session: aiohttp.ClientSession, url: str, model: str, prompt: list[int], tokens: int
) -> tuple[str, list[int]]:
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    async with session.post(f"{url}/v1/completions", json=body | {"return_token_ids": True}) as reply:
        if reply.status != 200:
            await reply.read()
            return "", []
        answer = await reply.json()
        return answer["model"], answer["choices"][0]["token_ids"]


async def _drive(contestant: Contestant, work: Iterator[tuple[str, int, list[int]]], tokens: int) -> list[Answer]:
    """Keep IN_FLIGHT requests in flight until ``work`` ends."""
    seen: list[Answer] = []

    async def one(session: aiohttp.ClientSession) -> None:
        for model, at, prompt in work:
            answered, ids = await _ask(session, contestant.url, model, prompt, tokens)
            seen.append((model, at, answered, ids))

    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(IN_FLIGHT)))
    return seen


def throughput(contestant: Contestant, names: list[str], count: int, seed: tuple[int, ...]) -> Line:
    """Return sequences of TOKENS tokens per second, with the models in turns; the first IN_FLIGHT requests warm up."""
    models = names or [contestant.base]
    prompts = fresh_prompts(seed, count + IN_FLIGHT)
    work = [(models[i % len(models)], i, prompt) for i, prompt in enumerate(prompts)]
    asyncio.run(_drive(contestant, iter(work[:IN_FLIGHT]), TOKENS))
    started, cpu = time.perf_counter(), contestant.cpu_seconds()
    seen = asyncio.run(_drive(contestant, iter(work[IN_FLIGHT:]), TOKENS))
    seconds, cpu = time.perf_counter() - started, contestant.cpu_seconds() - cpu
    failed = sum(not answered for _, _, answered, _ in seen)
    return {"per_second": count / seconds, "cpu_per_100": 100 * cpu / count, "failed": failed}


def first_tokens(contestant: Contestant, names: list[str], seed: tuple[int, ...]) -> Line:
    """Return the seconds to load adapters that are not loaded, and to their first token, on an idle server."""
    loads, firsts = [], []
    for name, prompt in zip(names, fresh_prompts(seed, len(names)), strict=True):
        contestant.unload(name)
        started = time.perf_counter()
        contestant.load(name)
        loads.append(time.perf_counter() - started)
        asyncio.run(_first_piece(contestant.url, name, prompt))
        firsts.append(time.perf_counter() - started)
    return {"load": median(loads), "first_token": median(firsts), "slowest": max(firsts)}


async def _first_piece(url: str, model: str, prompt: list[int]) -> None:
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data: {"):
                json.loads(line[6:])
                return
    raise SystemExit(f"{url}: no first token from {model}")


def swaps_under_load(contestant: Contestant, method: str, adapters: Adapters, names: list[str], swaps: int) -> Line:
    """Swap the first name back and forth while it, the other names and the base get requests."""
    models = [*names, contestant.base]
    done = False

    def work() -> Iterator[tuple[str, int, list[int]]]:
        for i in itertools.count():
            if done:
                return
            at = i // len(models) % PROMPTS
            # Every other request is for the name that is swapped.
            yield models[i // 2 % len(models)] if i % 2 else names[0], at, adapters.prompts[at]

    async def scenario() -> tuple[list[Answer], list[float], float]:
        nonlocal done
        started = time.perf_counter()
        traffic = asyncio.create_task(_drive(contestant, work(), CHECKED_TOKENS))
        await asyncio.sleep(0.5)
        seconds = []
        for i in range(swaps):
            before = time.perf_counter()
            await asyncio.to_thread(contestant.swaps[method], (SECOND, NAMES[0])[i % 2])
            seconds.append(time.perf_counter() - before)
            await asyncio.sleep(0.1)
        done = True
        seen = await traffic
        return seen, seconds, time.perf_counter() - started

    seen, seconds, lasted = asyncio.run(scenario())
    right = _right_answers(contestant, adapters)
    answered = [(model, right(model, at, by, ids)) for model, at, by, ids in seen if by]
    return {
        "requests": len(seen),
        "failed": len(seen) - len(answered),
        "wrong": sum(not fine for model, fine in answered if model != contestant.base),
        "wrong_base": sum(not fine for model, fine in answered if model == contestant.base),
        "swap": median(seconds),
        "slowest": max(seconds),
        "per_second": len(seen) / lasted,
    }


def _right_answers(contestant: Contestant, adapters: Adapters) -> Callable[[str, int, str, list[int]], bool]:
    """Return a function that checks token ids against the expected answers, of the exact version if the server names
    it.
    """
    keys = {adapters.ids[key]: key for key in adapters.ids}

    def right(model: str, at: int, by: str, ids: list[int]) -> bool:
        if model == contestant.base:
            return ids == adapters.expected["base"][at]
        if by in keys:
            return ids == adapters.expected[keys[by]][at]
        either = (NAMES[0], SECOND) if by == NAMES[0] else (by,)
        return any(ids == adapters.expected[key][at] for key in either)

    return right
