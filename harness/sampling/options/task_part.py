"""A session that answers some tasks of a run with an adapter that was trained for them (test-time training)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.client.protocol.model_alias import ModelAlias
from harness.runs.schemas.manifest_schema import ModelConfig
from harness.runs.schemas.task_training import Protocol, TttConfig


@dataclass(frozen=True)
class TaskPart:
    """The tasks that a session answers, and by which served model; the run has one model, of the alias's name.

    Args:
        hash: content hash that the served model must have; None if it is not known.
        config: recorded with the run.
        protocol: recorded with the run.
        started: when the command began of which this is one session among many; as ``environment.now``.
    """

    task_ids: frozenset[str]
    alias: ModelAlias
    hash: str | None
    config: TttConfig
    protocol: Protocol
    started: str

    @property
    def hashes(self) -> dict[str, str]:
        """The content hash that servers must report, by the run's name of the model."""
        return {} if self.hash is None else {self.alias.name: self.hash}


def without_hashes(models: Sequence[ModelConfig]) -> list[ModelConfig]:
    """Return models without content hashes: each task is answered by weights of its own, which ttt.jsonl names."""
    return [model.model_copy(update={"hash": None}) for model in models]
