"""Real ``bench run`` processes for tests that kill them, and what is to be equal afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

from tests.support.chat_answers import moody
from tests.support.chat_server import ChatServer
from tests.support.sampling_toys import stable

PLANNED = 64


def command(url: str, out: Path, *more: str) -> list[str]:
    """``bench run`` of two models, eight tasks and four predictions each."""
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", url, "--model", "base", "--model", "cross",
        "--dataset", "toy/copy/evaluation#n=8", "-n", "4", "--out", str(out), "--prompt", "compact-v0",
        "--grid-encoder", "MinimalGridEncoder()", "--max-in-flight", "4", *more,
    ]  # fmt: skip


def undisturbed(out: Path, *, tokens: bool = False) -> Path:
    """A run that nothing disturbs."""
    with ChatServer(moody, tokens=tokens) as server:
        subprocess.run(command(server.url, out), check=True, capture_output=True)
    return out


def core(run: Path) -> bytes:
    """``metrics`` and ``failures`` of results.json as they stand there."""
    models = orjson.loads((run / "results.json").read_bytes())["models"]
    return orjson.dumps(
        {name: {part: model[part] for part in ("metrics", "failures")} for name, model in models.items()}
    )


def check_equal(run: Path, calm: Path) -> None:
    """Equal predictions but for their times, and the same results."""
    assert stable(run) == stable(calm)
    assert core(run) == core(calm)
