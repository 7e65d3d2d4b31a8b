"""``bench gate``: verdicts, exit statuses and JUnit files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.results.junit_xml import write_junit
from harness.stats.gate import Gate
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=40"


def suite(path: Path) -> ElementTree.Element:
    """Return the only suite of a JUnit file after checking its counts."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    (actual,) = root
    (case,) = actual
    assert (actual.tag, case.tag) == ("testsuite", "testcase")
    for element in (root, actual):
        assert int(element.attrib["tests"]) == 1
        assert int(element.attrib["failures"]) == len(case.findall("failure"))
        assert int(element.attrib["errors"]) == len(case.findall("error"))
    assert case.attrib["name"]
    assert case.attrib["classname"]
    return actual


@pytest.mark.parametrize(("minimum", "status", "word"), [(0.3, 0, "PASS"), (0.8, 3, "INCONCLUSIVE"), (1.0, 1, "FAIL")])
def test_a_gate_with_a_minimum(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path, minimum: float, status: int, word: str
) -> None:
    run = make_run("a", SPEC, {"m": 0.9})
    actual, out, _ = run_bench(
        capsys, "gate", run, "--metric", "accuracy", "--min", minimum, "--junit", tmp_path / "gate.xml"
    )
    assert actual == status
    assert out.startswith(f"{word}: accuracy is 8")
    written = suite(tmp_path / "gate.xml")
    kinds = {0: ("0", "0"), 1: ("1", "0"), 3: ("0", "1")}[status]
    assert (written.attrib["failures"], written.attrib["errors"]) == kinds
    assert f"accuracy >= {minimum:g}" in written[0].attrib["name"]


@pytest.mark.parametrize(
    ("metric", "margin", "status"),
    [("accuracy", 0.9, 0), ("accuracy", 0.1, 1), ("unanswered", 0.2, 0), ("pass_n", 0.02, 3)],
)
def test_a_gate_with_a_baseline(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, metric: str, margin: float, status: int
) -> None:
    run = make_run("a", SPEC, {"new": 0.6, "old": 0.9})
    actual, out, err = run_bench(
        capsys, "gate", f"{run}@new", "--baseline", f"{run}@old", "--metric", metric, "--margin", margin
    )
    assert (actual, err) == (status, "")
    assert out.startswith({0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[status])
    assert f"asked for is a loss of at most {100 * margin:g}" in out


def test_a_model_is_no_worse_than_itself_only_where_the_tasks_suffice(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"m": 0.6})
    words = ("gate", run, "--baseline", run, "--metric", "vote_2", "--margin")
    assert run_bench(capsys, *words, "0.1")[0] == 0
    status, out, _ = run_bench(capsys, *words, "0.05")
    assert status == 3
    assert "[-8.8, +8.8] (widest case: too few tasks differ)" in out


def test_a_pass_says_where_tasks_that_lose_everything_may_have_been_missed(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", "toy/cross/evaluation#n=20", {"new": 0.9, "old": 0.5}, n=16)
    words = ("gate", f"{run}@new", "--baseline", f"{run}@old", "--metric", "accuracy")
    status, out, err = run_bench(capsys, *words, "--margin", "0.06")
    assert (status, out[:4]) == (0, "PASS")
    assert err == (
        "warning: 20 tasks miss, with more than 5 % probability, all tasks that lose everything, if these are at most "
        "13.91 % of the family; the margin is 6 points\n"
    )
    assert run_bench(capsys, *words, "--margin", "0.14")[::2] == (0, "")
    assert run_bench(capsys, *words, "--min-gain", "0.06")[::2] == (0, "")
    status, out, err = run_bench(
        capsys, *words[:1], f"{run}@old", "--baseline", f"{run}@new", *words[4:], "--margin", 0
    )
    assert (status, err) == (1, "")


def test_what_is_asked_for_is_not_rounded(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    run = make_run("a", SPEC, {"m": 0.9})
    _, out, _ = run_bench(capsys, "gate", run, "--metric", "accuracy", "--min", "0.2004")
    assert "asked for is at least 20.04 % (" in out


def test_a_gate_that_cannot_be_computed_is_an_error_in_junit_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, _, err = run_bench(capsys, "gate", tmp_path, "--min", "0.5", "--junit", tmp_path / "gate.xml")
    assert status == 4  # not 1, which says FAIL
    assert "manifest.json is missing" in err
    error = suite(tmp_path / "gate.xml")[0].find("error")
    assert error is not None
    assert "manifest.json is missing" in error.attrib["message"]


def test_a_run_without_predictions_is_an_error_in_junit(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("a", SPEC, {"m": 0.6})
    (run / "predictions.jsonl").unlink()
    assert run_bench(capsys, "gate", run, "--min", "0.5", "--junit", tmp_path / "gate.xml")[0] == 4
    assert suite(tmp_path / "gate.xml").attrib["errors"] == "1"


def test_any_name_makes_valid_xml(tmp_path: Path) -> None:
    for verdict in (*Gate, None):
        write_junit(tmp_path / "gate.xml", 'a<b & "c" \x00\x1b\ud800 é', verdict, "<&>\x07]]>")
        assert suite(tmp_path / "gate.xml")[0].attrib["name"] == 'a<b & "c" ��� é'
