"""Weights and checkpoints that others wrote, with a pickle in them that would run code: refused, and not run."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.core.errors import AdapterError, ConfigError, RunError
from tests.support.hostile import PickleBomb, called
from tests.support.train_runs import FEW_STEPS, Data, recipe_data, train_adapter
from trainers.recipe.schema import make_recipe
from trainers.run.api import train
from trainers.store.digests import DIGESTS_FILE, write_digests

LOADERS = ("transformers.trainer", "transformers.trainer_utils", "accelerate.utils.fsdp_utils")


def source_of(module: str) -> str:
    """The source of a module, which is not imported."""
    package, _, rest = module.partition(".")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / f"{rest.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", LOADERS)
def test_what_resumes_a_run_loads_no_code(module: str) -> None:
    """The versions that are pinned; another one must be looked at anew."""
    loads = [call for name, call in called(ast.parse(source_of(module))) if name == "torch.load"]
    partly = [call for name, call in called(ast.parse(source_of(module))) if name == "partial"]
    assert loads or partly
    for call in loads:
        assert {word.arg: ast.unparse(word.value) for word in call.keywords}.get("weights_only") == "True"


def plant(path: Path, witness: Path) -> None:
    """Put a bomb where torch keeps its pickle: into the archive ``path``, all else as it was."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickle.dumps(PickleBomb(witness), 2) if name.endswith("data.pkl") else data)


@pytest.fixture(scope="module")
def stopped(train_root: Path, qwen: Path) -> Data:
    """The recipe of a run that has a checkpoint of step 7 and is to go on to step 8."""
    data = recipe_data(qwen, train_root / "foreign", keep_checkpoints=True, **FEW_STEPS)
    output = train_adapter(data)
    (output / "manifest.json").unlink()
    shutil.rmtree(output / "checkpoints" / "checkpoint-8")
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "whole pickle"])
def test_a_hostile_checkpoint_runs_nothing(stopped: Data, tmp_path: Path, name: str) -> None:
    """It even carries a seal that fits, as one from another machine would."""
    output, witness = tmp_path / "run", tmp_path / "witness"
    shutil.copytree(stopped["output_dir"], output)
    checkpoint = output / "checkpoints" / "checkpoint-7"
    if name == "whole pickle":
        (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(PickleBomb(witness), 2))
    else:
        plant(checkpoint / name, witness)
    (checkpoint / DIGESTS_FILE).unlink(missing_ok=True)
    write_digests(checkpoint)
    recipe = make_recipe(stopped | {"output_dir": str(output)}, "test")
    if name == "training_args.bin":  # is written and never read
        train(recipe, output, progress=False)
    else:
        with pytest.raises(RunError, match=r"may be code; nothing of it was run\. resume=false starts over"):
            train(recipe, output, progress=False)
    assert not witness.exists()


@pytest.mark.slow
def test_weights_in_pickles_are_not_read(stopped: Data, qwen: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    shutil.copytree(qwen, model)
    shutil.copytree(stopped["output_dir"], adapter, ignore=shutil.ignore_patterns("checkpoints"))
    for folder, name in ((model, "pytorch_model.bin"), (adapter, "adapter_model.bin")):
        for weights in folder.glob("*.safetensors"):
            os.replace(weights, folder / f"not-{weights.name}.other")
        (folder / name).write_bytes(pickle.dumps(PickleBomb(witness)))
    fresh = stopped | {"output_dir": str(tmp_path / "new")}
    with pytest.raises(ConfigError, match="cannot be loaded"):
        train(make_recipe(fresh | {"model": str(model)}, "test"), tmp_path / "new", progress=False)
    with pytest.raises(AdapterError, match=r"adapter_model\.bin: is a pickle"):
        train(make_recipe(fresh | {"adapter": str(adapter)}, "test"), tmp_path / "new", progress=False)
    assert not witness.exists()
