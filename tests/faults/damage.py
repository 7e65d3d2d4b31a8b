"""Damage files (truncate, flip a bit, empty or remove them), and run commands on the runs that they belong to."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
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
"""The commands that read a run."""


def run_bench(*words: str | Path) -> tuple[int, str, str]:
    """Run a command in this process and return its exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run_cli(cli, [str(word) for word in words])
    return status, out.getvalue(), err.getvalue()


def read_by(reader: str, run: Path, into: Path) -> tuple[int, str, str]:
    """Run one of READERS on a run and return its exit status, its output (or output file) and standard error."""
    words = [word.replace("RUN", str(run)).replace("OUT", str(into)) for word in READERS[reader]]
    status, out, err = run_bench(*words)
    if status == 0 and "-o" in words:
        out = Path(words[-1]).read_text()
    return status, out, err


def flipped_copies(data: bytes, bits: Iterable[int]) -> Iterator[bytes]:
    """Yield a copy of ``data`` for each bit, with that bit flipped."""
    for bit in bits:
        copy = bytearray(data)
        copy[bit // 8] ^= 1 << bit % 8
        yield bytes(copy)


def truncated_copies(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of ``data`` for each of the sizes."""
    return (data[:size] for size in sizes)


def sample_numbers(name: str, below: int, count: int) -> list[int]:
    """Return ``count`` numbers below a bound, the same for each name, or all numbers if there are no more."""
    return list(range(below)) if below <= count else list(Stream("some", name).sample(range(below), count))


def damaged_contents(content: bytes, stream: Stream, cuts: int, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield names and contents of damaged files: missing (None), empty, truncated, and with one bit flipped."""
    yield "gone", None
    yield "empty", b""
    for size in sorted({stream.below(len(content)) for _ in range(cuts)}):
        yield f"cut at {size}", content[:size]
    for _ in range(flips):
        index, bit = stream.below(len(content)), stream.below(8)
        (flipped,) = flipped_copies(content, [8 * index + bit])
        yield f"bit {bit} of {index} flipped", flipped


@contextmanager
def damaged_file(path: Path, content: bytes | None) -> Iterator[None]:
    """Replace the content of a file, or remove it (None), within the context."""
    original, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    try:
        if content is not None:
            path.write_bytes(content)
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(original)
        path.chmod(mode)
