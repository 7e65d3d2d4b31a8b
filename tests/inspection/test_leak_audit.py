"""Leak detection between training and evaluation data, and the audit of whole datasets."""

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
from harness.inspection.leak_audit import LeakAudit, audit_datasets
from harness.inspection.leak_detection import canonical_pair, colour_count_key, shape_key
from tests.support.data_samples import pairs, random_task

free_colours = st.permutations(range(COLOURS))
colours_with_0_fixed = st.permutations(range(1, COLOURS)).map(lambda rest: [0, *rest])


def transform(pair: Pair, symmetry: str, colours: list[int]) -> Pair:
    """Apply a symmetry and a bijection of colours to input and output."""
    assert pair.output is not None
    view = Augmentation(symmetry, tuple(colours), ())
    return Pair(view.apply(pair.input), view.apply(pair.output))


def audit_tasks(train: list[Task], evals: list[Task]) -> dict[str, LeakAudit]:
    return audit_datasets([TaskList("train", tuple(train))], [TaskList("eval", tuple(evals))])


@given(pairs(), st.sampled_from(SYMMETRIES), free_colours)
def test_keys_are_invariant(pair: Pair, symmetry: str, colours: list[int]) -> None:
    other = transform(pair, symmetry, colours)
    assert canonical_pair(other) == canonical_pair(pair)
    assert (shape_key(other), colour_count_key(other)) == (shape_key(pair), colour_count_key(pair))


@given(pairs(), st.sampled_from(SYMMETRIES), colours_with_0_fixed)
def test_keys_are_invariant_with_the_background_fixed(pair: Pair, symmetry: str, colours: list[int]) -> None:
    keys = {canonical_pair(one, fixed_background=True) for one in (pair, transform(pair, symmetry, colours))}
    assert len(keys) == 1


def test_different_pairs_have_different_keys() -> None:
    def pair(source: list[list[int]], target: list[list[int]]) -> Pair:
        return Pair(Grid.from_rows(source), Grid.from_rows(target))

    different = [
        pair([[1, 2, 0]], [[1]]),
        pair([[1, 2, 0]], [[2]]),  # the colour of another cell of the input
        pair([[1, 2, 0]], [[3]]),  # a colour that the input lacks
        pair([[1, 2, 0]], [[1, 1]]),
        pair([[1, 2, 0]], [[1], [1]]),  # rotated while the input is not
        pair([[1]], [[1, 2, 0]]),
        pair([[1, 1, 0]], [[1]]),
    ]
    assert len({canonical_pair(one) for one in different}) == len(different)
    zero, one = pair([[0, 0, 1]], [[0]]), pair([[2, 2, 0]], [[2]])
    assert canonical_pair(zero) == canonical_pair(one)
    assert canonical_pair(zero, fixed_background=True) != canonical_pair(one, fixed_background=True)


def test_planted_leaks_are_found_and_nothing_else() -> None:
    evals = [random_task(Stream("eval", k), 3, name=f"e{k}") for k in range(8)]
    recoloured = [Augmentation("rot90", (3, 1, 4, 0, 5, 9, 2, 6, 8, 7), tuple(range(3))).apply_task(t) for t in evals]
    whole = recoloured[0]
    other = random_task(Stream("train"), 5, name="x")
    training = [
        other,
        Task("whole", whole.test + whole.train[1:], whole.train[:1]),  # the same pairs, split differently
        Task("test", other.train + recoloured[1].test, other.test),
        Task("train", recoloured[2].train[:1] + other.train, other.test),
        Task("more", evals[3].train + evals[3].test, other.test),  # every pair of e3 and one more
        Task("less", evals[4].train[1:], evals[4].test),
    ]
    audits = audit_tasks(training, evals)
    assert audits["free"].all_findings().as_dict() == {
        "same_task": {"e0": ["whole"]},
        "test_pair": {"e0": ["whole"], "e1": ["test"], "e3": ["more"], "e4": ["less"]},
        "train_pair": {"e0": ["whole"], "e2": ["train"], "e3": ["more"], "e4": ["less"]},
    }
    assert audits["fixed"].all_findings().as_dict() == {
        "same_task": {},
        "test_pair": {"e3": ["more"], "e4": ["less"]},
        "train_pair": {"e3": ["more"], "e4": ["less"]},
    }
    assert audits["free"].clean_eval_ids(0) == ["e5", "e6", "e7"]
    assert list(audits["fixed"].clean_train_ids(0)) == ["x", "whole", "test", "train"]


