"""Which log-probabilities a session asks for: each that is missing, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.candidates.rescore_plan import RescorePlan
from harness.candidates.rescores import RescoreHeader, Rescores, ScorerRescores
from harness.core.grid import Grid

GRIDS = [Grid(1, 1, bytes((colour,))) for colour in range(6)]
OUTPUTS = [("t", 0), ("t", 1), ("u", 0)]
candidates = st.fixed_dictionaries(
    {
        model: st.dictionaries(st.sampled_from(OUTPUTS), st.lists(st.sampled_from(GRIDS), unique=True))
        for model in ("a", "b")
    }
)


@given(candidates, st.sampled_from([None, "a", "m"]), st.sampled_from([None, 1, 2]), st.data())
def test_every_missing_key_is_asked_once(
    by_model: dict[str, dict[tuple[str, int], list[Grid]]], scorer: str | None, top: int | None, data: st.DataObject
) -> None:
    plan = RescorePlan(by_model, {model: scorer or model for model in by_model}, 3, top)
    wanted = {
        (scorer or model, task, index, grid, view)
        for model, outputs in by_model.items()
        for (task, index), grids in outputs.items()
        for grid in grids[:top]
        for view in range(3)
    }
    done = {key for key in sorted(wanted, key=repr) if data.draw(st.booleans())}
    rescores = Rescores(RescoreHeader(run="d", seed=0, views=3, predictions_sha256="p"), {})
    scorers: dict[str, ScorerRescores] = {}
    for name, task, index, grid, view in done:
        outputs = scorers.setdefault(name, ScorerRescores(None)).by_output
        outputs.setdefault((task, index), {}).setdefault(grid, {})[view] = -1.0
    items = list(plan.missing(Rescores(rescores.header, scorers)))
    keys = [(i.scorer, i.task_id, i.test_index, grid, i.view) for i in items for grid in i.grids]
    assert sorted(keys, key=repr) == sorted(wanted - done, key=repr)
    assert all(item.grids for item in items)
    assert len({(i.scorer, i.task_id, i.test_index, i.view) for i in items}) == len(items), "one prompt is asked once"
    assert sum(plan.total(name) for name in plan.scorers) == len(wanted)
