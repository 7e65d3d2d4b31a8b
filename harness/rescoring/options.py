"""The options of ``bench rescore``, the estimate of its cost, and the summary of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.candidates.rescores import RescoreHeader
from harness.client.http.address import check_servers
from harness.client.pool.retry import RetryPolicy
from harness.client.protocol.model_alias import ModelAlias
from harness.core.deadline import Deadline
from harness.core.errors import ConfigError, RunError
from harness.predictions.rescore_source import RescoreSource

DEFAULT_VIEWS = 8


@dataclass(frozen=True)
class RescoreOptions:
    """The options of ``bench rescore``."""

    run: Path
    """The folder of a run or pool."""
    servers: tuple[str, ...]
    model: str | None = None
    """The model that rescores all candidates; None lets each model rescore its own."""
    views: int | None = None
    """Number of fixed views; None for as many as the file of rescores has, else DEFAULT_VIEWS."""
    top: int | None = None
    """Rescore so many of the best candidates by vote; None for all."""
    api_key: str | None = field(default=None, repr=False)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    deadline: Deadline | None = None
    """After it nothing is requested, and what is missing is recorded; None for no limit."""
    alias: ModelAlias | None = None
    """A scorer that the servers know under another name."""

    def check(self) -> None:
        """Reject invalid options.

        Raises:
            ConfigError: the message names the option.
        """
        check_servers(self.servers, self.api_key)
        for name, value in (("--views", self.views), ("--top", self.top)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")

    def views_of(self, saved: RescoreHeader | None) -> int:
        """Return the number of views, given the header of an existing file."""
        return self.views or (DEFAULT_VIEWS if saved is None else saved.views)

    def scorers(self, source: RescoreSource) -> dict[str, str]:
        """Return the scorer of each model's candidates.

        Raises:
            ConfigError: candidates are of no single model (of a pool), and no scorer is named.
        """
        models = {model.name for model in source.models}
        if self.model is None and (others := [name for name in source.candidates if name not in models]):
            raise ConfigError(
                f"the candidates of {', '.join(others)} are of no single model: name a scorer with --model"
            )
        return {name: self.model or name for name in source.candidates}


@dataclass(frozen=True, slots=True)
class RescoreEstimate:
    """What a session will send. Token counts are means over prompts that are spread over the session."""

    scorers: tuple[str, ...]
    candidates: int
    """Number of (scorer, test output, grid)."""
    views: int
    missing: int
    """Log-probabilities to request."""
    prompts: int
    prompt_tokens: float
    """Per prompt."""
    answer_tokens: float
    """Per answer, with the end of the turn."""
    is_exact: bool
    """Whether all prompts were measured."""
    prompts_computed: int
    """How often a prompt is computed: once, or for every answer where a server cannot share it."""

    def text(self) -> str:
        """Return the estimate as lines for the user."""
        about = "" if self.is_exact else "about "
        prompts = f"prompts: {self.prompts} of {about}{self.prompt_tokens:.0f} tokens"
        total = f"{about}{self.prompts_computed * self.prompt_tokens:.0f} in all"
        again = "" if self.prompts_computed == self.prompts else ", as each is computed again for every answer"
        return "\n".join(
            (
                f"{self.candidates} candidates under {self.views} views by {', '.join(self.scorers)}: "
                f"{self.candidates * self.views} log-probabilities, {self.missing} of them to compute",
                f"{prompts}, {total}{again}",
                f"answer tokens: {about}{self.missing * self.answer_tokens:.0f}",
            )
        )


class NoCandidatesError(RunError):
    """No view of the run proposed a grid, so that there is nothing to rescore."""


@dataclass(frozen=True, slots=True)
class RescoreSummary:
    """The counts and times of a session."""

    path: Path
    """The file of rescores."""
    scored: int
    """Lines written in this session."""
    done: int
    """Lines of these scorers, with those of earlier sessions."""
    total: int
    failures: dict[str, int]
    """Candidates without a log-probability under a view, by kind; they count as done."""
    given_up: int
    """Answers that the servers refused or failed on; the next session asks again."""
    seconds: float
    cpu_seconds: float
    is_cut: bool = False
    """Whether the deadline passed before everything was scored."""

    @property
    def finished(self) -> bool:
        """Whether every candidate has a line for every view."""
        return self.done == self.total

    @property
    def interrupted(self) -> bool:
        """Whether something was left out that no server failed on, and not by the deadline."""
        return not self.is_cut and self.done + self.given_up < self.total
