"""Write run folders with made-up predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.core.grid import Grid, Task
from harness.core.random_stream import Stream
from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.manifest_schema import Environment, Manifest, ModelConfig, RunConfig
from harness.runs.schemas.prediction_schema import AugmentationRecord, PredictionRecord

MakeRun = Callable[..., Path]
"""The fixture ``make_run``: `write_run` into the folder of the test."""


def append_record(log: PredictionLog, record: PredictionRecord) -> None:
    """Append a prediction to a log."""
    log.append(record.model_dump_json().encode() + b"\n")


def load_records(run: Path) -> list[PredictionRecord]:
    """Return the predictions of a run folder in the order of the file."""
    lines = RunFolder(run).predictions_path.read_bytes().splitlines()
    return [PredictionRecord.model_validate_json(line) for line in lines]


def wrong_grid(grid: Grid, k: int) -> Grid:
    """Return a grid of the same shape that differs in the first cell, another one for each k below 9."""
    return Grid(grid.height, grid.width, bytes([(grid.cells[0] + 1 + k) % 10]) + grid.cells[1:])


def prediction_record(
    model: str, task: Task, test: int, sample: int, grid: Grid | None, outcome: str = "grid"
) -> PredictionRecord:
    """Return one line of a prediction log."""
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


def model_config(name: str) -> ModelConfig:
    """Return the configuration of a model that has a name and nothing else of its own."""
    encoder = "MinimalGridEncoder()"
    return ModelConfig(name=name, prompt="compact-v0", prompt_digest="d", encoder=encoder, max_tokens=9, hash=None)


def run_manifest(spec: str, models: Sequence[str], n: int, seed: int = 0) -> Manifest:
    """Return the manifest of a finished run."""
    dataset = open_dataset(spec)
    config = {
        "models": [model_config(name) for name in models],
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
    """Change fields of a run's manifest or of the configuration in it."""
    folder = RunFolder(run)
    manifest = folder.manifest()
    of_config = {name: value for name, value in changes.items() if name in RunConfig.model_fields}
    others = {name: value for name, value in changes.items() if name not in of_config}
    config = manifest.config.model_copy(update=of_config)
    folder.write_manifest(manifest.model_copy(update={"config": config, **others}))


def write_run(
    parent: Path, name: str, spec: str, skill: dict[str, float], n: int = 4, seed: int = 0, fails: float = 0.1
) -> Path:
    """Write the folder of a finished run with made-up predictions.

    Args:
        skill: for each model, the probability that a prediction with a grid is exact.
        n: predictions per test output.
        fails: probability that a prediction has no grid.
    """
    folder = RunFolder(parent / name)
    folder.path.mkdir()
    folder.write_manifest(run_manifest(spec, list(skill), n, seed))
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
                        append_record(log, prediction_record(model, task, test, sample, None, "unparsed"))
                        continue
                    right = stream.uniform() < share
                    grid = pair.output if right else wrong_grid(pair.output, stream.below(3))
                    append_record(log, prediction_record(model, task, test, sample, grid))
    log.commit()
    log.close()
    return folder.path
