"""Commands made of commands: each step is shown, runs in a process of its own, and ends with this one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click


def show(*words: str) -> None:
    """Print a bench command as it would be typed."""
    click.secho(f"\n$ bench {shlex.join(words)}", bold=True)


def run_bench(*words: str, launcher: Sequence[str] = ()) -> None:
    """Run one bench command in a process of its own, shown first.

    Args:
        launcher: what Python runs it through, such as ``-m torch.distributed.run``.

    Raises:
        click.exceptions.Exit: it failed; its own message has been printed.
    """
    show(*words)
    # Nothing is imported from the user's current directory, nor by the processes that torchrun starts.
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen([sys.executable, *launcher, "-m", "harness.cli", *words], env=env) as child:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise
    if status:
        click.echo(
            f"\nstopped: bench {words[0]} ended with status {status}; the same command goes on from here", err=True
        )
        raise click.exceptions.Exit(status)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Wait until a step that was interrupted has saved its work.

    The terminal sends an interrupt to the step too, others to this process alone. SIGTERM is right for both: after
    another signal it changes nothing, so that only a second Ctrl-C makes the step leave what is in flight.
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
    """Let SIGTERM unwind like Ctrl-C, so that a server is always stopped."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
