"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import re
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import settings

from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import make_base
from tests.support.models.tiny_models import make_model
from tests.support.runs.run_folders import MakeRun, write_run
from tests.support.training.train_runs import FEW_STEPS, recipe_data, train_adapter

ROOT = Path(__file__).parent.parent
# HOME and all caches were made empty in tests/__init__.py, before anything else was imported.
assert "arc-bench-home-" in os.environ["HOME"], "tests run with an empty HOME of their own"
pytest_plugins = ["tests.faults.matrix"]
# One thread per process: on few cores, spinning threads of several processes would double the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# No deadlines, because machines may be busy. In CI the examples are the same every time.
settings.register_profile("arc-bench", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("arc-bench")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark long tests as slow too, so that ``-m "not slow"`` selects only fast ones."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Under ``--dist loadscope``, give a worker whole files, and all files that share a server or adapters."""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def scope(file: str) -> str:
        if file.startswith("tests/serving/"):
            return "the shared server"
        uses_adapters = re.search(r"\b(whole|plain|few)_run\b", (ROOT / file).read_text(encoding="utf-8"))
        return "the shared adapters" if uses_adapters else file

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid.partition("::")[0])

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the checkout; skip the test if there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.parent.name}/{folder.name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """Return a random base model of two layers without a tokenizer."""
    return BaseModel.open(make_base(tmp_path_factory.mktemp("models") / "toy-base"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return an empty adapter registry."""
    return Registry(tmp_path / "adapters")


@pytest.fixture(scope="session")
def train_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for models and adapters that several tests share."""
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="session")
def qwen(train_root: Path) -> Path:
    """Return a random base model with a byte tokenizer."""
    return make_model(train_root / "tiny-qwen")


@pytest.fixture(scope="session")
def whole_run(train_root: Path, qwen: Path) -> Path:
    """Return an adapter trained with dropout and without interruption."""
    return train_adapter(recipe_data(qwen, train_root / "whole"))


@pytest.fixture(scope="session")
def plain_run(train_root: Path, qwen: Path) -> Path:
    """Return an adapter trained without dropout at a large learning rate, which differs much from the base."""
    return train_adapter(recipe_data(qwen, train_root / "plain", lora={"rank": 8}, learning_rate=1e-2))


@pytest.fixture(scope="session")
def few_run(train_root: Path, qwen: Path) -> Path:
    """Return an adapter trained for a few steps without dropout, with micro-batches of one sample."""
    return train_adapter(recipe_data(qwen, train_root / "few", micro_batch_size=1, **FEW_STEPS))


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return `write_run` for the folder of this test."""
    return partial(write_run, tmp_path)
