"""The state of one server process, shared by the middleware and the endpoint plugin."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serve.keys import Keys
from serve.registry.base_model import BaseModel
from serve.server.adapters.loaded_versions import LoadedVersion
from serve.server.adapters.pool import AdapterPool
from serve.server.adapters.slot_gate import SlotGate
from serve.server.http.limits import SCORE_ROUTE
from serve.server.metrics import Metrics
from serve.server.scoring.answer_scores import AnswerScorer


@dataclass
class Service:
    """One running server.

    Attributes:
        pool: its adapters; None if it was started without a registry.
        gate: lets at most --max-loras adapters compute at a time; None without a registry.
        max_model_len: longest prompt and answer together, in tokens.
        dtype: in which it computes, such as "bfloat16".
        log: the file of its output; None unless it listens on loopback, so that no other machine learns the path.
        scorer: computes log-probabilities of given answers; None if this vLLM cannot.
        prompt_rows_are_right: whether the logits of a prompt use its own adapter if that is on the output layer.
        started: Unix seconds.
        draining: it is shutting down and accepts no more requests.
        asleep: its GPU memory is free, so that it can neither answer nor load adapters until it wakes.
        in_flight: requests to a model that have not ended.
        falling_asleep: is held while it goes to sleep or wakes.
    """

    base: BaseModel
    model_path: str
    max_model_len: int
    keys: Keys
    pool: AdapterPool | None
    gate: SlotGate | None
    metrics: Metrics
    dtype: str | None = None
    log: str | None = None
    scorer: AnswerScorer | None = None
    prompt_rows_are_right: bool = False
    started: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    asleep: bool = False
    in_flight: int = 0
    falling_asleep: asyncio.Lock = field(default_factory=asyncio.Lock)
    _done: threading.Condition = field(default_factory=threading.Condition)

    def set_asleep(self, asleep: bool) -> None:
        """Refuse requests and changes of adapters from now on, or accept them again."""
        self.asleep = asleep
        if self.pool is not None:
            self.pool.asleep = asleep

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight while the block runs; a shutdown waits for it."""
        with self._done:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._done:
                self.in_flight -= 1
                self._done.notify_all()

    def drain(self, seconds: float) -> bool:
        """Accept no more requests and wait until none is in flight; False if that took longer than ``seconds``.

        Called from another thread.
        """
        self.draining = True
        with self._done:
            return self._done.wait_for(lambda: self.in_flight == 0, timeout=seconds)

    def model_list(self) -> dict[str, Any]:
        """Return the answer of GET /v1/models: base, live names and loaded versions.

        The entry "arc_bench" of each model has what OpenAI's form lacks.
        """
        details = {
            "kind": "base",
            "hash": self.base.hash,
            "max_loras": self._max_loras,
            "dtype": self.dtype,
            "log": self.log,
            "score": self._score_route,
        }
        base = self._card(self.base.name, self.model_path, None, details)
        cards = [base]
        if self.pool is not None:
            loaded = {model: entry for model, entry in self.pool.loaded.items() if not entry.retiring}
            cards += [self._adapter_card(name, "alias", loaded[i]) for name, i in sorted(self.pool.live.items())]
            cards += [self._adapter_card(model, "version", entry) for model, entry in sorted(loaded.items())]
        return {"object": "list", "data": cards}

    @property
    def _max_loras(self) -> int | None:
        """How many adapters a client may usefully request at the same time."""
        return self.gate.slots if self.gate is not None else None

    @property
    def _score_route(self) -> str | None:
        """The route that scores answers, so that clients know of it."""
        return SCORE_ROUTE if self.scorer is not None else None

    def _card(self, name: str, root: str, parent: str | None, details: dict[str, Any]) -> dict[str, Any]:
        """Return one model in OpenAI's form, with our details."""
        card = {"id": name, "object": "model", "created": self.started, "owned_by": "arc-bench"}
        return {**card, "root": root, "parent": parent, "max_model_len": self.max_model_len, "arc_bench": details}

    def _adapter_card(self, name: str, kind: str, entry: LoadedVersion) -> dict[str, Any]:
        """Return a loaded version under a name ("alias") or its id ("version")."""
        verified = entry.verified
        details = {
            "kind": kind,
            "version": entry.version.version,
            "hash": verified.hash,
            "rank": verified.facts.rank,
            "targets": list(verified.facts.targets),
            "base": self.base.name,
            "base_hash": self.base.hash,
            "max_loras": self._max_loras,
            "dtype": self.dtype,
            "score": self._score_route,
            "manifest": verified.manifest,
        }
        return self._card(name, entry.version.id, self.base.name, details)
