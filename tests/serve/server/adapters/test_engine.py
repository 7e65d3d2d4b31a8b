"""The adapter pool's calls of vLLM's engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from harness.core.errors import AdapterError
from serve.server.adapters.engine import VllmEngine


@pytest.mark.slow  # imports vLLM
@pytest.mark.parametrize(("asked", "removed"), [(True, [8]), (False, [])])
def test_a_load_that_failed_leaves_nothing_on_any_engine(asked: bool, removed: list[int]) -> None:
    """Some of several engines may have loaded it. If vLLM refuses it before, there is no id to remove."""
    numbers = SimpleNamespace(value=7)
    forgotten: list[int] = []

    async def load_lora_adapter(request: object) -> object:
        numbers.value += asked
        return SimpleNamespace(error=SimpleNamespace(message="engine 1 is out of memory"))

    async def remove_lora(number: int) -> None:
        forgotten.append(number)

    models = SimpleNamespace(lora_id_counter=numbers, load_lora_adapter=load_lora_adapter)
    with pytest.raises(AdapterError, match="engine 1 is out of memory"):
        asyncio.run(VllmEngine(models, SimpleNamespace(remove_lora=remove_lora)).load("a@1", "/a"))
    assert forgotten == removed
