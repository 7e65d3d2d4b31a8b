"""What the middleware and the endpoint plugin share inside one server process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serve.base_model import BaseModel
from serve.fairness import SlotGate
from serve.keys import Keys
from serve.metrics import Metrics
from serve.pool import AdapterPool


@dataclass
class Service:
    """One running server.

    Attributes:
        pool: None where the server was started without a registry.
        max_model_len: the longest prompt and answer together, in tokens.
    """

    base: BaseModel
    model_path: str
    max_model_len: int
    keys: Keys
    pool: AdapterPool | None
    gate: SlotGate | None
    metrics: Metrics
    started: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    in_flight: int = 0
    _done: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request in, so that a shutdown waits for it."""
        with self._done:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._done:
                self.in_flight -= 1
                self._done.notify_all()

    def drain(self, seconds: float) -> bool:
        """Stop being ready and wait, in another thread, until nothing is in flight; False where that took too long."""
        self.draining = True
        with self._done:
            return self._done.wait_for(lambda: self.in_flight == 0, timeout=seconds)

    def model_list(self) -> dict[str, Any]:
        """The answer of GET /v1/models: the base, the live names, and every loaded version."""
        card = {
            "object": "model",
            "created": self.started,
            "owned_by": "arc-bench",
            "max_model_len": self.max_model_len,
        }
        base = {
            "id": self.base.name,
            **card,
            "root": self.model_path,
            "parent": None,
            "kind": "base",
            "hash": self.base.hash,
        }
        cards: list[dict[str, Any]] = [base]
        if self.pool is not None:
            loaded = self.pool.loaded
            for name, model in sorted(self.pool.live.items()):
                cards.append({"id": name, **card, **self._adapter_card(model), "kind": "alias"})
            for model in sorted(m for m, entry in loaded.items() if not entry.retiring):
                cards.append({"id": model, **card, **self._adapter_card(model), "kind": "version"})
        return {"object": "list", "data": cards}

    def _adapter_card(self, model: str) -> dict[str, Any]:
        assert self.pool is not None
        entry = self.pool.loaded[model]
        verified = entry.verified
        return {
            "root": model,
            "parent": self.base.name,
            "version": entry.version.version,
            "hash": verified.hash,
            "rank": verified.facts.rank,
            "targets": list(verified.facts.targets),
            "base": self.base.name,
            "base_hash": self.base.hash,
            "manifest": verified.manifest,
        }


def owner_is_gone(owner: int) -> bool:
    """Whether the process that was to own this server has ended (its children pass to another parent)."""
    return os.getppid() != owner
