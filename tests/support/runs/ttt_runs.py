"""Runs of ``bench ttt`` on a running server: their command, and what is compared of two of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.prediction_schema import PredictionRecord
from harness.runs.schemas.task_training import TaskRecord
from serve.client import admin
from serve.launch.process import Server
from serve.registry.store import Registry
from tests.support.runs.sampling_runs import predictions_without_times
from tests.support.servers.adapter_server import AdapterServer
from tests.support.vllm.dtypes import is_exact, tolerance

DATASET = "toy/cross/evaluation#n=3"
IDS = ("cross-000000", "cross-000001", "cross-000002")
VIEWS = 4


@dataclass(frozen=True)
class Site:
    """A running server with a registry, and a recipe of a few steps."""

    server: Server | AdapterServer
    registry: Path
    recipe: Path

    def words(self, out: Path, *more: object, dataset: str = DATASET) -> list[str]:
        """Return the words of a run on this server, without ``bench``."""
        words = ["ttt", self.recipe, "--dataset", dataset, "-n", VIEWS, "--max-tokens", 24, "--name", "mine"]
        return [*map(str, [*words, "--server", self.server.url, "--adapters", self.registry, "--out", out, *more])]

    def loaded(self) -> list[str]:
        """Return the versions that the server has loaded."""
        rows = [row for name in admin.list_adapters(self.server.url)["adapters"] for row in name["versions"]]
        return [row["id"] for row in rows if row["state"] != "registered"]

    def is_clean(self) -> bool:
        """Return whether neither server nor registry has an adapter."""
        return not self.loaded() and not Registry(self.registry).names()


def records(run: Path) -> dict[str, TaskRecord]:
    return TrainingLog(run / TTT_LOG).records()


def digests(run: Path) -> dict[str, str | None]:
    return {name: record.digest for name, record in records(run).items()}


def answers(run: Path, task_id: str | None = None) -> list[PredictionRecord]:
    """Return the predictions of a run, or of one task, without times."""
    return predictions_without_times(run, lambda r: task_id in (None, r.task_id))


def assert_alike(actual: list[PredictionRecord], expected: list[PredictionRecord]) -> None:
    """Assert equal predictions; log-probabilities may differ in the last digits, as they depend on the batch."""
    assert len(actual) == len(expected)
    for one, two in zip(actual, expected, strict=True):
        assert one.cumulative_logprob == pytest.approx(two.cumulative_logprob, abs=tolerance())
        assert one.model_copy(update={"cumulative_logprob": two.cumulative_logprob}) == two


def assert_same(run: Path, expected: Path) -> None:
    """Assert that a run has the same adapters and predictions as another, each answered by the same version."""
    assert digests(run) == digests(expected)
    assert {n: r.answered_by for n, r in records(run).items()} == {
        n: r.answered_by for n, r in records(expected).items()
    }
    if is_exact():
        assert_alike(answers(run), answers(expected))
