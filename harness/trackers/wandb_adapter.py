"""Report to Weights & Biases (https://docs.wandb.ai/ref/python): one run with summary, tables and images."""

from __future__ import annotations

import io
import os

from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.report import PROJECT, TrackerReport

FINISH_SECONDS = 180
"""How long wandb may upload before it gives up."""


def send_report(report: TrackerReport) -> TrackerRun:
    """Create a run with the report and finish it; ``WANDB_MODE=offline`` keeps it in a folder for ``wandb sync``.

    Raises:
        Exception: whatever wandb raises, such as for a missing login.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb
    from PIL import Image

    folder = report.folder or os.curdir
    settings = wandb.Settings(
        silent=True,
        console="off",  # what commands print stays here
        disable_git=True,  # a diff of the checkout may contain anything
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        init_timeout=60,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        dir=os.environ.get("WANDB_DIR") or str(folder),
        name=report.name,
        group=report.group,
        job_type=report.command,
        config={**report.config, **({"links": dict(report.links)} if report.links else {})},
        notes="\n".join(f"{name}: {link}" for name, link in report.links.items()) or None,
        settings=settings,
        reinit="create_new",
    )
    media = {name: wandb.Image(Image.open(io.BytesIO(content))) for name, content in report.pictures.items()}
    tables = {name: wandb.Table(dataframe=frame) for name, frame in report.tables.items()}
    run.log({**report.scalars(), **tables, **media})
    run.finish()
    return TrackerRun(id=run.id, name=report.name, project=run.project, url=run.url or None)
