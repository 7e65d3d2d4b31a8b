"""What a sweep was, for its report: which adapters stand for which mixture."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.runs.schema import Record


class SweepRow(Record):
    """One mixture: its label in the table, and the adapters that were trained on it, one a training seed."""

    label: str
    models: Annotated[list[str], Field(min_length=1)]


class SweepRecord(Record):
    """sweep.json: the rows in the order of the table; every row is compared with the first."""

    header: str
    """What the labels are, such as ``original datasets weight``."""
    rows: Annotated[list[SweepRow], Field(min_length=1)]
    seeds: list[int]
    """Training seeds, in the order of each row's models."""
