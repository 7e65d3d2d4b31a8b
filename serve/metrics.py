"""Prometheus figures per adapter, beside vLLM's own on /metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TOKENS = re.compile(rb'"(prompt_tokens|completion_tokens)"\s*:\s*(\d+)')


@dataclass(frozen=True)
class Metrics:
    """Counters labelled by the model that answered (NAME@VERSION or the base)."""

    requests: Any
    failures: Any
    tokens: Any
    waited: Any
    swaps: Any
    loaded: Any

    @staticmethod
    def make(registry: Any = None) -> Metrics:
        """Register the figures in a prometheus_client registry (the default one takes them once a process)."""
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        to = {"registry": registry or REGISTRY}
        return Metrics(
            Counter("arc_bench_requests", "Requests answered", ["model", "status"], **to),
            Counter("arc_bench_request_failures", "Requests answered with 4xx or 5xx, or cut short", ["model"], **to),
            Counter("arc_bench_tokens", "Tokens, as the answers' usage gives them", ["model", "kind"], **to),
            Histogram(
                "arc_bench_slot_wait_seconds", "Seconds a request waited for a slot of its adapter", ["model"], **to
            ),
            Counter("arc_bench_swaps", "Times a name was pointed at another version", **to),
            Gauge("arc_bench_adapters_loaded", "Versions in the engine", **to),
        )

    def count_tokens(self, model: str, chunk: bytes) -> None:
        """Add the usage found in a piece of an answer."""
        at = chunk.rfind(b'"usage"')
        if at >= 0:
            for kind, number in _TOKENS.findall(chunk[at:]):
                self.tokens.labels(model, kind.decode().removesuffix("_tokens")).inc(int(number))
