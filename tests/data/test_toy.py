"""Generated task families: reproducible, disjoint splits, closed under views."""

from __future__ import annotations

import pytest

from harness.core.augmentation import sampling_view
from harness.core.errors import SpecError
from harness.core.symmetry import canonical_grid
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.data.toy_tasks import FAMILIES, SIDES, toy_task
from harness.inspection.leak_audit import audit_datasets


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_depends_only_on_its_arguments(family: str) -> None:
    forward = [toy_task(family, "training", 3, i) for i in range(12)]
    assert forward == [toy_task(family, "training", 3, i) for i in reversed(range(12))][::-1]
    assert len(set(forward)) == 12
    assert forward[0] != toy_task(family, "training", 4, 0)
    assert list(iterate_tasks(open_dataset(f"toy/{family}#n=12#seed=3"))) == forward


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_input_grid(family: str) -> None:
    inputs = {
        split: {
            canonical_grid(pair.input)
            for i in range(60)
            for task in (toy_task(family, split, 0, i),)
            for pair in task.train + task.test
        }
        for split in ("training", "evaluation")
    }
    assert inputs["training"].isdisjoint(inputs["evaluation"])


def test_the_audit_finds_no_leak_between_the_splits() -> None:
    audits = audit_datasets([open_dataset("toy/border#n=200")], [open_dataset("toy/border/evaluation#n=100")])
    assert not audits["free"].all_findings().leaked_eval_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_colours_of_tasks(family: str) -> None:
    for index in range(20):
        task = toy_task(family, "training", 0, index)
        assert len(task.train) == 4
        assert len(task.test) == 1
        shown = set().union(*(pair.input.cells for pair in task.train))
        assert shown >= set(task.test[0].input.cells)
        for pair in task.train + task.test:
            assert pair.output is not None
            assert pair.input.height == pair.input.width
            assert pair.input.height in SIDES
            assert pair.output.shape == pair.input.shape


@pytest.mark.parametrize("family", ["border", "corners", "cross", "diagonal", "centre"])
def test_views_of_a_mask_family_follow_the_same_mask(family: str) -> None:
    """In every view, the changed cells lie within the mask and have one colour."""
    for index in range(16):
        task = toy_task(family, "training", 0, index, size=4)
        view = sampling_view(0, task.id, index, 4).apply_task(task)
        places, colours = set(), set()
        for pair in view.train:
            assert pair.output is not None
            painted = [k for k in range(16) if pair.input.cells[k] != pair.output.cells[k]]
            places.update(painted)
            colours.update(pair.output.cells[k] for k in painted)
        assert places <= _mask(family)
        assert len(colours) <= 1


def _mask(family: str) -> set[int]:
    rows = {
        "border": "1111 1001 1001 1111",
        "corners": "1001 0000 0000 1001",
        "cross": "0110 1111 1111 0110",
        "diagonal": "1001 0110 0110 1001",
        "centre": "0000 0110 0110 0000",
    }[family]
    return {k for k, bit in enumerate(rows.replace(" ", "")) if bit == "1"}


def test_train_pairs_of_a_control_follow_another_rule() -> None:
    same = [toy_task("edge", "training", 0, i, size=3) for i in range(30)]
    other = [toy_task("edge", "training", 0, i, size=3, other_rule=True) for i in range(30)]
    assert sum(a.train != b.train for a, b in zip(same, other, strict=True)) > 20


@pytest.mark.parametrize(
    ("family", "split", "options"),
    [("none", "training", {}), ("copy", "test", {}), ("border", "training", {"other_rule": True})],
)
def test_unknown_families_splits_and_controls_are_errors(family: str, split: str, options: dict[str, bool]) -> None:
    with pytest.raises(SpecError, match=f"toy/{family}"):
        toy_task(family, split, 0, 0, **options)  # type: ignore[arg-type]
