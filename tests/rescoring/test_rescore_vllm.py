"""``bench rescore`` against a real vLLM: as PEFT in float32, by every method, and complete after kill -9."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.candidates.rescores import RESCORES_FILE
from harness.client.pool.retry import RetryPolicy
from harness.pools.pool_scores import compare_with_members
from harness.scoring.prediction_loader import open_predictions
from serve.client import admin
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.commands import wait_until
from tests.support.models.answer_logprobs import reference
from tests.support.models.tiny_models import make_lora
from tests.support.runs.pools import make_pool, write_submission
from tests.support.runs.rescored_runs import (
    VIEWS,
    Key,
    prompts_and_answers,
    rescore_options,
    run_rescore,
    saved_lines,
    saved_logprobs,
)
from tests.support.runs.run_folders import write_run
from tests.support.servers.chat_server import TINY_BASE
from tests.support.vllm.dtypes import SERVE_OPTIONS, tolerance
from tests.support.vllm.plain_vllm import PlainVllm

pytestmark = pytest.mark.slow
BASE, ADAPTER = "tiny-base", "random"
SPEC = "toy/cross/evaluation#n=8"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter of the tiny base."""
    return make_lora(tmp_path_factory.mktemp("adapter") / "lora", TINY_BASE, 1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, adapter: Path) -> Iterator[str]:
    """The URL of ``bench serve`` with the tiny base and the random adapter, in float32."""
    root = tmp_path_factory.mktemp("served")
    registry = Registry(root / "adapters")
    version = registry.add(ADAPTER, adapter, BaseModel.open(TINY_BASE)).id
    with serving(TINY_BASE, registry.root, log=root / "log", max_loras=2, **SERVE_OPTIONS) as server:
        admin.load(server.url, version)
        yield server.url


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two models with made-up candidates."""
    return write_run(tmp_path, "run", SPEC, {BASE: 0.5, ADAPTER: 0.3}, n=5)


def by_peft(run: Path, adapter: Path, scorer: str | None = None) -> dict[Key, float]:
    """Return what transformers and PEFT compute for every candidate and view."""
    folders = {BASE: None, ADAPTER: adapter}
    return {
        key: reference(TINY_BASE, folders[key[0]])(prompt, answer)
        for key, (prompt, answer) in prompts_and_answers(run, scorer).items()
    }


def test_scores_equal_peft_for_base_and_adapter(url: str, run: Path, adapter: Path) -> None:
    summary = run_rescore(rescore_options(url, run, policy=RetryPolicy()))
    expected = by_peft(run, adapter)
    assert summary.scored == len(expected) > 100
    assert saved_logprobs(run) == pytest.approx(expected, abs=tolerance())
    assert {line["method"] for line in saved_lines(run)} == {"arc_score"}
    assert all(line["scorer_hash"] for line in saved_lines(run) if line["scorer"] == ADAPTER)


def test_an_adapter_rescores_the_candidates_of_the_base(url: str, run: Path, adapter: Path) -> None:
    run_rescore(rescore_options(url, run, model=ADAPTER, policy=RetryPolicy()))
    assert saved_logprobs(run) == pytest.approx(by_peft(run, adapter, ADAPTER), abs=tolerance())


def test_an_adapter_rescores_a_pool_of_runs_and_a_submission(
    url: str, run: Path, adapter: Path, tmp_path: Path
) -> None:
    submission = write_submission(tmp_path / "submission.json", SPEC, right=3)
    other = write_run(tmp_path, "other", SPEC, {BASE: 0.4}, n=5, seed=0)
    pool = make_pool(tmp_path / "pool", run, other, submission)
    run_rescore(rescore_options(url, pool, model=ADAPTER, policy=RetryPolicy()))
    tokens = prompts_and_answers(run, ADAPTER, pool=pool)
    expected = {key: reference(TINY_BASE, adapter)(prompt, answer) for key, (prompt, answer) in tokens.items()}
    assert saved_logprobs(pool) == pytest.approx(expected, abs=tolerance())
    saved = open_predictions(pool)
    result = compare_with_members(saved, "poe,kgmon", resamples=100).result
    assert list(result.chosen) == ["vote", "poe", "kgmon"]


def test_a_killed_session_is_completed(url: str, run: Path, adapter: Path) -> None:
    path = run / RESCORES_FILE
    command = [sys.executable, "-m", "harness.cli", "rescore", str(run), "--server", url, "--views", str(VIEWS)]
    for lines in (20, 60):
        with subprocess.Popen([*command, "--max-in-flight", "4"], stderr=subprocess.DEVNULL) as process:
            wait_until(lambda wanted=lines: path.exists() and path.read_bytes().count(b"\n") > wanted)
            process.kill()
        assert process.returncode < 0
    assert path.read_bytes().count(b"\n") - 1 < len(prompts_and_answers(run))
    subprocess.run(command, check=True, capture_output=True)
    assert saved_logprobs(run) == pytest.approx(by_peft(run, adapter), abs=tolerance())


def test_plain_vllm_gives_the_same_scores(run: Path, adapter: Path, tmp_path: Path) -> None:
    server = PlainVllm(TINY_BASE, BASE, tmp_path / "log")
    server.start()
    try:
        server.wait()
        run_rescore(rescore_options(server.url, run, model=BASE, policy=RetryPolicy()))
    finally:
        server.kill()
    assert saved_logprobs(run) == pytest.approx(by_peft(run, adapter, BASE), abs=tolerance())
    assert {line["method"] for line in saved_lines(run)} == {"prompt_logprobs"}
