"""How long a request is retried, and what happens to a request whose server crashes.

Most failures of a request are the server's: it restarts, it is overloaded, the network fails. The request is then
retried, by this server or by another one. But a few prompts crash every server that computes them (a bug of the model
code, memory that is exceeded). If such a job were retried for ever the run would never end; if every job that was in
flight during a crash were given up, a single crash of a server with 256 predictions in flight would lose them all.

A ``Job`` is therefore in one of two states, which depend only on ``server_losses``: how often a server stopped
answering while it had the job in flight.

    shared      fewer than ISOLATE_AFTER (2) losses. The job is in flight together with others, so that a loss says
                little about it: it is returned to the queue, and any server takes it.
    isolated    2 losses or more. ``JobQueue`` hands it out only after all shared jobs are done, and only while nothing
                else is in flight. A further loss can therefore be attributed to this job.

A job ends after GIVE_UP_AFTER (4) losses, of which at least the last two happened in isolation: it raises ``GivenUp``,
and its prediction is recorded with the outcome ``error``. A job of several prompts (a list at temperature 0) is split
after 3 losses; each part keeps the count, and one more loss in isolation ends the part that causes it. A prompt that
crashes its servers therefore costs a bounded number of crashes and no other prediction; servers that crash for other
reasons only send jobs back to the queue, unless the same job is hit four times.

``Server.answer_job`` calls ``Job.record_server_loss``, which raises. The engine then returns the job (``Lost``) or its
parts (``Divide``) to ``JobQueue``, which keeps isolated jobs apart, or records the failure (``GivenUp``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from harness.core.random_stream import Stream

_LONGEST_BACKOFF = 30.0
_MAX_DOUBLINGS = 60
ISOLATE_AFTER, GIVE_UP_AFTER = 2, 4
"""Server losses after which a job runs alone, and after which it is given up; see the module's docstring."""


class JobRequest(Protocol):
    """A request that can be split: for predictions, or for scores of answers."""

    @property
    def model(self) -> str: ...
    def select_prompt(self, index: int) -> Self: ...


RequestT = TypeVar("RequestT", bound=JobRequest)


@dataclass(frozen=True)
class RetryPolicy:
    """How many requests are in flight and how long failed ones are retried. Times are in seconds."""

    max_in_flight: int = 256
    """Predictions in flight per server."""
    retries: int = 5
    """Further attempts per request; replies that ask to wait and waiting for a server do not count."""
    timeout: float = 600.0
    """For one attempt."""
    wait: float = 600.0
    """How long to wait while no server answers; also the longest single pause."""
    backoff: float = 0.5
    """The first pause before another attempt; it doubles."""

    def pause(self, job: Job[Any], attempt: int) -> float:
        """Return the seconds to wait after a failed attempt.

        The backoff doubles with each attempt up to 30 s and is multiplied by a jitter between 1/4 and 1.

        Args:
            attempt: the number of the failed attempt, from 1.
        """
        doubled = self.backoff * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS)
        return min(_LONGEST_BACKOFF, doubled) * (0.25 + 0.75 * job.jitter())


@dataclass
class Job(Generic[RequestT]):
    """A request and the history of its failures."""

    numbers: tuple[int, ...]
    """Numbers of the samples, branches or answers that it is for, one per prompt of the request."""
    request: RequestT
    attempts: int = 0
    """Failed attempts, reset when the failures turn out to be the server's."""
    first_failure: float | None = None
    """``monotonic()`` of the first failed attempt; None before it."""
    server_losses: int = 0
    """How often a server stopped answering while it had the job in flight."""

    @property
    def is_isolated(self) -> bool:
        """Whether the job must run alone: two servers crashed with it, and a further crash can then be attributed."""
        return self.server_losses >= ISOLATE_AFTER

    def reset_attempts(self) -> None:
        """Forget the failed attempts, because the server and not the request caused them."""
        self.attempts, self.first_failure = 0, None

    def record_server_loss(self, explain: Callable[[], str]) -> NoReturn:
        """Record that a server stopped answering while it had the job in flight; see the module's docstring.

        Args:
            explain: returns why the server stopped.

        Raises:
            Lost: retry the job. Divide: retry its prompts one by one.
            GivenUp: it has happened so often, in the end to this job alone, that the job must be the cause.
        """
        self.server_losses += 1
        if len(self.numbers) > 1 and self.server_losses >= GIVE_UP_AFTER - 1:
            raise Divide from None
        if self.server_losses >= GIVE_UP_AFTER:
            reason = f"servers went away {self.server_losses} times while they had this request"
            raise GivenUp(f"{reason}: {explain()}") from None
        raise Lost from None

    def select_prompt(self, index: int) -> Job[RequestT]:
        """Return the job for one of the prompts, with the same history."""
        return replace(self, numbers=(self.numbers[index],), request=self.request.select_prompt(index))

    def jitter(self) -> float:
        """Return a number in [0, 1) that depends on the job and the attempt, so that retries do not coincide."""
        return Stream("jitter", self.numbers[0], self.attempts).uniform()


class Lost(Exception):
    """The server stopped answering or asked to wait: return the job to the queue for any server."""


class Divide(Exception):
    """One prompt of the job may be the cause of the failures: send each prompt in its own request."""


class GivenUp(Exception):
    """All attempts failed though the server answers other requests, or too many servers crashed with the job."""
