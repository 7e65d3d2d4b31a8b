"""Run bench commands as the steps of a longer one: each is printed and runs in its own process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click


def print_command(*words: str) -> None:
    """Print a bench command as a user would type it."""
    click.secho(f"\n$ bench {shlex.join(words)}", bold=True)


def run_bench(*words: str, launcher: Sequence[str] = ()) -> None:
    """Print a bench command and run it in its own process.

    Args:
        words: the command without ``bench``.
        launcher: arguments of Python before the module, such as ``-m torch.distributed.run``.

    Raises:
        click.exceptions.Exit: the command failed and has printed why.
    """
    print_command(*words)
    # Neither this process nor those that torchrun starts import modules from the current directory.
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen([sys.executable, *launcher, "-m", "harness.cli", *words], env=env) as child:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise
    if status:
        click.echo(
            f"\nstopped: bench {words[0]} ended with status {status}; the same command resumes from here", err=True
        )
        raise click.exceptions.Exit(status)


def last_error(text: str) -> str:
    """Return the last error in a command's output (``error: …``), else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Stop a step and wait until it has saved its work.

    Ctrl-C on a terminal reaches the step too; a signal from elsewhere reaches this process only. So send SIGTERM in
    both cases: a step that is already stopping ignores it, and only a second Ctrl-C makes it abandon its requests.
    """
    while True:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait()
            return
        except KeyboardInterrupt:
            continue


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM within the block, so that its clean-up, such as stopping a server, runs."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
