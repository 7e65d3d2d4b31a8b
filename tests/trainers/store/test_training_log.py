"""The training log and the progress display."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.errors import RunError
from trainers.run.progress import Progress, format_duration
from trainers.store.training_log import TrainingLog, read_log


def test_a_progress_line_has_loss_speeds_padding_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(20, every=10) as shown:
        shown.start_at(8)
        for step in range(9, 21):
            shown.show_step(step, 1.25, samples=4, tokens=300, places=400)
        shown.print_note("a word")
    lines = capsys.readouterr().err.splitlines()
    figures = r"loss 1\.2500, \d+:\d\d left, [\d,]+ tokens/s, [\d.]+ samples/s, 25\.0% padding"
    assert re.fullmatch(f"step 10/20: {figures}", lines[0])
    assert re.fullmatch(f"step 20/20: {figures}", lines[1])
    assert lines[2:] == ["a word"]


def test_hidden_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, every=1, shown=False) as shown:
        shown.show_step(1, 1.0, samples=1, tokens=1, places=1)
        shown.print_note("a word")
    assert capsys.readouterr().err == ""


def test_durations_as_text() -> None:
    assert [format_duration(s) for s in (0, 59.6, 3599, 3600 + 61)] == ["0:00", "1:00", "59:59", "1:01:01"]


@pytest.mark.parametrize("last", [b'{"step": 3, "lo', b"null", b"\xff\xfe", b'{"loss": 1}'])
def test_a_last_line_that_is_incomplete_is_dropped_and_another_damaged_one_refused(tmp_path: Path, last: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + last)
    assert read_log(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"step": 1}\n' + last + b'\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"log\.jsonl, line 2: damaged, not an object with a step"):
        read_log(path)


def test_damage_behind_the_step_at_which_training_resumes_is_dropped(tmp_path: Path) -> None:
    """As a lost page leaves it after a power cut: only the lines up to the checkpoint were synced to the disk."""
    path, text = tmp_path / "log.jsonl", b'{"step": 1}\n{"step": 2}\n\0\0\0\n{"step": 4}\n'
    for from_step, left in ((0, []), (1, [{"step": 1}]), (2, [{"step": 1}, {"step": 2}])):
        path.write_bytes(text)
        with TrainingLog(path, from_step):
            assert read_log(path) == left
    path.write_bytes(text)
    with pytest.raises(RunError, match=r"log\.jsonl, line 3: damaged"):
        TrainingLog(path, 3)
    assert path.read_bytes() == text


@pytest.mark.parametrize(("kept", "missing"), [((), 3), ((1, 2), 1), ((3,), 2), ((1, 3), 1), ((1, 2, 3), 0)])
def test_steps_that_the_log_of_a_resumed_training_lacks_are_counted(
    tmp_path: Path, kept: tuple[int, ...], missing: int
) -> None:
    path = tmp_path / "log.jsonl"
    lines = [f'{{"step": {step}, "loss": 1}}\n' for step in (*kept, 4)]
    path.write_text("".join([*lines[:-1], '{"step": 3, "eval_loss": 1}\n', lines[-1]]))
    with TrainingLog(path, 3) as log:
        assert log.missing == missing
    path.unlink()
    with TrainingLog(path, 3) as log, TrainingLog(path) as new:
        assert (log.missing, new.missing) == (3, 0)


def test_a_resumed_log_drops_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with TrainingLog(path) as log:
        for step in (1, 2, 3, 4):
            log.write({"step": step, "loss": 1.0})
    path.write_text(path.read_text()[:-5])
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    with TrainingLog(path, 2) as log:
        log.write({"step": 3, "loss": 0.5})
        log.sync_to_disk()
    assert [(line["step"], line["loss"]) for line in read_log(path)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
