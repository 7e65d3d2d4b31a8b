"""Readers of files, dataset specs and answers accept damaged input or refuse it with an ArcBenchError.

The fast tests use 150 damaged inputs per reader, the long ones 100,000.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path

import pytest

from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.core.errors import ArcBenchError
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.files.prediction_formats import FORMATS
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.lenient_decoder import decode_lenient
from harness.results.kaggle_submission import check_submission
from harness.runs.folder import RunFolder
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run
from serve.registry.store import Registry
from serve.registry.validation.adapter import validate_adapter
from tests.conftest import ROOT
from tests.support.damaged_inputs import damaged_inputs
from tests.support.data_samples import barc_lines, random_task, task_json
from tests.support.models.tiny_adapters import make_adapter
from tests.support.runs.run_folders import write_run
from trainers.recipe.files.yaml_file import load_recipe
from trainers.store.manifest import read_manifest
from trainers.store.training_log import read_log

Reader = Callable[[bytes], object]
UNREAD = object()
"""Returned by a reader that skips an input."""
SAVED = ROOT / "tests" / "fixtures" / "saved"
TASKS = str(SAVED / "tasks.json")
GRID = Grid.from_rows([[1, 2, 3], [4, 5, 6]])
ENCODERS = (DEFAULT_ENCODER, "MinimalGridEncoder()", "GridCodeBlockEncoder(RepeatNumberEncoder())")
SPECS = (
    "arc1/training#n=3", "toy/cross/evaluation#n=2#seed=7", "arc2/evaluation#ids=FILE", "barc-400-10-a.jsonl",
    "barc0/100k-gpt4-description-gpt4omini-code_generated_problems", "folder/tasks_challenges.json", "a.jsonl.gz",
)  # fmt: skip


def corpus_of(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def json_dataset(folder: Path) -> tuple[list[bytes], Reader]:
    task = task_json(random_task(Stream("fuzz"), 4, 3))
    pairs = task["train"]
    forms = [{"a": task, "b": task}, {"a": pairs}, {"a": [task, task]}, {"a": {"train": pairs, "n_train": 1}}, task]
    path = folder / "tasks.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return list(iterate_tasks(open_dataset(str(path))))

    return [json.dumps(form).encode() for form in forms], read


def barc_dataset(folder: Path) -> tuple[list[bytes], Reader]:
    path = folder / "rows.jsonl"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        for leftover in folder.glob("rows.jsonl.*"):
            leftover.unlink()
        return list(iterate_tasks(open_dataset(str(path))))

    return ["\n".join(barc_lines(2, 3)).encode()], read


def spec(folder: Path) -> tuple[list[bytes], Reader]:
    def read(data: bytes) -> object:
        text = data.decode(errors="replace")
        if "toy" in text:  # it may request a billion generated tasks
            text = re.sub(r"\d{3,}", "99", text)
        with chdir(folder):
            path = text.partition("#")[0].strip()
            if os.path.isdir(path) and not Path(path).resolve().is_relative_to(folder):
                return UNREAD  # it would read all files of this machine
            return open_dataset(text).ids

    return [text.encode() for text in SPECS], read


def encoder_name(folder: Path) -> tuple[list[bytes], Reader]:
    return [text.encode() for text in ENCODERS], lambda data: parse_encoder(data.decode(errors="replace"))


def answer(folder: Path) -> tuple[list[bytes], Reader]:
    encoders = [parse_encoder(text) for text in ENCODERS]

    def read(data: bytes) -> object:
        text = data.decode(errors="replace")
        for encoder in encoders:
            for decode in (encoder.decode, lambda text, encoder=encoder: decode_lenient(text, encoder)):
                with suppress(ArcBenchError):
                    decode(text)
        return None

    return [encoder.encode(GRID).encode() for encoder in encoders], read


def recipe(folder: Path) -> tuple[list[bytes], Reader]:
    path = folder / "recipe.yaml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_recipe(path, ["max_steps=3"])

    return corpus_of(*sorted((ROOT / "examples").glob("train-*.yaml"))), read


def sweep(folder: Path) -> tuple[list[bytes], Reader]:
    path = folder / "sweep.yaml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_sweep(path)

    return corpus_of(*sorted((ROOT / "examples").glob("iteration48*.yaml"))), read


def override(folder: Path) -> tuple[list[bytes], Reader]:
    path = ROOT / "examples" / "train-toy-mix.yaml"
    words = [b"lora.rank=4", b"datasets.0.weight=0.3", b"model=tiny", b"validation.patience=2", b"report_to=[wandb]"]
    return words, lambda data: load_recipe(path, [data.decode(errors="replace")])


def run_file(name: str) -> Callable[[Path], tuple[list[bytes], Reader]]:
    def of(folder: Path) -> tuple[list[bytes], Reader]:
        tasks = folder / "tasks.json"  # generated datasets are slow to open
        tasks.write_text(json.dumps({name: task_json(random_task(Stream(name), 3, 1)) for name in "ab"}))
        write_run(folder, "run", str(tasks), {"m": 0.5}, n=2)
        score_run(folder / "run", resamples=99)
        path = folder / "run" / name
        if name == "manifest.json":  # without its checksum, which would refuse every change
            path.write_bytes(RunFolder(folder / "run").manifest().model_dump_json().encode())
        corpus = corpus_of(path)

        def read(data: bytes) -> object:
            path.write_bytes(data)
            run = RunFolder(folder / "run")
            if name == "results.json":
                return run.results()
            return open_predictions(folder / "run")

        return corpus, read

    return of


def saved(form: str, name: str) -> Callable[[Path], tuple[list[bytes], Reader]]:
    def of(folder: Path) -> tuple[list[bytes], Reader]:
        path = folder / Path(name).name
        target = path
        if form == "arcprize":
            shutil.copytree(SAVED / "arcprize", folder / "arcprize")
            path, target = folder / "arcprize" / "a.json", folder / "arcprize"
        corpus = corpus_of(SAVED / name)

        def read(data: bytes) -> object:
            path.write_bytes(data)
            if form == "kaggle":
                check_submission(path, list(iterate_tasks(open_dataset(TASKS))))
            return open_predictions(target, TASKS, form if form in FORMATS else None)

        return corpus, read

    return of


def adapter(name: str) -> Callable[[Path], tuple[list[bytes], Reader]]:
    def of(folder: Path) -> tuple[list[bytes], Reader]:
        path = make_adapter(folder / "adapter")
        corpus = corpus_of(path / name)

        def read(data: bytes) -> object:
            (path / name).write_bytes(data)
            return validate_adapter(path)

        return corpus, read

    return of


def live(folder: Path) -> tuple[list[bytes], Reader]:
    registry = Registry(folder / "registry")
    version = registry.add("a", make_adapter(folder / "adapter"))
    registry.set_live("a", version.version)
    path = folder / "registry" / "a" / "live.json"
    corpus = corpus_of(path)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return registry.live("a")

    return corpus, read


def trained(folder: Path) -> tuple[list[bytes], Reader]:
    def read(data: bytes) -> object:
        (folder / "manifest.json").write_bytes(data)
        (folder / "log.jsonl").write_bytes(data)
        return read_manifest(folder), read_log(folder / "log.jsonl")

    return [b'{"recipe": {"model": "tiny"}, "steps": 3}', b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'], read


READERS = {
    "json dataset": json_dataset,
    "barc dataset": barc_dataset,
    "dataset spec": spec,
    "encoder": encoder_name,
    "answer": answer,
    "recipe": recipe,
    "sweep": sweep,
    "override": override,
    "run manifest": run_file("manifest.json"),
    "run predictions": run_file("predictions.jsonl"),
    "run results": run_file("results.json"),
    "arc24": saved("arc24", "arc24_task_results.json"),
    "attempts": saved("attempts", "arc24.json"),
    "submission": saved("kaggle", "submission.json"),
    "arcprize": saved("arcprize", "arcprize/a.json"),
    "adapter config": adapter("adapter_config.json"),
    "adapter weights": adapter("adapter_model.safetensors"),
    "live version": live,
    "trained folder": trained,
}


def check(name: str, folder: Path, count: int, seed: int) -> None:
    """Give a reader its valid inputs and then ``count`` damaged ones."""
    corpus, read = READERS[name](folder)
    for original in corpus:
        try:
            read(original)
        except ArcBenchError:
            assert name in ("dataset spec", "trained folder"), f"{name}: a valid input was refused"
    read_count = refused = 0
    for data in damaged_inputs(corpus, 2 * count, seed):
        if read_count == count:
            break
        try:
            read_count += read(data) is not UNREAD
        except ArcBenchError:
            read_count, refused = read_count + 1, refused + 1
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__} for {data[:2000]!r}") from error
    assert read_count == count
    assert name == "answer" or refused > count / 20, "few inputs were refused: are they damaged at all?"


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, 150, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_damaged_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, 100_000, seed=2)
