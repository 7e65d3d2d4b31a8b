"""Runs with --stop against the in-process server: answers with a first and a second choice that every view shares."""

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

QUICK = RetryPolicy(max_in_flight=16, retries=3, timeout=20.0, wait=5.0, backoff=0.005)
MODELS = ("base", "cross")


def torn(body: Body) -> tuple[str, str]:
    """Right, turned by 180° (the same wrong grid under every symmetry), recoloured, or broken, by a hash."""
    text = echo(body)
    digest = hashlib.sha256(repr([body["model"], body["messages"]]).encode()).digest()
    # No view changes how often colours occur: by that tasks differ in how clear the vote is, and in what wins it.
    mood = hashlib.sha256(repr(sorted(Counter(text).values())).encode()).digest()
    clear = 180 + mood[0] % 70
    if digest[0] >= clear:
        return ("no grid", "stop") if digest[1] < 40 else (text.replace(text[0], str(digest[1] % 10)), "stop")
    right = (digest[0] < clear * 0.66) == (mood[1] < 160)
    return (text if right else text[::-1]), "stop"


def options(server: ChatServer, out: Path, **changes: object) -> RunOptions:
    """20 test outputs a model, 16 draws each; rounds end after 8, 13 and 15 draws (8, 10, 12, 14 with a risk)."""
    chosen = RunOptions(
        servers=(server.url,), models=MODELS, dataset="toy/copy/evaluation#n=20", n=16, out=out, prompt="compact-v0",
        encoder="MinimalGridEncoder()", policy=QUICK,
    )  # fmt: skip
    return replace(chosen, **changes)  # type: ignore[arg-type]


def cut(run: Path, into: Path, lines: int) -> None:
    """A copy of a run as a kill would have left it after so many predictions, with half a line behind them."""
    into.mkdir()
    folder, copy = RunFolder(run), RunFolder(into)
    copy.write_manifest(folder.manifest().model_copy(update={"finished": None}))
    saved = folder.predictions_path.read_bytes().splitlines(keepends=True)
    copy.predictions_path.write_bytes(b"".join(saved[:lines]) + b"".join(saved[lines : lines + 1])[:50])
