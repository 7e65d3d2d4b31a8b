"""After training: the adapter is registered and loaded, and the server is checked to have the trained weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.launch.preparation import free_port
from tests.serving.conftest import Site
from tests.serving.world import BASE
from trainers.commands.parity import Parity

pytestmark = pytest.mark.slow

Trained = tuple[list[str], Path, subprocess.CompletedProcess[str]]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "harness.cli", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def trained(shared_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """``bench train`` with a running server: its arguments, the output folder, and how it ended."""
    root = tmp_path_factory.mktemp("parity")
    recipe = {
        "model": str(shared_site.world.model),
        "output_dir": str(root / "learned"),
        "datasets": ["toy/cross#n=50"],
        "prompt": "compact-v0",
        "encoder": "MinimalGridEncoder()",
        "max_steps": 10,
        "batch_size": 6,
        "max_seq_len": 800,
        "learning_rate": 1e-2,
        "dtype": "float32",
        "threads": 1,
        "lora": {"rank": 8, "alpha": 16, "rslora": True},
    }
    path = root / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    words = ["train", str(path), "--no-progress"]
    server = ["--server", shared_site.url, "--adapters", str(shared_site.registry.root)]
    yield words, root / "learned", bench(*words, *server)
    bench("adapters", "unload", "learned", "--server", shared_site.url)
    shared_site.registry.remove("learned")


def test_training_ends_with_the_adapter_served_and_checked(site: Site, trained: Trained) -> None:
    _, folder, done = trained
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder)
    version = site.registry.find("learned").id
    assert f"{version} loaded at {site.url}; parity over" in done.stderr
    assert "the server has the model that was trained" in done.stderr
    result = json.loads((folder / "parity.json").read_text())
    print(result)
    assert (result["server"], result["model"], result["holds"]) == (site.url, version, True)
    assert result["tokens"] > 50
    assert 0 < result["difference"] < 1e-3
    assert result["control"] > 0.1


def test_another_model_on_the_server_is_an_error(site: Site, trained: Trained) -> None:
    folder = trained[1]
    ours = bench("parity", str(folder), "--server", site.url, "--model", "learned", "--json", "-")
    assert ours.returncode == 0, ours.stderr
    assert json.loads(ours.stdout)["difference"] < 1e-3
    for model in (BASE, "a"):
        other = bench("parity", str(folder), "--server", site.url, "--model", model)
        assert other.returncode == 1
        assert "PARITY FAILED" in other.stderr
    unknown = bench("parity", str(folder), "--server", site.url, "--model", "nobody")
    assert (unknown.returncode, "404" in unknown.stderr) == (1, True)


def test_training_without_a_server_reports_that_parity_was_not_checked(site: Site, trained: Trained) -> None:
    """The folder is complete, so nothing is trained again."""
    words, folder, _ = trained
    alone = bench(*words)
    assert (alone.returncode, alone.stdout.strip()) == (0, str(folder))
    assert "no server given, parity not checked" in alone.stderr
    nowhere = f"http://127.0.0.1:{free_port('127.0.0.1', None)}"
    gone = bench(*words, "--server", nowhere, "--adapters", str(site.registry.root))
    assert (gone.returncode, f"no server at {nowhere}, parity not checked" in gone.stderr) == (0, True)
    assert bench(*words, "--server", nowhere).returncode == 2


def test_a_check_that_could_not_fail_does_not_pass() -> None:
    assert Parity(100, 1e-5, 0.5).holds
    assert not Parity(100, 2e-3, 0.5).holds
    assert not Parity(100, 1e-5, 0.05).holds
