"""Steps that may fail one by one, each within the time that is left, and the page that tells of all of them."""

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
    """A step did not do what it should; the message is the reason for the page."""


@dataclass(frozen=True)
class Outcome:
    """One step as it went: ``failed`` has the reason, "" where it passed."""

    name: str
    seconds: float
    figures: Figures
    failed: str = ""


@dataclass
class Check:
    """What every step is told, and what is known so far.

    Attributes:
        device: "cuda" or "cpu".
        small: the least of everything, to see on a CPU that the steps run.
        ends: when the time is over, on ``time.monotonic``'s clock.
    """

    work: Path
    device: str
    small: bool
    ends: float
    outcomes: list[Outcome] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the time is over."""
        return self.ends - time.monotonic()

    def run(self, *words: str, wanted: int = 0) -> tuple[str, str]:
        """Run a module of this checkout in a process group of its own; returns stdout and stderr.

        Raises:
            StepFailed: it ended with another status than ``wanted``, or the time was over.
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
        """Do a step and note how it went; whatever ends it is its failure, and the next one still runs."""
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


def page(check: Check, asked: Sequence[str]) -> str:
    """The page: machine, a line for each step, its figures, and in full why one failed."""
    about = describe_environment()
    commit = f"{about.commit[:10]}{'+' if about.dirty else ''}" if about.commit else about.version
    what = "a reduced form that says nothing about a GPU" if check.device == "cpu" else "on this GPU"
    command = " ".join(["python -m benchmarks.gpu", *asked])
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
        found = "; ".join(f"{name} {value}" for name, value in outcome.figures.items())
        lines.append(f"| {outcome.name} | {result} | {outcome.seconds:.0f} | {found} |")
    for outcome in check.outcomes:
        if outcome.failed:
            lines += ["", f"{outcome.name}:", "", *(f"    {line}" for line in outcome.failed.splitlines())]
    return "\n".join(lines) + "\n"
