"""The option ``--deadline``: which durations it takes, when it begins, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.parameters import Seconds, deadline_option
from harness.core.deadline import Deadline, duration_text
from tests.support.commands import run_bench

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
COMMANDS = {
    "run": ("--server", "http://127.0.0.1:9", "--model", "base", "--dataset", "toy/copy/evaluation#n=2", "--out"),
    "rescore": ("--server", "http://127.0.0.1:9", "."),
    "ttt": ("--dataset", "toy/copy/evaluation#n=2", "README.md", "--out"),
}


def parse(text: str) -> float:
    return Seconds().convert(text, None, None)


@given(st.decimals(min_value="0.001", max_value="100000", places=3), st.sampled_from(sorted(UNITS)))
def test_a_number_with_a_unit_is_a_duration(number: object, unit: str) -> None:
    assert parse(f"{number}{unit}") == float(str(number)) * UNITS[unit]


@given(st.integers(1, 10**6))
def test_a_duration_as_text_is_read_back(seconds: int) -> None:
    assert parse(duration_text(seconds)) == seconds
    assert parse(duration_text(seconds / 8)) == seconds / 8


@given(st.text(max_size=8) | st.text("0123456789.smh-+e", max_size=6))
def test_any_other_text_is_refused(text: str) -> None:
    number = text[:-1] if text[-1:] in ("s", "m", "h") else text
    whole, point, fraction = number.partition(".")
    if whole.isdecimal() and (fraction.isdecimal() or not point) and float(number) > 0:
        assert 0 < parse(text) < float("inf")
        return
    with pytest.raises(click.BadParameter) as caught:
        parse(text)
    assert caught.value.message == f"{text!r} is not a duration such as 90s, 10m or 1h"


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("value", ["0", "0h", "-5", "-1h", "soon", "", "1d", "1h30m", "inf", "nan", "1e3", "9" * 400])
def test_nonsense_is_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, value: str
) -> None:
    words = [*COMMANDS[command], *([tmp_path / "out"] if command != "rescore" else [])]
    status, _, error = run_bench(capsys, command, *words, "--deadline", value)
    assert status == 2
    lines = [line for line in error.splitlines() if "is not a duration" in line]
    assert len(lines) == 1
    assert "--deadline" in lines[0]
    assert not (tmp_path / "out").exists()


def test_it_counts_from_the_start_of_the_command() -> None:
    seen: list[Deadline | None] = []

    @click.command()
    @deadline_option("Ask nothing")
    def command(deadline: Deadline | None) -> None:
        seen.append(deadline)

    before = monotonic()
    command(["--deadline", "90m"], standalone_mode=False)
    command([], standalone_mode=False)
    first, second = seen
    assert second is None
    assert first is not None
    assert before <= first.started <= monotonic()
    assert first.time == first.started + 5400
    assert 5390 < first.seconds_left <= 5400


@pytest.mark.parametrize(
    ("seconds", "text"), [(43200, "12h"), (5400, "90m"), (90, "90s"), (1.5, "1.5s"), (0.001, "0.001s")]
)
def test_durations_are_written_as_the_option_takes_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
