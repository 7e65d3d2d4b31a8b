"""The votes of drawn runs name the views from which they come, so that ``kgmon`` counts distinct views."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from harness.core.grid import Grid
from harness.runs.folder import RunFolder
from harness.scoring.prediction_loader import open_predictions
from harness.voting.selection_rules import RULES
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer


def views_by_grid(run: Path) -> dict[tuple[str, str, int, Grid], set[bytes]]:
    """Return the distinct augmentations of the lines that gave each grid, by model, task and test output."""
    views: dict[tuple[str, str, int, Grid], set[bytes]] = {}
    for line in map(orjson.loads, RunFolder(run).predictions_path.read_bytes().splitlines()):
        if line["grid"] is not None:
            key = line["model"], line["task_id"], line["test_index"], Grid.from_rows(line["grid"], "grid")
            views.setdefault(key, set()).add(orjson.dumps(line["augmentation"], option=orjson.OPT_SORT_KEYS))
    return views


@pytest.mark.parametrize(
    ("samples_per_view", "augment", "n_views"), [(1, True, 12), (4, True, 3), (5, True, 3), (1, False, 1)]
)
def test_votes_from_one_augmentation_share_a_view(
    tmp_path: Path, samples_per_view: int, augment: bool, n_views: int
) -> None:
    with ChatServer(mixed_answer) as server:
        options = run_options(
            server, tmp_path / "run", n=12, temperature=1.0, samples_per_view=samples_per_view, augment=augment
        )
        run_sampling(options)
    expected = views_by_grid(tmp_path / "run")
    assert max(map(len, expected.values())) <= n_views
    compared = 0
    for model in open_predictions(tmp_path / "run").predictions:
        for task, outputs in model.outputs.items():
            for index, output in enumerate(outputs):
                ranking = RULES["kgmon"].rank(output.votes(), dict.fromkeys(output.votes_by_grid, (-1.0,)))
                counts = {grid: len(expected[model.model, task, index, grid]) for grid in output.votes_by_grid}
                assert [counts[entry.grid] for entry in ranking] == sorted(counts.values(), reverse=True)
                for grid, votes in output.votes_by_grid.items():
                    assert len({vote.view_index for vote in votes}) == counts[grid]
                    compared += len(votes) > counts[grid]
    assert (compared > 0) == (n_views < 12)
