"""The GPU check's frame: a step that fails is noted with its reason, the others run, and time over is time over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.gpu.steps import Check, Figures, StepFailed, page
from benchmarks.gpu.swaps import _is_wrong


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path, "cpu", small=True, ends=time.monotonic() + 60)


def test_every_step_is_on_the_page_and_failures_with_their_reason(check: Check) -> None:
    def fine(check: Check) -> Figures:
        return {"rate": "7 tokens/s"}

    def failing(check: Check) -> Figures:
        raise StepFailed("the first line\nand the second")

    def broken(check: Check) -> Figures:
        return {"x": str(1 / int("0"))}

    def leaving(check: Check) -> Figures:
        raise SystemExit("contestants failed with status 1")

    steps = {"one": fine, "two": failing, "three": broken, "four": leaving, "five": fine}
    assert [check.step(name, do) for name, do in steps.items()] == [True, False, False, False, True]
    text = page(check, ["--device", "cpu", "--small"])
    assert "`python -m benchmarks.gpu --device cpu --small`, a reduced form that says nothing about a GPU" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1].strip() for row in rows] == list(steps)
    assert [row.split("|")[2].strip() for row in rows] == ["passed", "FAILED", "FAILED", "FAILED", "passed"]
    assert "    the first line\n    and the second\n" in text
    assert "ZeroDivisionError" in text
    assert "contestants failed with status 1" in text


def test_processes_are_ended_when_the_time_is_over(check: Check) -> None:
    check.ends = time.monotonic() + 1
    started = time.monotonic()
    with pytest.raises(StepFailed, match="not done when the time was over"):
        check.run("timeit", "-n", "1", "-r", "1", "import subprocess; subprocess.run(['sleep', '600'])")
    assert time.monotonic() - started < 10
    check.ends = time.monotonic()
    assert not check.step("late", lambda _: {})
    assert check.outcomes[-1].failed == "not run: the time was over"


def test_a_status_that_is_not_wanted_fails_with_the_end_of_the_output(check: Check, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StepFailed, match=r"json.tool \S* ended with status 1, not 0:\nExpecting property name"):
        check.run("json.tool", str(tmp_path / "bad.json"))
    output, errors = check.run("json.tool", str(tmp_path / "bad.json"), wanted=1)
    assert (output, errors[:9]) == ("", "Expecting")


def test_an_answer_is_wrong_where_it_is_closer_to_the_other_versions() -> None:
    alone = {"a@1": [[1, 2, 3, 4]], "a@2": [[1, 2, 9, 9]]}
    for version, tokens, wrong in (
        ("a@1", [1, 2, 3, 4], False),
        ("a@1", [1, 2, 3, 7], False),  # drifted in 16 bits
        ("a@1", [1, 2, 9, 4], True),
        ("a@2", [1, 2, 9, 4], False),
        ("a@1", [5, 5, 5, 5], False),  # as far from both
        ("a@3", [1, 2, 3, 4], True),  # a version that was not asked for
    ):
        assert _is_wrong(alone, 0, version, tokens) is wrong
