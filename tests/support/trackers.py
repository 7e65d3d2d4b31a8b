"""Read back what experiment trackers stored offline, with their own packages or formats."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7


def offline_environment(folder: Path) -> dict[str, str]:
    """Return the environment in which every tracker stores into this folder, without a network."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "TRACKIO_DIR": str(folder / "trackio"),
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
    }


def wandb_records(folder: Path) -> Iterator[Any]:
    """Yield the records of wandb's offline run file, as protobuf messages.

    The file has the format of LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md) after a
    header of seven bytes.
    """
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("*.wandb")
    content, position, parts = path.read_bytes(), _HEADER, b""
    while position + _HEADER <= len(content):
        if _BLOCK - position % _BLOCK < _HEADER:  # the rest of a block is padding
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + _HEADER])
        parts += content[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_history(folder: Path) -> dict[str, Any]:
    """Return what an offline run logged, by key."""
    items = [item for record in wandb_records(folder) for item in record.history.item]
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of an offline run."""
    updates = [update for record in wandb_records(folder) for update in record.run.config.update]
    return {update.key: json.loads(update.value_json) for update in updates}


def trackio_rows(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return metrics and configuration of every run in trackio's SQLite file, by run name."""
    with sqlite3.connect(folder / "trackio" / "arc-bench.db") as database:
        metrics = dict(database.execute("select run_name, metrics from metrics"))
        configs = dict(database.execute("select run_name, config from configs"))
    return {name: (json.loads(text), json.loads(configs[name])) for name, text in metrics.items()}
