"""``bench run`` against a real vLLM: equal predictions by either route, also with unusual templates and eos tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness.client.pool.retry import RetryPolicy
from harness.core.errors import RunError
from harness.prompts.file_tokenizer import FileTokenizer
from harness.runs.folder import RunFolder
from harness.runs.schemas.prediction_schema import PredictionRecord
from harness.sampling.options.run_options import RunOptions
from serve.client import admin
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.families.make import make_family
from tests.support.models.tiny_models import make_lora
from tests.support.runs.cut_runs import predictions_by_output, sample_until
from tests.support.runs.sampling_runs import predictions_without_times, run_options, run_sampling
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import SERVE_OPTIONS, tolerance, vllm_words
from tests.support.vllm.plain_vllm import PlainVllm


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of ``bench serve`` with the tiny base and a random adapter, in float32."""
    root = tmp_path_factory.mktemp("real")
    adapter = make_lora(root / "lora", TINY_BASE, 1)
    registry = Registry(root / "adapters")
    version = registry.add("random", adapter, BaseModel.open(TINY_BASE)).id
    with serving(TINY_BASE, registry.root, log=root / "log", max_loras=2, **SERVE_OPTIONS) as server:
        admin.load(server.url, version)
        yield server.url


def check_alike(actual: list[PredictionRecord], expected: list[PredictionRecord]) -> None:
    """Assert equal predictions; log-probabilities may differ in the last digits, as they depend on the batch."""
    assert len(actual) == len(expected)
    for one, two in zip(actual, expected, strict=True):
        assert one.cumulative_logprob == pytest.approx(two.cumulative_logprob, abs=tolerance())
        assert one.model_copy(update={"cumulative_logprob": two.cumulative_logprob}) == two


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples_per_view": 2}], ids=["greedy", "sampled"])
def test_either_route_gives_the_same_predictions(url: str, tmp_path: Path, settings: dict[str, object]) -> None:
    chosen = run_options(
        url, tmp_path / "chat", models=("tiny-base", "random"), dataset="toy/recolour/evaluation#n=8", n=8
    )
    chosen = replace(chosen, policy=RetryPolicy(), **settings)  # type: ignore[arg-type]
    run_sampling(replace(chosen, api="chat"))
    run_sampling(replace(chosen, out=tmp_path / "auto"))
    manifest = RunFolder(tmp_path / "auto").manifest()
    assert manifest.config.api == "completions"
    dtype = vllm_words(with_adapters=True)[1]
    assert {model.name: model.dtype for model in manifest.served} == dict.fromkeys(("tiny-base", "random"), dtype)
    predictions = predictions_without_times(tmp_path / "auto")
    check_alike(predictions, predictions_without_times(tmp_path / "chat"))
    assert len({record.text for record in predictions}) > 20
    assert all(record.n_tokens and record.cumulative_logprob is not None for record in predictions)


@pytest.mark.slow
def test_a_run_that_a_deadline_cut_is_completed_to_the_same(url: str, tmp_path: Path) -> None:
    chosen = run_options(url, tmp_path / "cut", models=("tiny-base", "random"), dataset="toy/recolour/evaluation#n=8")
    few = replace(chosen, n=32, policy=RetryPolicy(max_in_flight=2))
    summary = sample_until(few, 2)
    assert summary.is_cut
    assert 0 < summary.done < summary.total == 512
    assert summary.sampling_seconds < 2 + 5 + 10
    saved = RunFolder(few.out).predictions_path.read_bytes()
    assert saved.count(b"\n") == summary.done
    if summary.done >= 32:
        counts = predictions_by_output(few.out)
        assert len(counts) == 16
        assert max(counts.values()) <= 2 * min(counts.values()) + 1
    run_sampling(replace(few, resume=True, policy=RetryPolicy()))
    assert RunFolder(few.out).predictions_path.read_bytes().startswith(saved)
    run_sampling(replace(few, out=tmp_path / "whole", policy=RetryPolicy()))
    check_alike(predictions_without_times(few.out), predictions_without_times(tmp_path / "whole"))


@pytest.mark.slow
def test_bench_serve_reports_how_many_adapters_it_computes_at_once(url: str, tmp_path: Path) -> None:
    run_sampling(run_options(url, tmp_path / "run", models=("tiny-base", "random"), dataset="toy/copy#n=1", n=2))
    served = RunFolder(tmp_path / "run").manifest().served
    assert [model.max_loras for model in served if model.parent is None] == [2]


@pytest.mark.slow
def test_a_template_with_a_date_and_a_base_without_an_end_of_turn(tmp_path: Path) -> None:
    """The server writes the run's date into chats, and ends answers at the stop token of the request."""
    model = make_family("llama3-base-chat", tmp_path / "llama")
    server = PlainVllm(model, "llama", tmp_path / "log")
    server.start()
    try:
        server.wait()
        chosen = run_options(server.url, tmp_path / "chat", models=("llama",), n=3, max_tokens=24, policy=RetryPolicy())
        for api in ("chat", "completions"):
            with pytest.raises(RunError, match="gave no answer"):  # A random model has none.
                run_sampling(replace(chosen, out=tmp_path / api, api=api))
        (asked,) = RunFolder(tmp_path / "completions").manifest().config.models
        check_alike(predictions_without_times(tmp_path / "chat"), predictions_without_times(tmp_path / "completions"))
        _check_stops(server.url, tmp_path, chosen, predictions_without_times(tmp_path / "completions"))
    finally:
        server.kill()
    assert asked.template_date is not None
    assert asked.stop_token_ids == FileTokenizer(model).encode("<|eot_id|>", add_special_tokens=False)


def _check_stops(url: str, folder: Path, chosen: RunOptions, free: list[PredictionRecord]) -> None:
    """Assert that a stop token ends answers where it first occurs, on both routes."""
    text = next(record.text for record in free if record.text)
    tokenizer = FileTokenizer(folder / "llama")
    stop = tokenizer.encode(text, add_special_tokens=False)[-1]
    cut: dict[str, list[PredictionRecord]] = {}
    for api in ("chat", "completions"):
        out = folder / f"{api}-stop"
        with suppress(RunError):
            run_sampling(replace(chosen, out=out, api=api, extra_body={"stop_token_ids": [stop]}))
        cut[api] = predictions_without_times(out)
    check_alike(cut["chat"], cut["completions"])
    assert any(record.finish_reason == "stop" for record in cut["chat"])
    for one, other in zip(cut["chat"], free, strict=True):
        assert other.text is not None
        assert one.text is not None
        assert other.text.startswith(one.text)
