"""Runs with ``--stop`` against a test's server, whose answers leave many votes close."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from harness.client.retry import RetryPolicy
from harness.runs.folder import RunFolder
from harness.sampling.options import RunOptions
from tests.support.chat_answers import Body, echo
from tests.support.chat_server import ChatServer

STOPPING_POLICY = RetryPolicy(max_in_flight=16, retries=3, timeout=20.0, wait=5.0, backoff=0.005)
MODELS = ("base", "cross")


def ambiguous_answer(body: Body) -> tuple[str, str]:
    """Return an answer chosen by a hash: right, recoloured, broken, or rotated by 180° (one grid in every view)."""
    text = echo(body)
    digest = hashlib.sha256(repr([body["model"], body["messages"]]).encode()).digest()
    # The number of cells of each colour is the same in every view. It decides how clear a task's vote is and which
    # grid wins it.
    task_digest = hashlib.sha256(repr(sorted(Counter(text).values())).encode()).digest()
    common = 180 + task_digest[0] % 70
    if digest[0] >= common:
        return ("no grid", "stop") if digest[1] < 40 else (text.replace(text[0], str(digest[1] % 10)), "stop")
    right = (digest[0] < common * 0.66) == (task_digest[1] < 160)
    return (text if right else text[::-1]), "stop"


def stopping_options(server: ChatServer, out: Path, **changes: object) -> RunOptions:
    """Return options for 20 test outputs per model with 16 samples each.

    Rounds end after 8, 13 and 15 samples (8, 10, 12 and 14 with a risk).
    """
    options = RunOptions(
        servers=(server.url,), models=MODELS, dataset="toy/copy/evaluation#n=20", n=16, out=out, prompt="compact-v0",
        encoder="MinimalGridEncoder()", policy=STOPPING_POLICY,
    )  # fmt: skip
    return replace(options, **changes)  # type: ignore[arg-type]


def copy_interrupted(run: Path, to: Path, lines: int) -> None:
    """Copy a run as it would be if killed after ``lines`` predictions, with an incomplete line after them."""
    to.mkdir()
    folder, copy = RunFolder(run), RunFolder(to)
    copy.write_manifest(folder.manifest().model_copy(update={"finished": None}))
    saved_lines = folder.predictions_path.read_bytes().splitlines(keepends=True)
    copy.predictions_path.write_bytes(b"".join(saved_lines[:lines]) + b"".join(saved_lines[lines : lines + 1])[:50])
