"""The file in a run or sweep folder that lists what was reported of it, so that later reports can link there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from harness.runs.schemas.prediction_schema import Record
from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.delivery import Delivery

SENT = "trackers.jsonl"


class SentReport(Record):
    """One line: a report that a tracker took."""

    tracker: str
    command: str
    run: TrackerRun


def append_deliveries(folder: Path, command: str, deliveries: Sequence[Delivery]) -> None:
    """Add a line for every report that was sent.

    Raises:
        OSError: the file cannot be written.
    """
    lines = [
        SentReport(tracker=delivery.tracker, command=command, run=run).model_dump_json()
        for delivery in deliveries
        for run in delivery.runs
    ]
    if lines:
        with (folder / SENT).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def read_links(folder: Path) -> dict[str, str]:
    """Return where a folder's reports are, by ``TRACKER NAME``; the last report of a name counts, damaged lines do not.

    Empty without a file.
    """
    path = folder / SENT
    links: dict[str, str] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            sent = SentReport.model_validate_json(line)
        except ValidationError:
            continue
        links[f"{sent.tracker} {sent.run.name or sent.run.id}"] = sent.run.as_link()
    return links
