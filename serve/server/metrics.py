"""Prometheus figures per adapter, beside vLLM's own on /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Figures labelled by the model that answered (NAME@VERSION or the base); swaps by the adapter's name."""

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
            Counter("arc_bench_tokens", "Tokens of finished requests, prompt and completion", ["model", "kind"], **to),
            Histogram("arc_bench_queue_seconds", "Seconds a request waited for its adapter's turn", ["model"], **to),
            Counter("arc_bench_swaps", "Times a name was pointed at another version", ["name"], **to),
            Gauge("arc_bench_adapters_loaded", "Versions in the engine", **to),
        )

    def count_request(self, model: str, status: int, finished: bool, waited: float) -> None:
        """Count one request that reached vLLM and waited so many seconds before; unfinished ones have failed."""
        self.requests.labels(model, str(status)).inc()
        self.waited.labels(model).observe(waited)
        if status != 200 or not finished:
            self.failures.labels(model).inc()

    def count_tokens(self, model: str, state: Mapping[str, Any]) -> None:
        """Add what vLLM left about a finished request in its ASGI state, streamed ones included."""
        usage = getattr(state.get("request_metadata"), "final_usage_info", None)
        if usage is not None:
            self.tokens.labels(model, "prompt").inc(usage.prompt_tokens)
            self.tokens.labels(model, "completion").inc(usage.completion_tokens or 0)

    def count_swap(self, name: str) -> None:
        """Count one swap of a name."""
        self.swaps.labels(name).inc()