def test_a_train_pair_alone_is_not_a_test_pair() -> None:
    task, other = random_task(Stream("eval"), 3, name="e"), random_task(Stream("train"), 3, name="x")
    audit = audit_tasks([Task("t", task.train[1:2] + other.train, other.test)], [task])["free"]
    assert audit.all_findings().as_dict() == {"same_task": {}, "test_pair": {}, "train_pair": {"e": ["t"]}}
    assert (audit.clean_eval_ids(0), list(audit.clean_train_ids(0)), audit.n_train) == ([], [], 1)


def test_tasks_with_unknown_outputs_are_listed() -> None:
    task = random_task(Stream("open"), 3, name="open")
    unknown = Task("open", task.train, (Pair(task.test[0].input, None),))
    audit = audit_tasks([Task("t", task.train, task.test)], [unknown])["free"]
    assert audit.unknown_output_ids == ("open",)
    assert audit.all_findings().as_dict() == {"same_task": {}, "test_pair": {}, "train_pair": {"open": ["t"]}}


KNOWN = ["0934a4d8", "136b0064", "16b78196", "981571dc", "aa4ec2a5", "da515329"]


@pytest.mark.slow
@pytest.mark.parametrize("background", ["free", "fixed"])
def test_known_leaks_between_the_arc_sets(background: str) -> None:
    """The expected leaks were found twice, independently, before this code was written."""
    arc1, arc2 = open_dataset("arc1/evaluation"), open_dataset("arc2/evaluation")
    train = [open_dataset(spec) for spec in ("arc1/training", "arc2/training", "arc1/evaluation")]
    audit = audit_datasets(train, [arc1, arc2])[background]
    (one_one, one_two), (two_one, two_two), (_, eval_eval) = [[f.as_dict() for f in row] for row in audit.findings]
    assert {kind: len(ids) for kind, ids in two_one.items()} == {"same_task": 375, "test_pair": 376, "train_pair": 376}
    assert set(two_one["test_pair"]) - set(two_one["same_task"]) == {"ac0c5833"}
    assert one_one == {
        "same_task": {"070dd51e": ["40853293"]},
        "test_pair": {"070dd51e": ["40853293"], "50a16a69": ["caa06a1f"]},
        "train_pair": {"070dd51e": ["40853293"], "50a16a69": ["caa06a1f"]},
    }
    assert one_two == two_two == {"same_task": {}, "test_pair": {}, "train_pair": {}}
    same = {name: [name] for name in KNOWN}
    assert eval_eval == {"same_task": same, "test_pair": same, "train_pair": {**same, "db695cfb": ["55783887"]}}
    assert len(audit.clean_eval_ids(0)) == 0  # arc1/evaluation is among the training sets too
    assert len(audit.clean_eval_ids(1)) == 120 - 7
    assert len(list(audit.clean_train_ids(2))) == 0
    assert len(list(audit.clean_train_ids(0))) == 398


def test_no_leaks_from_conceptarc_and_mini_arc(shared_data: Path) -> None:
    files = [open_dataset(str(shared_data / f"{name}.json.gz")) for name in ("conceptarc", "mini_arc")]
    audit = audit_datasets(files, [open_dataset("arc1/evaluation"), open_dataset("arc2/evaluation")])["free"]
    assert audit.all_findings().leaked_eval_ids == set()
    assert audit.n_train == 528 + 149


def test_every_pair_of_a_list_is_audited(shared_data: Path) -> None:
    """Also the pairs that the fixed draw of a task does not show."""
    re_arc = open_dataset(str(shared_data / "re_arc_24.json.gz#n=3"))
    last_pair = next(re_arc.pairs_by_id())[1][23]
    task = Task("asked", random_task(Stream("a"), 2).train, (last_pair,))
    audit = audit_datasets([re_arc], [TaskList("e", (task,))])["fixed"]
    assert audit.all_findings().as_dict()["test_pair"] == {"asked": [re_arc.ids[0]]}
    assert [task.id for task in iterate_tasks(re_arc)] == list(re_arc.ids)
