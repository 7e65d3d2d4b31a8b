"""Run steps that may fail, within a time limit, and write a page on all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common.machine import describe_machine
from harness.runs.environment import describe_environment

Figures = Mapping[str, str]
"""What a step has found: each figure with its name."""


class StepFailed(Exception):
    """A step failed; the message is the reason for the page."""


@dataclass(frozen=True)
class Outcome:
    """Result of one step: ``failed`` is the reason, or "" if it passed."""

    name: str
    seconds: float
    figures: Figures
    failed: str = ""


@dataclass
class Check:
    """State that all steps share.

    Attributes:
        device: "cuda" or "cpu".
        small: use minimal sizes, to test the steps on a CPU.
        ends: end of the time limit on ``time.monotonic``'s clock.
    """

    work: Path
    device: str
    small: bool
    ends: float
    outcomes: list[Outcome] = field(default_factory=list)

    def left(self) -> float:
        """Return the seconds until the time limit."""
        return self.ends - time.monotonic()

    def run(self, *words: str, wanted: int = 0) -> tuple[str, str]:
        """Run a module of this checkout in its own process group, and return stdout and stderr.

        Raises:
            StepFailed: the exit status is not ``wanted``, or the time is over.
        """
        hidden = {} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **hidden}
        with subprocess.Popen(
            [sys.executable, "-m", *words],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child:
            try:
                output, errors = child.communicate(timeout=max(1.0, self.left()))
            except subprocess.TimeoutExpired:
                raise StepFailed(f"{' '.join(words[:2])}: not done when the time was over") from None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
        if child.returncode != wanted:
            end = "\n".join((output + errors).strip().splitlines()[-15:])
            raise StepFailed(f"{' '.join(words[:2])} ended with status {child.returncode}, not {wanted}:\n{end}")
        return output, errors

    def step(self, name: str, do: Callable[[Check], Figures]) -> bool:
        """Run a step and record its outcome. Any exception counts as its failure."""
        print(f"{name} …", file=sys.stderr, flush=True)
        started, figures, failed = time.monotonic(), {}, ""
        try:
            if self.left() <= 0:
                raise StepFailed("not run: the time was over")
            figures = dict(do(self))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # told on the page
            failed = str(error) if isinstance(error, StepFailed | SystemExit) else f"{type(error).__name__}: {error}"
        self.outcomes.append(Outcome(name, time.monotonic() - started, figures, failed))
        print(f"{name}: {failed or figures}", file=sys.stderr, flush=True)
        return not failed


def page(check: Check, command_line: Sequence[str]) -> str:
    """Return the page: machine, a line per step, its results, and the full reasons of failures."""
    about = describe_environment()
    commit = f"{about.commit[:10]}{'+' if about.dirty else ''}" if about.commit else about.version
    what = "a reduced form that says nothing about a GPU" if check.device == "cpu" else "on this GPU"
    command = " ".join(["python -m benchmarks.gpu", *command_line])
    lines = [
        "# GPU check",
        "",
        f"Written by `{command}`, {what}, at {commit}, {time.strftime('%Y-%m-%d')}.",
        describe_machine(),
        "",
        "| step | | seconds | found |",
        "| --- | --- | ---: | --- |",
    ]
    for outcome in check.outcomes:
        result = "FAILED" if outcome.failed else "passed"
        values = "; ".join(f"{name} {value}" for name, value in outcome.figures.items())
        lines.append(f"| {outcome.name} | {result} | {outcome.seconds:.0f} | {values} |")
    for outcome in check.outcomes:
        if outcome.failed:
            lines += ["", f"{outcome.name}:", "", *(f"    {line}" for line in outcome.failed.splitlines())]
    return "\n".join(lines) + "\n"
