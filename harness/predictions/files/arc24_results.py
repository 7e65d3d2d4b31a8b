"""Reader of arc24's ``*_task_results.json``: one entry per prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.core.errors import DataError
from harness.core.json_stream import iterate_elements
from harness.predictions.files.saved_grid import read_grid
from harness.predictions.prediction_groups import UNNAMED
from harness.runs.logs.field_checks import check_index, check_number, check_object, check_text
from harness.runs.logs.prediction_reader import Prediction


def read_task_results(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read arc24's ``*_task_results.json``: a list of ``{task_id, idx, grid, cumulative_logprob, n_tokens, …}``.

    An empty grid is a failed prediction (``unparsed``); ``data_augmentation_kwargs`` gives the view.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for element in iterate_elements(path):
        where = f"{path}, line {element.line}, entry {element.index}"
        entry = check_object(element.value, where)
        if "attempt_1" in entry:
            raise DataError(f"{where}: this is one task's file of the ARC Prize layout; name the folder it lies in")
        for name in ("task_id", "idx", "grid"):
            if name not in entry:
                raise DataError(f"{where}: field {name!r} is missing")
        task, index = check_text(entry["task_id"], where, "task_id"), check_index(entry["idx"], where, "idx")
        tokens = entry.get("n_tokens")
        outcome, grid = read_grid(entry["grid"], f"{where}, grid")
        yield Prediction(
            model=UNNAMED,
            task_id=task,
            test_index=index,
            outcome=outcome,
            grid=grid,
            sum_logprob=check_number(entry.get("cumulative_logprob"), where, "cumulative_logprob"),
            n_tokens=None if tokens is None else check_index(tokens, where, "n_tokens"),
            view=_view(entry.get("data_augmentation_kwargs")),
            sample=seen[task, index],
        )
        seen[task, index] += 1


def _view(kwargs: object) -> str | None:
    """Return a name for arc24's geometric augmentation: ``identity`` if it changes nothing, None if it is not given."""
    if not isinstance(kwargs, dict) or not {"hflip", "n_rot90"} <= kwargs.keys():
        return None
    flipped, turns = bool(kwargs["hflip"]), kwargs["n_rot90"]
    if not flipped and turns in (0, None):
        return "identity"
    return f"{'flip ' if flipped else ''}{turns} x rot90"
