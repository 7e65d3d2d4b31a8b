"""Weights, checkpoints and model folders from others that contain code: they are refused and the code is not run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from harness.core.errors import AdapterError, ConfigError, RunError
from tests.support.servers.hostile import PickleBomb
from tests.support.training.train_runs import FEW_STEPS, Data, recipe_data, train_adapter
from trainers.recipe.schema import make_recipe
from trainers.run.api import train
from trainers.store.digests import DIGESTS_FILE, write_digests


def plant(path: Path, witness: Path) -> None:
    """Replace the pickle in a file that torch saved (a zip archive) with a bomb."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickle.dumps(PickleBomb(witness), 2) if name.endswith("data.pkl") else data)


@pytest.fixture(scope="module")
def stopped(train_root: Path, qwen: Path) -> Data:
    """Return the recipe of a run that stopped at the checkpoint of step 7 of 8."""
    data = recipe_data(qwen, train_root / "foreign", keep_checkpoints=True, **FEW_STEPS)
    output = train_adapter(data)
    (output / "manifest.json").unlink()
    shutil.rmtree(output / "checkpoints" / "checkpoint-8")
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "whole pickle"])
def test_code_in_a_checkpoint_is_not_run(stopped: Data, tmp_path: Path, name: str) -> None:
    """The checkpoint has valid digests, as one from another machine would."""
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
    if name == "training_args.bin":  # is never read
        train(recipe, output, progress=False)
    else:
        with pytest.raises(RunError, match=r"may be code; nothing of it was run\. resume=false starts over"):
            train(recipe, output, progress=False)
    assert not witness.exists()


@pytest.mark.slow
def test_weights_in_pickles_are_refused(stopped: Data, qwen: Path, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_code_in_a_model_folder_is_not_run(stopped: Data, qwen: Path, tmp_path: Path) -> None:
    """transformers would import ``auto_map``'s modules with ``trust_remote_code``."""
    witness, model = tmp_path / "witness", tmp_path / "model"
    shutil.copytree(qwen, model)
    config = json.loads((model / "config.json").read_text())
    classes = {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Model"}
    (model / "config.json").write_text(json.dumps({**config, "model_type": "remote", "auto_map": classes}))
    (model / "remote.py").write_text(f"open({str(witness)!r}, 'w')\n")
    recipe = make_recipe(stopped | {"model": str(model), "output_dir": str(tmp_path / "new")}, "test")
    with pytest.raises(ConfigError):
        train(recipe, tmp_path / "new", progress=False)
    assert not witness.exists()
