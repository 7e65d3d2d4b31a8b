from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.augmentation import Augmentation
from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES
from harness.data.dataset import TaskList, iterate_tasks
from harness.data.spec import open_dataset
from harness.inspection.leak_audit import audit_datasets
from harness.inspection.leak_detection import LeakDetector, canonical_pair, counts, shapes
from tests.support.data_samples import pairs, random_task

free = st.permutations(range(COLOURS))
fixed = st.permutations(range(1, COLOURS)).map(lambda rest: [0, *rest])


def seen(pair: Pair, symmetry: str, colours: list[int]) -> Pair:
    """The pair under a symmetry and a bijection of colours."""
    assert pair.output is not None
    view = Augmentation(symmetry, tuple(colours), ())
    return Pair(view.apply(pair.input), view.apply(pair.output))


@given(pairs(), st.sampled_from(SYMMETRIES), free)
def test_the_canonical_form_is_invariant(pair: Pair, symmetry: str, colours: list[int]) -> None:
    other = seen(pair, symmetry, colours)
    assert canonical_pair(other) == canonical_pair(pair)
    assert (shapes(other), counts(other)) == (shapes(pair), counts(pair))


@given(pairs(), st.sampled_from(SYMMETRIES), fixed)
def test_and_with_the_background_fixed(pair: Pair, symmetry: str, colours: list[int]) -> None:
    assert canonical_pair(seen(pair, symmetry, colours), fixed_background=True) == canonical_pair(
        pair, fixed_background=True
    )


def _pair(source: list[list[int]], target: list[list[int]]) -> Pair:
    return Pair(Grid.from_rows(source), Grid.from_rows(target))


def test_what_is_not_the_same() -> None:
    different = [
        _pair([[1, 2, 0]], [[1]]),
        _pair([[1, 2, 0]], [[2]]),  # another cell of the input
        _pair([[1, 2, 0]], [[3]]),  # a colour of its own
        _pair([[1, 2, 0]], [[1, 1]]),
        _pair([[1, 2, 0]], [[1], [1]]),  # turned the other way
        _pair([[1]], [[1, 2, 0]]),
        _pair([[1, 1, 0]], [[1]]),
    ]
    assert len({canonical_pair(pair) for pair in different}) == len(different)
    zero, one = _pair([[0, 0, 1]], [[0]]), _pair([[2, 2, 0]], [[2]])
    assert canonical_pair(zero) == canonical_pair(one)
    assert canonical_pair(zero, fixed_background=True) != canonical_pair(one, fixed_background=True)


def test_planted_leaks_are_found_and_nothing_else() -> None:
    asked = [random_task(Stream("eval", k), 3, name=f"e{k}") for k in range(8)]
    turned = [Augmentation("rot90", (3, 1, 4, 0, 5, 9, 2, 6, 8, 7), tuple(range(len(t.train)))) for t in asked]
    whole = turned[0].apply_task(asked[0])
    stranger = random_task(Stream("train"), 5, name="x")
    training = [
        stranger,
        Task("whole", whole.test + whole.train[1:], whole.train[:1]),  # split otherwise, still the same pairs
        Task("test", stranger.train + turned[1].apply_task(asked[1]).test, stranger.test),
        Task("train", turned[2].apply_task(asked[2]).train[:1] + stranger.train, stranger.test),
        Task("more", asked[3].train + asked[3].test, stranger.test),  # all of e3 and one pair besides
        Task("less", asked[4].train[1:], asked[4].test),
    ]
    found = LeakDetector(asked).find_leaks(TaskList("t", tuple(training)).pairs_by_id()).as_dict()
    assert found == {
        "same_task": {"e0": ["whole"]},
        "test_pair": {"e0": ["whole"], "e1": ["test"], "e3": ["more"], "e4": ["less"]},
        "train_pair": {"e0": ["whole"], "e2": ["train"], "e3": ["more"], "e4": ["less"]},
    }
    strict = (
        LeakDetector(asked, fixed_background=True).find_leaks(TaskList("t", tuple(training)).pairs_by_id()).as_dict()
    )
    assert strict == {
        "same_task": {},
        "test_pair": {"e3": ["more"], "e4": ["less"]},
        "train_pair": {"e3": ["more"], "e4": ["less"]},
    }


def test_unknown_outputs_are_told() -> None:
    task = random_task(Stream("open"), 3, name="open")
    unknown = Task("open", task.train, (Pair(task.test[0].input, None),))
    auditor = LeakDetector([unknown])
    assert auditor.unknown_output_ids == ["open"]
    found = auditor.find_leaks([("t", task.train + task.test)]).as_dict()
    assert found == {"same_task": {}, "test_pair": {}, "train_pair": {"open": ["t"]}}


KNOWN = ["0934a4d8", "136b0064", "16b78196", "981571dc", "aa4ec2a5", "da515329"]


@pytest.mark.slow
@pytest.mark.parametrize("background", ["free", "fixed"])
def test_the_known_truth_about_the_arc_sets(background: str) -> None:
    """Found twice independently before this code was written."""
    arc1, arc2 = open_dataset("arc1/evaluation"), open_dataset("arc2/evaluation")
    train = [open_dataset(spec) for spec in ("arc1/training", "arc2/training", "arc1/evaluation")]
    audit = audit_datasets(train, [arc1, arc2])[background]
    (one_one, one_two), (two_one, two_two), (_, eval_eval) = [[f.as_dict() for f in row] for row in audit.found]
    assert {kind: len(found) for kind, found in two_one.items()} == {
        "same_task": 375,
        "test_pair": 376,
        "train_pair": 376,
    }
    assert set(two_one["test_pair"]) - set(two_one["same_task"]) == {"ac0c5833"}
    assert one_one == {
        "same_task": {"070dd51e": ["40853293"]},
        "test_pair": {"070dd51e": ["40853293"], "50a16a69": ["caa06a1f"]},
        "train_pair": {"070dd51e": ["40853293"], "50a16a69": ["caa06a1f"]},
    }
    assert one_two == two_two == {"same_task": {}, "test_pair": {}, "train_pair": {}}
    same = {name: [name] for name in KNOWN}
    assert eval_eval == {"same_task": same, "test_pair": same, "train_pair": {**same, "db695cfb": ["55783887"]}}
    assert len(audit.clean_eval_ids(0)) == 0  # it was audited against itself, too
    assert len(audit.clean_eval_ids(1)) == 120 - 7
    assert len(list(audit.clean_train_ids(2))) == 0
    assert len(list(audit.clean_train_ids(0))) == 398


def test_nothing_between_the_other_sets(shared_data: Path) -> None:
    files = [open_dataset(str(shared_data / f"{name}.json.gz")) for name in ("conceptarc", "mini_arc")]
    audit = audit_datasets(files, [open_dataset("arc1/evaluation"), open_dataset("arc2/evaluation")])["free"]
    assert audit.all_findings().leaked_eval_ids == set()
    assert audit.n_train == 528 + 149


def test_lists_of_pairs_are_audited_whole(shared_data: Path) -> None:
    re_arc = open_dataset(str(shared_data / "re_arc_24.json.gz#n=3"))
    hidden = [pair for _, found in re_arc.pairs_by_id() for pair in found][23]
    task = Task("asked", random_task(Stream("a"), 2).train, (hidden,))
    audit = audit_datasets([re_arc], [TaskList("e", (task,))])["fixed"]
    assert audit.all_findings().as_dict()["test_pair"] == {"asked": [re_arc.ids[0]]}
    assert [task.id for task in iterate_tasks(re_arc)] == list(re_arc.ids)
