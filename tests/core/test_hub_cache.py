"""Models in the Hugging Face cache: complete ones are served offline, incomplete ones are refused without network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError, ServerError
from harness.core.hub_cache import is_complete, is_offline, missing_weights
from serve.launch.machine import Machine
from serve.launch.preparation import prepare
from serve.launch.serve_config import ServeConfig
from serve.registry.base_model import BaseModel
from tests.support.models.tiny_adapters import make_base
from trainers.model.base_model import check_weights

CPU = Machine("cpu", (0, 1), 16 << 30)
MODEL = "arc/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREPARE = """
import json, sys
from serve.launch.serve_config import ServeConfig
from serve.launch.preparation import prepare
from serve.launch.machine import Machine
from harness.core.errors import ArcBenchError
try:
    _, command = prepare(ServeConfig(sys.argv[1], extra=tuple(sys.argv[2:])), None, Machine("cpu", (0, 1), 16 << 30))
    print(json.dumps([command.argv, command.env]))
except ArcBenchError as error:
    print(json.dumps(str(error)))
"""


def cache(home: Path, *, weights: bool = True, tokenizer: bool = True, revision: str = "main") -> Path:
    """Make a cache as huggingface_hub does (a snapshot of links to blobs) and return the snapshot."""
    root = home / "hub" / f"models--{MODEL.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    source = make_base(home / "source" / revision)
    for path in source.iterdir():
        if path.suffix == ".safetensors" and not weights:
            continue
        shutil.copy(path, root / "blobs" / path.name)
        (snapshot / path.name).symlink_to(root / "blobs" / path.name)
    if tokenizer:
        (snapshot / "tokenizer.json").write_text("{}")
    return snapshot


def prepared(home: Path, *extra: str, **environ: str) -> Any:
    """Return arguments and environment that ``bench serve arc/tiny`` would use with this HF_HOME, or its message."""
    others = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env = {**others, "HF_HOME": str(home), **environ}
    words = [sys.executable, "-c", PREPARE, MODEL, *extra]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_complete_cached_model_is_served_offline(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    argv, env = prepared(tmp_path)
    assert argv[argv.index("--model") + 1] == str(snapshot)
    assert env["HF_HUB_OFFLINE"] == "1"
    argv, _ = prepared(tmp_path, HF_HUB_OFFLINE="1")
    assert str(snapshot) in argv


@pytest.mark.parametrize("lacking", ["weights", "tokenizer"])
def test_an_incomplete_cached_model_is_served_by_a_download(tmp_path: Path, lacking: str) -> None:
    """The cached configuration limits the context, as for a model folder."""
    cache(tmp_path, **{lacking: False})
    argv, env = prepared(tmp_path)
    assert argv[argv.index("--model") + 1] == MODEL
    assert argv[argv.index("--max-model-len") + 1] == "2048"
    assert "HF_HUB_OFFLINE" not in env


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_an_incomplete_cached_model_is_refused_offline(tmp_path: Path, name: str) -> None:
    message = prepared(tmp_path, **{name: "true"})
    assert message.startswith(f"model {MODEL}: it is not in the Hugging Face cache, and {name} forbids the download")
    cache(tmp_path, weights=False)
    message = prepared(tmp_path, **{name: "1"})
    assert message == (
        f"model {MODEL}: the Hugging Face cache has no *.safetensors of it, and {name} forbids the download; "
        f"unset {name}, or give a model folder"
    )
    for elsewhere in ("--load-format=dummy", "--download-dir=/models"):
        assert prepared(tmp_path, elsewhere, **{name: "1"})[0][-1] == elsewhere


def test_the_revision_passed_to_vllm_is_served_from_the_cache(tmp_path: Path) -> None:
    snapshot = cache(tmp_path, revision="v2")
    argv, env = prepared(tmp_path)
    assert (argv[argv.index("--model") + 1], env.get("HF_HUB_OFFLINE")) == (MODEL, None)
    argv, env = prepared(tmp_path, "--revision", "v2")
    assert (argv[argv.index("--model") + 1], env.get("HF_HUB_OFFLINE")) == (str(snapshot), "1")


@pytest.mark.parametrize("shards", [{1}, {2, 3}, {1, 3}, {1, 2, 3}])
@pytest.mark.parametrize("index", [True, False])
def test_missing_shards_are_named(tmp_path: Path, shards: set[int], index: bool) -> None:
    names = [f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]
    for k in shards:
        (tmp_path / names[k - 1]).touch()
    if index:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(names))}))
    message = missing_weights(tmp_path)
    lacking = sorted({1, 2, 3} - shards)
    assert message == (
        None if not lacking else f"no {names[lacking[0] - 1]}" + (" and 1 more" if len(lacking) > 1 else "")
    )


def test_broken_links_pickles_and_damaged_indexes_are_incomplete(tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    assert is_complete(snapshot)
    (tmp_path / "hub" / "models--arc--tiny" / "blobs" / "model.safetensors").unlink()
    assert missing_weights(snapshot) == "no *.safetensors"  # a link to a blob that is gone
    (snapshot / "pytorch_model.bin").touch()
    assert not is_complete(snapshot)
    for text in ("{", "[]", '{"weight_map": 3}', "{}"):
        (snapshot / "model.safetensors.index.json").write_text(text)
        assert missing_weights(snapshot) == "model.safetensors.index.json that cannot be read"


def test_server_and_trainer_refuse_folders_with_missing_weights(tmp_path: Path) -> None:
    model = make_base(tmp_path / "m")
    prepare(ServeConfig(model), None, CPU)
    check_weights(model)
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    remedy = r"no model-00002-of-00002\.safetensors; copy or download the whole of it"
    with pytest.raises(ServerError, match=remedy):
        prepare(ServeConfig(model), None, CPU)
    with pytest.raises(ConfigError, match=remedy):
        check_weights(model)
    prepare(ServeConfig(model, extra=("--load-format", "dummy")), None, CPU)


def test_offline_training_without_cached_weights_is_refused(tmp_path: Path) -> None:
    cache(tmp_path, weights=False)
    recipe = tmp_path / "recipe.json"
    data = {"model": MODEL, "output_dir": str(tmp_path / "out"), "datasets": ["toy/copy#n=9"], "max_steps": 1}
    recipe.write_text(json.dumps(data | {"prompt": "compact-v0", "encoder": "MinimalGridEncoder()"}))
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "harness.cli", "train", str(recipe)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "the Hugging Face cache has no *.safetensors of it, and HF_HUB_OFFLINE forbids the download" in done.stderr


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("on", True), ("TRUE", True), ("0", False), ("", False)])
def test_environment_variables_that_forbid_downloads(value: str, offline: bool) -> None:
    assert is_offline({"HF_HUB_OFFLINE": value}) is offline
    assert is_offline({"TRANSFORMERS_OFFLINE": value}) is offline
    assert not is_offline({})


def test_an_incomplete_base_model_has_no_tensors_and_no_hash(tmp_path: Path) -> None:
    snapshot = cache(tmp_path, weights=False)
    base = BaseModel(MODEL, None, snapshot)
    assert (base.layers, base.tensors, base.hash, base.commit) == (2, {}, None, None)
