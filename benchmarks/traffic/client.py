"""Send completions of chosen lengths to a server, many at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil

import aiohttp
import numpy as np
import orjson

IN_FLIGHT = 64
_VOCABULARY = 94
"""Prompts are random ids below this: printable characters of the tiny base's tokenizer, so that a prompt is text."""


@dataclass(frozen=True)
class Form:
    """Lengths in tokens of prompts and answers, and prompts in one request."""

    prompt: int
    answer: int
    prompts: int = 1

    @property
    def key(self) -> str:
        """Return the form's name in stored measurements."""
        return f"{self.prompt}+{self.answer}x{self.prompts}"

    @property
    def label(self) -> str:
        """Return the form in words."""
        lists = f", {self.prompts} prompts in a request" if self.prompts > 1 else ""
        return f"{self.prompt:,} + {self.answer} tokens{lists}"


def request_bodies(form: Form, model: str, count: int, seed: int) -> list[bytes]:
    """Return the bodies of ``count`` requests with prompts that no other seed has."""
    draws = np.random.default_rng(seed).integers(0, _VOCABULARY, (count, form.prompts, form.prompt)).tolist()
    fields = {"model": model, "max_tokens": form.answer, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    return [orjson.dumps({**fields, "prompt": prompts}) for prompts in draws]


async def drive(url: str, form: Form, model: str, answers: int, seed: int) -> tuple[float, int]:
    """Send completions with IN_FLIGHT prompts in flight, and return the seconds and the number of failed requests.

    Args:
        answers: rounded up to whole requests.
    """
    remaining = iter(request_bodies(form, model, ceil(answers / form.prompts), seed))
    failed = 0
    headers = {"Content-Type": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        for body in remaining:
            async with session.post(f"{url}/v1/completions", data=body, headers=headers) as reply:
                await reply.read()
                failed += reply.status != 200

    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(max(1, IN_FLIGHT // form.prompts))))
        return time.perf_counter() - started, failed
