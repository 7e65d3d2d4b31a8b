"""What tests share: the folder of optional real data, and runs made by hand through the run folder's own writer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import settings

from harness.core.grid import Grid, Task
from harness.core.random_stream import Stream
from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.prediction_log import PredictionLog
from harness.runs.schema import (
    AugmentationRecord,
    Environment,
    Manifest,
    ModelConfig,
    PredictionRecord,
    RunConfig,
)
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.adapter_toys import make_base
from tests.support.run_files import append_record
from tests.support.tiny_qwen import make_model
from tests.support.train_runs import FEW, recipe_data, trained

ROOT = Path(__file__).parent.parent
# HOME and all caches were made empty in tests/__init__.py, before anything else was imported.
assert "arc-bench-home-" in os.environ["HOME"], "tests run with an empty HOME of their own"
pytest_plugins = ["tests.faults.matrix"]
# One thread each: those of several processes on few cores wait for each other by spinning, at twice the time and more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# No example is judged by its time on a busy machine, and a submission is not judged by a new random draw.
settings.register_profile("arc-bench", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("arc-bench")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long is slow too, so that ``-m "not slow"`` leaves the fast tests alone."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Under ``--dist loadscope`` a process takes whole files, and all of those that share a server or an adapter."""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def scope(file: str) -> str:
        if file.startswith("tests/serving/"):
            return "the shared server"
        trained = re.search(r"\b(whole|plain|few)_run\b", (ROOT / file).read_text(encoding="utf-8"))
        return "the shared adapters" if trained else file

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid.partition("::")[0])

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for tests, which lies beside the checkout on some machines."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.parent.name}/{folder.name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A model folder of a few layers, without meaning."""
    return BaseModel.open(make_base(tmp_path_factory.mktemp("models") / "toy-base"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty adapter registry."""
    return Registry(tmp_path / "adapters")


def wrong_grid(grid: Grid, k: int) -> Grid:
    """Another grid of the same shape, the k-th of them."""
    return Grid(grid.height, grid.width, bytes([(grid.cells[0] + 1 + k) % 10]) + grid.cells[1:])


def record(
    model: str, task: Task, test: int, sample: int, grid: Grid | None, outcome: str = "grid"
) -> PredictionRecord:
    """One prediction line as a run would write it."""
    return PredictionRecord.model_validate(
        {
            "model": model,
            "task_id": task.id,
            "test_index": test,
            "sample_index": sample,
            "augmentation": AugmentationRecord(symmetry="identity", colours=list(range(10)), order=[0, 1, 2, 3]),
            "outcome": outcome,
            "grid": None if grid is None else grid.to_rows(),
            "text": "text",
            "cumulative_logprob": -0.5 - sample,
            "n_tokens": 4,
            "finish_reason": "stop",
            "seed": 0,
            "seconds": 0.25,
        }
    )


def manifest(spec: str, models: Sequence[str], n: int, seed: int = 0) -> Manifest:
    """The manifest of a finished run."""
    dataset = open_dataset(spec)
    config = {
        "models": [
            ModelConfig(
                name=name,
                prompt="compact-v0",
                prompt_digest="d",
                encoder="MinimalGridEncoder()",
                max_tokens=9,
                hash=None,
            )
            for name in models
        ],
        "dataset": spec,
        "dataset_digest": dataset.digest(),
        "task_ids": list(dataset.ids),
        "n": n,
        "samples_per_view": 1,
        "augment": True,
        "seed": seed,
        "api": "chat",
        "temperature": 0.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "extra_body": {},
        "chat_template_kwargs": {},
    }
    environment = {"version": "0.1.0", "commit": "abc", "dirty": False, "python": "3.11", "packages": {"click": "8"}}
    return Manifest.model_validate(
        {
            "format": 1,
            "config": RunConfig.model_validate(config),
            "environment": Environment.model_validate({**environment, "host": "h", "platform": "p"}),
            "servers": ["http://127.0.0.1:8000"],
            "served": [],
            "warnings": [],
            "without": [],
            "answered_as": {},
            "started": "2026-01-01T00:00:00+00:00",
            "resumed": [],
            "finished": "2026-01-01T00:01:00+00:00",
            "task_digests": [content_digest(task) for task in iterate_tasks(dataset)],
        }
    )


def edit_manifest(run: Path, **changes: object) -> None:
    """Write a run's manifest anew with other values, of its configuration where that has them."""
    folder = RunFolder(run)
    told = folder.manifest()
    own = {name: value for name, value in changes.items() if name in RunConfig.model_fields}
    rest = {name: value for name, value in changes.items() if name not in own}
    folder.write_manifest(told.model_copy(update={"config": told.config.model_copy(update=own), **rest}))


@pytest.fixture(scope="session")
def train_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of the trainer write."""
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="session")
def qwen(train_root: Path) -> Path:
    """A random base model."""
    return make_model(train_root / "tiny-qwen")


@pytest.fixture(scope="session")
def whole_run(train_root: Path, qwen: Path) -> Path:
    """An uninterrupted run with dropout."""
    return trained(recipe_data(qwen, train_root / "whole"))


@pytest.fixture(scope="session")
def plain_run(train_root: Path, qwen: Path) -> Path:
    """An uninterrupted run without dropout, and with a large rate, so that it differs much from the base."""
    return trained(recipe_data(qwen, train_root / "plain", lora={"rank": 8}, learning_rate=1e-2))


@pytest.fixture(scope="session")
def few_run(train_root: Path, qwen: Path) -> Path:
    """A few steps without dropout, each sample in a forward pass of its own."""
    return trained(recipe_data(qwen, train_root / "few", micro_batch_size=1, **FEW))


MakeRun = Callable[..., Path]


def write_run(
    parent: Path, name: str, spec: str, skill: dict[str, float], n: int = 4, seed: int = 0, fails: float = 0.1
) -> Path:
    """Write a finished run in which each model answers each prediction rightly with its own probability."""
    folder = RunFolder(parent / name)
    folder.path.mkdir()
    folder.write_manifest(manifest(spec, list(skill), n, seed))
    dataset = open_dataset(spec)
    log = PredictionLog(folder.predictions_path)
    for model, share in skill.items():
        for index in range(len(dataset.ids)):
            task = dataset.task(index)
            for test, pair in enumerate(task.test):
                for sample in range(n):
                    stream = Stream("fake", model, task.id, test, sample)
                    assert pair.output is not None
                    if stream.uniform() < fails:
                        append_record(log, record(model, task, test, sample, None, "unparsed"))
                        continue
                    right = stream.uniform() < share
                    grid = pair.output if right else wrong_grid(pair.output, stream.below(3))
                    append_record(log, record(model, task, test, sample, grid))
    log.commit()
    log.close()
    return folder.path


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``write_run`` into the test's own folder."""
    return partial(write_run, tmp_path)
