"""Samples are requested look by look; a look waits for its answers, and looks that were passed stay passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.sampling.options.config_draft import ConfigDraft
from harness.sampling.options.run_options import RunOptions
from harness.sampling.plan import Plan
from harness.sampling.schedulers.look_scheduler import LookScheduler

DESIGN = SequentialDesign(metric="accuracy", looks=[2, 4, 6], alpha=0.05, smaller_than=None)


def plan_of_six_tasks() -> Plan:
    """Return the plan of two models, six tasks with one test output, and two samples: numbers 0-11 and 12-23."""
    options = RunOptions(
        servers=("http://later",), models=("m0", "m1"), dataset="toy/copy#n=6", n=2,
        out=Path("unused"), prompt="compact-v0", encoder="MinimalGridEncoder()",
    )  # fmt: skip
    dataset = open_dataset(options.dataset)
    tasks = list(iterate_tasks(dataset))
    return Plan(ConfigDraft(options, dataset, tasks).complete({})[0], tasks)


def run_to_the_end(done: Sequence[int], last: int) -> tuple[list[int], list[int]]:
    """Answer everything at once; return the looks that were decided, of which ``last`` ends, and the requests."""
    plan = plan_of_six_tasks()
    answered, looks, requested = bytearray(len(plan)), [], []
    for number in done:
        answered[number] = 1

    def ends_after(tasks: int) -> bool:
        looks.append(tasks)
        return tasks == last

    for block in LookScheduler(plan, DESIGN, answered, ends_after).blocks(1, 1):
        requested += block
        for number in block:
            answered[number] = 1
    return looks, requested


@pytest.mark.parametrize("last", [2, 4, 6, 7])
def test_tasks_after_the_last_look_are_never_requested(last: int) -> None:
    looks, requested = run_to_the_end((), last)
    tasks = min(last, 6)
    assert looks == [look for look in (2, 4, 6) if look <= tasks]
    assert sorted(requested) == [*range(2 * tasks), *range(12, 12 + 2 * tasks)]


def test_looks_that_were_passed_are_not_decided_again() -> None:
    first_look_and_one_more = (0, 1, 2, 3, 12, 13, 14, 15, 4)
    assert run_to_the_end(first_look_and_one_more, last=2) == (
        [4, 6],
        [5, 6, 7, 16, 17, 18, 19, 8, 9, 10, 11, 20, 21, 22, 23],
    )


def test_a_look_waits_for_its_answers() -> None:
    plan = plan_of_six_tasks()
    answered, looks = bytearray(len(plan)), []
    blocks = LookScheduler(plan, DESIGN, answered, lambda tasks: bool(looks.append(tasks))).blocks(2, 1)
    requested = [number for _ in range(8) for number in next(blocks)]
    assert sorted(requested) == [0, 1, 2, 3, 12, 13, 14, 15]
    for number in requested:
        assert (next(blocks), looks) == ((), [])
        answered[number] = 1
    assert next(blocks) == [4]
    assert looks == [2]
