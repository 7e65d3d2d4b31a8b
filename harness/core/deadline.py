"""The time limit of a command (``--deadline``), which counts from the command's start."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from time import monotonic

from harness.core.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time after which a command asks for nothing more.

    Args:
        seconds: from the command's start to the deadline.
        started: ``monotonic()`` of the command's start.
    """

    seconds: float
    started: float = field(default_factory=monotonic)

    @property
    def time(self) -> float:
        """``monotonic()`` at the deadline."""
        return self.started + self.seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.time - monotonic()


def check_time(deadline: Deadline | None, what: str) -> None:
    """Make sure that a deadline has not passed; None never passes.

    Args:
        what: what comes next, for the message, such as ``the server was started``.

    Raises:
        DeadlineError: it has.
    """
    if deadline is not None and deadline.seconds_left <= 0:
        raise DeadlineError(f"--deadline {duration_text(deadline.seconds)} passed before {what}")


def duration_text(seconds: float) -> str:
    """Return a duration as ``--deadline`` takes it, in the largest unit that needs no fraction: 12h, 90m, 1.5s."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{Decimal(repr(seconds)):f}".removesuffix(".0") + "s"
