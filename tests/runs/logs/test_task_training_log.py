"""ttt.jsonl: lines survive kills, and tasks are done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.runs.logs.task_training_log import TrainingLog
from harness.runs.schemas.task_training import Protocol, TttConfig, TttPlan, count_outcomes
from tests.support.runs.trained_runs import record


def test_a_line_that_was_cut_at_any_byte_is_dropped_and_written_again(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "ttt.jsonl")
    assert log.records() == {}
    for name in ("a", "b"):
        log.append(record(name))
    whole = log.path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        log.path.write_bytes(whole[:end])
        assert list(log.records()) == ["a"]
        log.append(record("b"))
        assert log.path.read_bytes() == whole


def test_the_last_line_of_a_task_counts_and_removed_tasks_are_gone(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "ttt.jsonl")
    for name, steps in (("a", 1), ("b", 2), ("a", 3)):
        log.append(record(name, steps=steps))
    assert log.records()["a"].steps == 3
    log.remove(["b", "unknown"])
    assert list(log.records()) == ["a"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "ttt.jsonl")
    log.append(record("a"))
    log.path.write_bytes(log.path.read_bytes() + b'{"task_id": "b"}\n')
    with pytest.raises(RunError, match=r"ttt\.jsonl, line 2: outcome: Field required"):
        log.records()


def test_outcomes_are_counted() -> None:
    records = {name: record(name, outcome=kind) for name, kind in (("a", "trained"), ("b", "cut"), ("c", "trained"))}
    assert count_outcomes(records) == {"cut": 1, "trained": 2}


def test_changes_of_a_plan_name_the_key() -> None:
    protocol = Protocol(label="not known", trained_on=[], leaked_tasks=0, reason="")
    config = TttConfig(recipe={"model": "tiny", "learning_rate": 0.004}, base="b", start=None)
    plan = TttPlan(
        format=1, model="m", dataset="toy/copy", dataset_digest="d", task_ids=["a"], config=config, protocol=protocol
    )
    other = plan.model_copy(
        update={"config": config.model_copy(update={"recipe": {"model": "tiny", "learning_rate": 0.001}})}
    )
    assert plan.changes(other) == ["learning_rate: 0.004 -> 0.001"]
    assert plan.changes(plan.model_copy(update={"model": "another"})) == [f"the run's model: {plan.model} -> another"]
    assert plan.changes(plan.model_copy(update={"protocol": protocol.model_copy(update={"reason": "x"})})) == []
