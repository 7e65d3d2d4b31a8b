"""Commands of `bench`, run in this process."""

from __future__ import annotations

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli


def bench(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The exit status of a command, and what it wrote to the two outputs."""
    status = run_cli(cli, [*map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err
