"""Report to TensorBoard: event files, written with tensorboardX (https://tensorboardx.readthedocs.io)."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.report import TrackerReport

FOLDER = "tensorboard"
"""Folder of the event files inside the report's folder; ``TENSORBOARD_LOGGING_DIR`` names another."""


def send_report(report: TrackerReport) -> TrackerRun:
    """Write scalars at step 0, and config, tables and links as text, to a folder with the report's name.

    Raises:
        OSError: the files cannot be written.
    """
    import numpy as np
    from PIL import Image
    from tensorboardX import SummaryWriter

    parent = os.environ.get("TENSORBOARD_LOGGING_DIR")
    root = Path(parent) if parent else (report.folder or Path()) / FOLDER
    folder = root / re.sub(r"[^\w.@+-]", "_", report.name)
    writer = SummaryWriter(str(folder))
    for name, value in report.scalars().items():
        writer.add_scalar(name, value, 0)
    writer.add_text("config", f"```json\n{json.dumps(report.config, indent=2, default=str)}\n```", 0)
    if report.links:
        writer.add_text("links", "\n".join(f"- {name}: {link}" for name, link in report.links.items()), 0)
    for name, frame in report.tables.items():
        writer.add_text(f"tables/{name}", f"```\n{frame.to_string(index=False)}\n```", 0)
    for name, png in report.pictures.items():
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        writer.add_image(f"pictures/{name}", pixels, 0, dataformats="HWC")
    writer.close()
    return TrackerRun(id=str(folder), name=report.name)
