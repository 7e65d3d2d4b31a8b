"""One request on its way through a run, how long it is tried, and the ways in which a server may fail at it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.client.request import Request
from harness.core.random_stream import Stream

_LONGEST_BACKOFF = 30.0
_MOST_DOUBLINGS = 60
SUSPECT, CONVICTED = 2, 4
"""After so many losses of its server a job is asked alone; after so many in all it is given up."""


@dataclass(frozen=True)
class Policy:
    """How long to try. Times in seconds."""

    max_in_flight: int = 256
    """Predictions in flight per server."""
    retries: int = 5
    """Further attempts for one request; being rate-limited or waiting for a server does not count."""
    timeout: float = 600.0
    """For one attempt."""
    wait: float = 600.0
    """How long to wait while no server answers."""
    backoff: float = 0.5
    """The first pause before another attempt; it doubles."""

    def pause(self, job: Job, attempt: int) -> float:
        """Seconds to wait before another attempt: doubling, with jitter from a quarter to the whole."""
        doubled = self.backoff * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
        return min(_LONGEST_BACKOFF, doubled) * (0.25 + 0.75 * job.jitter())


@dataclass
class Job:
    """A request on its way, with what it has been through; ``numbers`` are the predictions that it is for."""

    numbers: tuple[int, ...]
    request: Request
    attempts: int = 0
    first_fault: float | None = None
    losses: int = 0
    """How often a server went away while it had the job."""

    @property
    def is_suspect(self) -> bool:
        """It may be what servers die of: nothing else is to be in flight with it, so that nothing else is blamed."""
        return self.losses >= SUSPECT

    def forgive(self) -> None:
        """The faults were the server's: start counting anew."""
        self.attempts, self.first_fault = 0, None

    def only(self, place: int) -> Job:
        """The job for one of its predictions."""
        return replace(self, numbers=(self.numbers[place],), request=self.request.only((place,)))

    def jitter(self) -> float:
        """A number in [0, 1) that differs between jobs and attempts."""
        return Stream("jitter", self.numbers[0], self.attempts).uniform()


class Lost(Exception):
    """The server is away, or wants to be left alone; the job is to be given to whoever is free."""


class Divide(Exception):
    """The predictions of the job are to be asked for one by one, as one of them may be what fails."""


class GivenUp(Exception):
    """All attempts failed though the server answers others, or servers went away each time."""
