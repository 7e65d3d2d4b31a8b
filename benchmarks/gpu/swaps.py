"""Send requests while one name is swapped between two adapters, in any dtype of the server."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence

import aiohttp

from serve.client import admin

IN_FLIGHT, TOKENS = 16, 16
Answers = dict[str, list[list[int]]]
"""By the id of a version: its answer to each prompt, asked alone."""


def swap_under_load(url: str, versions: Sequence[str], prompts: Sequence[list[int]], swaps: int) -> dict[str, float]:
    """Swap a name between two versions under load.

    In 16 bits an answer depends on the other requests of its batch. It is counted as *wrong* if it agrees with the
    answer
    of the other version for longer than with that of the version that the server names.

    Returns:
        requests, failed, wrong, same (share equal to the answer without load), swap_seconds (median).
    """
    return asyncio.run(_scenario(url, versions, prompts, swaps))


async def _scenario(url: str, versions: Sequence[str], prompts: Sequence[list[int]], swaps: int) -> dict[str, float]:
    name = versions[0].partition("@")[0]
    timeout = aiohttp.ClientTimeout(total=120)
    seen: list[tuple[int, str, list[int]]] = []
    done = False

    async def traffic(session: aiohttp.ClientSession, first: int) -> None:
        for k in itertools.count(first):
            if done:
                return
            at = k % len(prompts)
            seen.append((at, *await _ask(session, url, name, prompts[at])))

    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        for version in versions:
            await asyncio.to_thread(admin.stage, url, version)
        alone: Answers = {}
        for version in versions:
            alone[version] = [(await _ask(session, url, version, prompt))[1] for prompt in prompts]
        await asyncio.to_thread(admin.promote, url, versions[0])
        tasks = [asyncio.create_task(traffic(session, first)) for first in range(IN_FLIGHT)]
        seconds = []
        for k in range(swaps):
            started = time.perf_counter()
            await asyncio.to_thread(admin.promote, url, versions[(k + 1) % 2])
            seconds.append(time.perf_counter() - started)
            reached = len(seen) + IN_FLIGHT
            while len(seen) < reached and not any(task.done() for task in tasks):
                await asyncio.sleep(0.01)
        done = True
        await asyncio.gather(*tasks)
    answered = [(at, version, ids) for at, version, ids in seen if version]
    return {
        "requests": len(seen),
        "failed": len(seen) - len(answered),
        "wrong": sum(_is_wrong(alone, at, version, ids) for at, version, ids in answered),
        "same": sum(ids == alone[version][at] for at, version, ids in answered if version in alone) / len(answered),
        "swap_seconds": statistics.median(seconds),
    }


async def _ask(session: aiohttp.ClientSession, url: str, model: str, prompt: list[int]) -> tuple[str, list[int]]:
    """Return the version that answered and its tokens; "" for a failure."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    async with session.post(f"{url}/v1/completions", json=body | {"return_token_ids": True}) as reply:
        if reply.status != 200:
            return "", []
        answer = await reply.json()
        return answer["model"], answer["choices"][0]["token_ids"]


def _is_wrong(alone: Answers, at: int, version: str, ids: list[int]) -> bool:
    if version not in alone:
        return True
    shared = {one: _shared(ids, answers[at]) for one, answers in alone.items()}
    return shared[version] < max(shared.values())


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
