"""Record in a run's manifest what a deadline left out, where it passed while no session was running."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.deadline import Deadline
from harness.core.grid import Task
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.deadline_record import RunDeadline
from harness.sampling.manifest_writer import ManifestWriter
from harness.sampling.plan import Plan
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.recording import PredictionRecorder
from harness.sampling.workloads.view_recording import ViewRecorder


def record_cut(folder: RunFolder, tasks: Sequence[Task], deadline: Deadline) -> ProgressBoard:
    """Write the deadline to the manifest, with the requested predictions of all tasks that are missing.

    Args:
        tasks: of the run.

    Returns:
        The counts of each model.

    Raises:
        RunError: another process writes to the folder, or a file of it is damaged or cannot be written.
    """
    with folder.locked():
        manifest = folder.manifest().model_copy(update={"deadline": RunDeadline(seconds=deadline.seconds)})
        config = manifest.config
        log = PredictionLog(folder.predictions_path, views=config.search is not None)
        try:
            kind = PredictionRecorder if config.search is None else ViewRecorder
            recorder = kind(Plan(config, tasks), config, log, Display(), manifest.answered_as)
        finally:
            log.close()
        ManifestWriter(folder, manifest, recorder, ()).close(is_cut=True)
        return recorder.board
