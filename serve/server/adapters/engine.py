"""The interface of an engine that loads and unloads adapters, and its implementation by vLLM."""

from __future__ import annotations

from typing import Any, Protocol

from harness.core.errors import AdapterError


class Engine(Protocol):
    """An engine that holds adapters."""

    async def load(self, model: str, folder: str) -> None:
        """Load the adapter in ``folder`` so that requests for ``model`` use it.

        Raises:
            AdapterError: it failed, and left nothing loaded.
        """

    async def unload(self, model: str) -> None:
        """Unload ``model``, which no request uses."""


class VllmEngine:
    """vLLM's own loading code, called in the server's process; it reaches every data-parallel engine."""

    def __init__(self, models: Any, client: Any) -> None:
        self._models = models
        self._client = client

    async def load(self, model: str, folder: str) -> None:
        """Load an adapter folder (same errors as ``Engine.load``).

        Args:
            model: a name that has never stood for other weights, since vLLM's prefix cache is keyed by it.
        """
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        counter = self._models.lora_id_counter
        before = counter.value
        result = await self._models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=model, lora_path=folder))
        if not isinstance(result, str):
            if counter.value > before:  # the request reached the engines, and some of them may have loaded it
                await self._client.remove_lora(counter.value)
            raise AdapterError(f"{model}: vLLM refused it: {result.error.message}")

    async def unload(self, model: str) -> None:
        """Remove the name and the engines' copies of the weights."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        adapter_id = self._models.lora_requests[model].lora_int_id
        result = await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=model))
        if not isinstance(result, str):
            raise AdapterError(f"{model}: vLLM refused to unload it: {result.error.message}")
        await self._client.remove_lora(adapter_id)
