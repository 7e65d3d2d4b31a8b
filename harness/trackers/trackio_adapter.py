"""Report to trackio (https://huggingface.co/docs/trackio): one run with metrics, tables and images."""

from __future__ import annotations

import io
import os
import warnings

from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.report import PROJECT, TrackerReport


def send_report(report: TrackerReport) -> TrackerRun:
    """Create a run with the report and finish it, in trackio's local store unless its environment names a Space.

    Raises:
        RuntimeError: trackio warned that something was not stored; it never raises errors itself.
    """
    import trackio
    from PIL import Image

    project = os.environ.get("TRACKIO_PROJECT") or PROJECT
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run = trackio.init(
            project=project,
            name=report.name,
            group=report.group,
            config={**report.config, "command": report.command, "links": dict(report.links)},
            resume="never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        media = {name: trackio.Image(Image.open(io.BytesIO(png))) for name, png in report.pictures.items()}
        tables = {name: trackio.Table(dataframe=frame) for name, frame in report.tables.items()}
        trackio.log({**report.scalars(), **tables, **media}, step=0)
        trackio.finish()
    if problems := [str(warning.message) for warning in caught if "trackio" in str(warning.filename)]:
        raise RuntimeError(problems[0])
    return TrackerRun(id=run.id, name=report.name, project=project, url=run.url or None)
