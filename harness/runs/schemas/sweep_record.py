"""sweep.json: which adapters are the training runs of which row of a sweep's table."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.runs.schemas.manifest_schema import SourceFileRecord
from harness.runs.schemas.prediction_schema import Record, omitted_if_none


class SweepRow(Record):
    """One mixture of a sweep."""

    label: str
    """Its label in the table."""
    models: Annotated[list[str], Field(min_length=1)]
    """The adapters trained on it, one per training seed."""


class SweepRecord(Record):
    """sweep.json, from which the report of a sweep is made."""

    header: str
    """Heading of the labels, such as ``original datasets weight``."""
    rows: Annotated[list[SweepRow], Field(min_length=1)]
    """In the order of the table; all are compared with the first."""
    seeds: list[int]
    """Training seeds, in the order of every row's models."""
    paired_seeds: bool | None = omitted_if_none()
    """Whether training runs with the same seed belong together in pairs; None, and no field in the file, if not."""
    files: list[SourceFileRecord] | None = omitted_if_none()
    """The sweep's file and the one that it extends; None, and no field in the file, if it extends none."""
