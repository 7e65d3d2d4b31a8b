"""``bench run`` against a real vLLM: the same predictions by either route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.jobs import Policy
from harness.records import PredictionRecord
from harness.runs import RunFolder
from serve import admin
from serve.base_model import BaseModel
from serve.launcher import serving
from serve.registry import Registry
from tests.chat_server import TINY_BASE
from tests.dtypes import SERVE, tolerance
from tests.sampling_toys import options, sample, stable
from tests.tiny_qwen import make_lora


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our server with the tiny base and a random adapter, in float32."""
    root = tmp_path_factory.mktemp("real")
    adapter = make_lora(root / "lora", TINY_BASE, 1)
    registry = Registry(root / "adapters")
    version = registry.add("random", adapter, BaseModel.open(TINY_BASE)).id
    with serving(TINY_BASE, registry.root, log=root / "log", max_loras=2, **SERVE) as server:
        admin.load(server.url, version)
        yield server.url


def check_alike(found: list[PredictionRecord], expected: list[PredictionRecord]) -> None:
    """Equal in everything but the last digits of log-probabilities, which depend on who shares a batch."""
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        assert one.cumulative_logprob == pytest.approx(two.cumulative_logprob, abs=tolerance())
        assert one.model_copy(update={"cumulative_logprob": two.cumulative_logprob}) == two


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples_per_view": 2}], ids=["greedy", "sampled"])
def test_either_route_gives_the_same_predictions(url: str, tmp_path: Path, settings: dict[str, object]) -> None:
    chosen = options(url, tmp_path / "chat", models=("tiny-base", "random"), dataset="toy/recolour/evaluation#n=8", n=8)
    chosen = replace(chosen, policy=Policy(), **settings)  # type: ignore[arg-type]
    sample(replace(chosen, api="chat"))
    sample(replace(chosen, out=tmp_path / "auto"))
    assert RunFolder(tmp_path / "auto").manifest().config.api == "completions"
    predictions = stable(tmp_path / "auto")
    check_alike(predictions, stable(tmp_path / "chat"))
    assert len({record.text for record in predictions}) > 20
    assert all(record.n_tokens and record.cumulative_logprob is not None for record in predictions)


@pytest.mark.slow
def test_our_server_says_how_many_adapters_it_holds(url: str, tmp_path: Path) -> None:
    sample(options(url, tmp_path / "run", models=("tiny-base", "random"), dataset="toy/copy#n=1", n=2))
    served = RunFolder(tmp_path / "run").manifest().served
    assert [model.max_loras for model in served if model.parent is None] == [2]
