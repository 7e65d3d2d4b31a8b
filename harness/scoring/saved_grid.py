"""The grid of a saved attempt, where a value that is no grid is a failed prediction."""

from __future__ import annotations

from harness.core.errors import DataError, GridError
from harness.core.grid import Grid


def read_grid(value: object, where: str) -> tuple[str, Grid | None]:
    """Return the outcome and the grid of an attempt; a value that is no grid is a failed prediction, not an error.

    Raises:
        DataError: the value is an object, which no format has in place of a grid.
    """
    if isinstance(value, dict):
        raise DataError(f"{where}: expected a grid, got an object; is this the ARC Prize layout? (--format arcprize)")
    if value is None or value == [] or isinstance(value, str):
        return "unparsed", None
    try:
        return "grid", Grid.from_rows(value, where)
    except GridError as error:
        return error.kind, None
