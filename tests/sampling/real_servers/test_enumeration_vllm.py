"""``--search dfs`` against a real vLLM finds what brute force by transformers finds, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from harness.client.pool.retry import RetryPolicy
from harness.core.errors import ServerError
from harness.runs.logs.prediction_reader import MASS_TOLERANCE, total_mass
from serve.client import admin
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.serving.world import figure
from tests.support.commands import run_bench
from tests.support.models.exact_answers import (
    ExactAnswers,
    answer_zscores,
    assert_exact_answers,
    enumerated_bounds,
    load_model,
    sampled_mean,
)
from tests.support.models.tiny_models import make_lora
from tests.support.runs.enumerated_runs import views
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_server import TINY_BASE
from tests.support.training.train_runs import recipe_data, train_adapter
from tests.support.vllm.dtypes import SERVE_OPTIONS
from tests.support.vllm.plain_vllm import PlainVllm

pytestmark = pytest.mark.slow
FAMILIES = ("cross", "recolour", "diagonal", "edge")
MODELS = ("tiny-base", "half")
THRESHOLDS = (0.02, 0.05, 0.1, 0.3)
LIMIT = 80
DRAWS = 64
Runs = Callable[[str, float], Path]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of the tiny base: one half-trained on two families that the base does not know, and a random one."""
    root = tmp_path_factory.mktemp("adapters")
    datasets = [{"spec": f"toy/{family}#n=60", "weight": 1} for family in ("cross", "diagonal")]
    recipe = recipe_data(
        TINY_BASE, root / "half", datasets=datasets, max_steps=20, batch_size=8, learning_rate=4e-3, save_steps=20
    )
    return {"half": train_adapter(recipe), "random": make_lora(root / "random", TINY_BASE, 1)}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, adapters: dict[str, Path]) -> Iterator[str]:
    """The URL of ``bench serve`` with the tiny base and the adapters, in float32."""
    root = tmp_path_factory.mktemp("served")
    registry = Registry(root / "adapters")
    versions = [registry.add(name, folder, BaseModel.open(TINY_BASE)).id for name, folder in adapters.items()]
    with serving(TINY_BASE, registry.root, log=root / "log", max_loras=2, **SERVE_OPTIONS) as server:
        for version in versions:
            admin.load(server.url, version)
        yield server.url


@pytest.fixture(scope="module")
def exact(adapters: dict[str, Path]) -> ExactAnswers:
    """The answers of brute force, by model and prompt."""
    return ExactAnswers(lambda name: load_model(TINY_BASE, adapters.get(name)), min(THRESHOLDS), LIMIT)


def run_dfs(servers: tuple[str, ...], out: Path, family: str, min_prob: float, **changes: object) -> Path:
    """Enumerate eight views of each of two tasks, in the prompt that the tiny base reads, and return the run."""
    fields: dict[str, object] = {
        "models": MODELS, "dataset": f"toy/{family}/evaluation#n=2", "n": 8, "search": "dfs", "servers": servers,
        "min_prob": min_prob, "max_tokens": LIMIT, "policy": RetryPolicy(),
    }  # fmt: skip
    run_sampling(run_options(servers[0], out, **{**fields, **changes}))
    return out


