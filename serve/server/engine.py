"""What the adapter pool needs of an engine, and vLLM's own loading code behind it."""

from __future__ import annotations

from typing import Any, Protocol

from harness.core.errors import AdapterError


class Engine(Protocol):
    """What the pool needs of vLLM; a failed load raises AdapterError and leaves nothing behind."""

    async def load(self, model: str, folder: str) -> None:
        """Make ``folder`` answer under the name ``model``."""

    async def unload(self, model: str) -> None:
        """Forget ``model``; no request uses it."""


class VllmEngine:
    """vLLM's own loading code, called inside the server process; it reaches every data-parallel engine."""

    def __init__(self, models: Any, client: Any) -> None:
        self._models = models
        self._client = client

    async def load(self, model: str, folder: str) -> None:
        """Load an adapter folder under a name that was never used for other weights."""
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        numbers = self._models.lora_id_counter
        before = numbers.value
        result = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=model, lora_path=folder))
        if not isinstance(result, str):
            if numbers.value > before:  # the engines were asked, and of several some may have it
                await self._client.remove_lora(numbers.value)
            raise AdapterError(f"{model}: vLLM refused it: {result.error.message}")

    async def unload(self, model: str) -> None:
        """Forget the name and free the engine's copy."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        number = self._models.lora_requests[model].lora_int_id
        result = await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=model))
        if not isinstance(result, str):
            raise AdapterError(f"{model}: vLLM refused to unload it: {result.error.message}")
        await self._client.remove_lora(number)
