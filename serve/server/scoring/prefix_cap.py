"""Limit how much of a request's prompt vLLM takes from its prefix cache, so that an answer in it can be scored.

vLLM computes log-probabilities of prompt tokens only at positions that it computes. For cached positions it returns
uninitialised memory or nothing, which is why requests with ``prompt_logprobs`` do not read the cache at all. A request
that scores an answer reads the cache up to its prompt: ``extra_args[CACHE_CAP]`` is the number of tokens, counted from
the first, that may come from the cache. vLLM rounds it down to whole blocks.

The lookup runs in the engine's process, where this module replaces it (``serve.cpu.patches.register``). Requests
without a cap use vLLM's own method with their own arguments.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

CACHE_CAP = "arc_bench_cache_cap"
"""Key in ``SamplingParams.extra_args``."""
PATCHED = "_arc_bench"
"""Attribute of the functions with which this project replaced vLLM's."""
_BOUND = "max_cache_hit_length = request.num_tokens - 1"
"""The line of vLLM's lookup that a smaller ``num_tokens`` changes."""


def cache_cap(request: Any) -> int | None:
    """Return the cap of one of vLLM's requests; None if it has none, or one that is no count of tokens.

    A client of vLLM's own routes can set any value (``vllm_xargs``), which must not end the engine.
    """
    extra = getattr(request.sampling_params, "extra_args", None)
    cap = extra.get(CACHE_CAP) if isinstance(extra, dict) else None
    return cap if type(cap) is int and cap >= 0 else None


class CappedRequest:
    """One of vLLM's requests as its cache lookup sees it: as if it ended right after its first ``cap`` tokens.

    The lookup leaves at least the last token to compute, so that it uses at most ``num_tokens - 1`` cached tokens.
    Every other attribute is the request's.
    """

    __slots__ = ("_cap", "_request")
    _cap: int
    _request: Any

    def __init__(self, request: Any, cap: int) -> None:
        object.__setattr__(self, "_request", request)
        object.__setattr__(self, "_cap", cap)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the lookup may see."""
        tokens: int = self._request.num_tokens
        return min(tokens, self._cap + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._request, name, value)


def patch_lookup() -> bool:
    """Make vLLM's prefix-cache lookup obey the caps of requests; return whether it does.

    Raises:
        ImportError, AttributeError, OSError: this version of vLLM lacks what the patch needs.
    """
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    stock = KVCacheManager.get_computed_blocks
    if hasattr(stock, PATCHED):
        return True
    if _BOUND not in inspect.getsource(stock):
        raise AttributeError(f"KVCacheManager.get_computed_blocks lacks {_BOUND!r}")

    @wraps(stock)
    def get_computed_blocks(self: Any, request: Any) -> Any:
        cap = cache_cap(request)
        return stock(self, request if cap is None else CappedRequest(request, cap))

    setattr(get_computed_blocks, PATCHED, True)
    KVCacheManager.get_computed_blocks = get_computed_blocks
    return True
