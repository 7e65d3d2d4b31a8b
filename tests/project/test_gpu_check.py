"""The steps of the GPU check: failures are recorded with their reason, later steps still run, the time limit holds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.gpu.steps import Check, Figures, StepFailed, page
from benchmarks.gpu.swaps import _is_wrong


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path, "cpu", small=True, ends=time.monotonic() + 60)


def test_the_page_has_every_step_and_the_reasons_of_failures(check: Check) -> None:
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


def test_processes_are_killed_at_the_time_limit(check: Check) -> None:
    check.ends = time.monotonic() + 1
    started = time.monotonic()
    with pytest.raises(StepFailed, match="not done when the time was over"):
        check.run("timeit", "-n", "1", "-r", "1", "import subprocess; subprocess.run(['sleep', '600'])")
    assert time.monotonic() - started < 10
    check.ends = time.monotonic()
    assert not check.step("late", lambda _: {})
    assert check.outcomes[-1].failed == "not run: the time was over"


def test_an_unexpected_exit_status_fails_with_the_end_of_the_output(check: Check, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StepFailed, match=r"json.tool \S* ended with status 1, not 0:\nExpecting property name"):
        check.run("json.tool", str(tmp_path / "bad.json"))
    output, errors = check.run("json.tool", str(tmp_path / "bad.json"), wanted=1)
    assert (output, errors[:9]) == ("", "Expecting")


def test_an_answer_closer_to_another_adapter_version_is_wrong() -> None:
    alone = {"a@1": [[1, 2, 3, 4]], "a@2": [[1, 2, 9, 9]]}
    for version, tokens, wrong in (
        ("a@1", [1, 2, 3, 4], False),
        ("a@1", [1, 2, 3, 7], False),  # drifted in 16 bits
        ("a@1", [1, 2, 9, 4], True),
        ("a@2", [1, 2, 9, 4], False),
        ("a@1", [5, 5, 5, 5], False),  # equally far from both
        ("a@3", [1, 2, 3, 4], True),  # a version that was not requested
    ):
        assert _is_wrong(alone, 0, version, tokens) is wrong
