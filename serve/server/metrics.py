"""Prometheus metrics per adapter, served beside vLLM's own on /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Metrics labelled by the model that answered (NAME@VERSION or the base); swaps by the adapter's name."""

    requests: Any
    failures: Any
    tokens: Any
    waited: Any
    swaps: Any
    loaded: Any

    @staticmethod
    def register(registry: Any = None) -> Metrics:
        """Create the metrics in a prometheus_client registry; the default one accepts them once per process."""
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
        """Count a request that reached vLLM.

        Args:
            model: the version that answered.
            status: the HTTP status.
            finished: whether the whole response was sent; otherwise the request counts as failed.
            waited: seconds that the request waited for its adapter's slot.
        """
        self.requests.labels(model, str(status)).inc()
        self.waited.labels(model).observe(waited)
        if status != 200 or not finished:
            self.failures.labels(model).inc()

    def count_tokens(self, model: str, state: Mapping[str, Any]) -> None:
        """Add the token counts that vLLM leaves in the ASGI state of a finished request, also of a streamed one."""
        usage = getattr(state.get("request_metadata"), "final_usage_info", None)
        if usage is not None:
            self.tokens.labels(model, "prompt").inc(usage.prompt_tokens)
            self.tokens.labels(model, "completion").inc(usage.completion_tokens or 0)

    def count_swap(self, name: str) -> None:
        """Count that a name was switched to another version."""
        self.swaps.labels(name).inc()
