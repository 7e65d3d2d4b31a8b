"""Files that are cut or have a bit turned over, and what the commands make of the run that they belong to."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.core.random_stream import Stream

READERS = {
    "score": ("score", "RUN", "--json", "-", "--resamples", "100"),
    "compare": ("compare", "RUN", "--json", "-"),
    "gate": ("gate", "RUN@base", "--min", "0.2"),
    "submit": ("submit", "RUN@base", "-o", "OUT/submission.json"),
    "report": ("report", "RUN", "-o", "OUT/report.md"),
}
"""The commands that read a run, as they are typed."""


def bench(*words: str | Path) -> tuple[int, str, str]:
    """Run a command in this process: its status, and what it said on both streams. A traceback is an error of ours."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run_cli(cli, [str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def read_by(reader: str, run: Path, into: Path) -> tuple[int, str, str]:
    """What a command makes of a run: its status, what it found, and what it complained of."""
    words = [word.replace("RUN", str(run)).replace("OUT", str(into)) for word in READERS[reader]]
    status, out, err = bench(*words)
    if status == 0 and "-o" in words:
        out = Path(words[-1]).read_text()
    return status, out, err


def turned(data: bytes, bits: Iterable[int]) -> Iterator[bytes]:
    """Copies of ``data``, each with one bit turned over."""
    for bit in bits:
        copy = bytearray(data)
        copy[bit // 8] ^= 1 << bit % 8
        yield bytes(copy)


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The first ``size`` bytes of ``data``, for each of the sizes."""
    return (data[:size] for size in sizes)


def some(name: str, below: int, times: int) -> list[int]:
    """Numbers below a bound, the same for a name; all of them where that is no more."""
    return list(range(below)) if below <= times else list(Stream("some", name).sample(range(below), times))