@pytest.fixture(scope="module")
def enumerated(url: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return the enumerated run of a family with a threshold: 32 views."""
    root = tmp_path_factory.mktemp("enumerated")
    return cache(lambda family, min_prob: run_dfs((url,), root / f"{family}-{min_prob}", family, min_prob))


@pytest.mark.parametrize("min_prob", THRESHOLDS)
def test_the_answers_are_those_of_brute_force(enumerated: Runs, exact: ExactAnswers, min_prob: float) -> None:
    """128 views of four families, half of them of an adapter."""
    answers = by_adapter = 0
    largest = 0.0
    for family in FAMILIES:
        run = enumerated(family, min_prob)
        saved = views(run).values()
        assert len(saved) == 32
        assert {view.outcome for view in saved} == {"enumerated"}
        answers += assert_exact_answers(run, exact, min_prob)
        by_adapter += sum(len(view.answers) for view in saved if view.model == "half")
        largest = max(largest, *(total_mass(a.sum_logprob or 0.0 for a in view.answers) for view in saved))
    print(
        f"p = {min_prob}: {answers} answers compared; the largest sum of a view's probabilities is 1 + {largest - 1:g}"
    )
    assert largest <= 1 + MASS_TOLERANCE
    assert answers > by_adapter > 0


def test_a_random_adapter_beside_the_base(url: str, adapters: dict[str, Path], tmp_path: Path) -> None:
    """A nearly flat distribution: many branches, and few answers or none."""
    fields: dict[str, object] = {"models": ("tiny-base", "random"), "max_tokens": 24, "n": 2}
    run = run_dfs((url,), tmp_path / "run", "recolour", 0.02, dataset="toy/recolour/evaluation#n=3", **fields)
    assert_exact_answers(run, ExactAnswers(lambda name: load_model(TINY_BASE, adapters.get(name)), 0.02, 24), 0.02)
    assert len(views(run)) == 12


@pytest.fixture(scope="module")
def sampled(url: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a run with 64 samples of the same views at temperature 1."""
    root = tmp_path_factory.mktemp("sampled")

    def sample(family: str) -> Path:
        options = run_options(
            url, root / family, models=MODELS, dataset=f"toy/{family}/evaluation#n=2", n=8 * DRAWS, temperature=1.0,
            samples_per_view=DRAWS, max_tokens=LIMIT, policy=RetryPolicy(),
        )  # fmt: skip
        run_sampling(options)
        return options.out

    return cache(sample)


@pytest.mark.long
@pytest.mark.parametrize("min_prob", THRESHOLDS)
def test_the_mean_of_samples_is_within_the_bounds_of_enumeration(
    enumerated: Runs, sampled: Callable[[str], Path], min_prob: float
) -> None:
    """METRICS.md: with A the accuracy and U the unexplored mass, it lies in [A - 3 SE, A + U + 3 SE]."""
    positive = 0
    for family in FAMILIES:
        for model in MODELS:
            low, high = enumerated_bounds(enumerated(family, min_prob), model)
            mean, error = sampled_mean(sampled(family), model, DRAWS)
            print(f"p = {min_prob}, {family}, {model}: {low:.4f} <= {mean:.4f} (SE {error:.4f}) <= {high:.4f}")
            assert low - 3 * error <= mean <= high + 3 * error
            positive += low > 0
    assert positive > 2


@pytest.mark.long
def test_every_answer_is_drawn_as_often_as_its_probability_says(
    enumerated: Runs, sampled: Callable[[str], Path]
) -> None:
    """The squares of the standardised differences average 1; a probability that is 5 % off would show."""
    scores = [
        score for family in FAMILIES for score in answer_zscores(enumerated(family, 0.05), sampled(family), DRAWS)
    ]
    mean_square = math.fsum(score**2 for score in scores) / len(scores)
    print(f"{len(scores)} answers: mean square {mean_square:.3f}, mean {math.fsum(scores) / len(scores):.3f}")
    assert len(scores) > 100
    assert abs(mean_square - 1) < 5 * math.sqrt(2 / len(scores))
    assert abs(math.fsum(scores)) < 5 * math.sqrt(len(scores))


def test_a_run_is_reproduced(enumerated: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_bench(capsys, "reproduce", enumerated("edge", 0.1), "--out", tmp_path / "again")
    assert status == 0, (out, err)
    assert out.splitlines() == ["32 of 32 views are the same", "metrics and failures are the same"]


def test_a_plain_vllm(exact: ExactAnswers, tmp_path: Path) -> None:
    """It gives 20 log-probabilities, which is enough for p = 0.1 and not for p = 0.02."""
    server = PlainVllm(TINY_BASE, "tiny-base", tmp_path / "log")
    server.start()
    try:
        server.wait()
        with pytest.raises(ServerError, match="start it with --max-logprobs 51"):
            run_dfs((server.url,), tmp_path / "many", "cross", 0.02, models=("tiny-base",))
        run = run_dfs((server.url,), tmp_path / "run", "cross", 0.1, models=("tiny-base",))
    finally:
        server.kill()
    assert_exact_answers(run, exact, 0.1)
    assert len(views(run)) == 16


def test_two_servers_share_a_run(url: str, exact: ExactAnswers, tmp_path: Path) -> None:
    """Branches of one view may be completed by either."""
    registry = Registry(tmp_path / "adapters")
    with serving(TINY_BASE, registry.root, log=tmp_path / "log", max_loras=1, **SERVE_OPTIONS) as second:
        urls = (url, second.url)
        before = [figure(each, "vllm:generation_tokens_total") for each in urls]
        run = run_dfs(urls, tmp_path / "run", "cross", 0.05, models=("tiny-base",), policy=RetryPolicy(max_in_flight=8))
        assert all(figure(each, "vllm:generation_tokens_total") > old for each, old in zip(urls, before, strict=True))
    assert assert_exact_answers(run, exact, 0.05) > 0
    assert len(views(run)) == 16
