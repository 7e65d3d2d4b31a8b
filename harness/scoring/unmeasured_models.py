"""Models of which a run measures nothing: every answer is refused, truncated, too long or given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from harness.core.errors import RunError
from harness.voting.live_tally import ModelTally

FIRST = 16
OUTPUTS = 4
"""So many first answers, of so many test outputs at least, end a run where none of them was an answer."""
_NOTHING = ("refused", "truncated", "too_long", "error")


class NothingMeasuredError(RunError):
    """A run is complete, and has no answer of one of its models."""


class UnmeasuredModelCheck:
    """Ends a run that measures nothing of one of its models.

    Args:
        tallies: with what earlier sessions stored. A model of which these measured nothing either is asked on, as
            resuming such a run means to insist.
        limits: the bound on an answer's tokens, by model.
    """

    def __init__(self, tallies: Iterable[ModelTally], limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._reasons: dict[str, str] = {}
        self._insisted = {tally.model for tally in tallies if _is_hopeless(tally)}
        self.without: Collection[str] = ()
        """Parameters that a server does not take."""

    def note(self, model: str, reason: str) -> None:
        """Keep why a request of a model failed."""
        self._reasons[model] = reason

    def check(self, tally: ModelTally) -> None:
        """Raise once a model's first answers show that nothing is measured.

        Raises:
            RunError: why, and what to do.
        """
        if tally.model not in self._insisted and tally.done < tally.total and _is_hopeless(tally):
            raise RunError(
                f"stopped: {self._why(tally)}. With --resume the run goes on all the same, with --retry-errors "
                "after it asks again for what was refused or given up"
            )

    def check_all(self, tallies: Iterable[ModelTally]) -> None:
        """Raise where a finished run has measured nothing of a model.

        Raises:
            NothingMeasured: which model, why, and what to do.
        """
        if empty := [self._why(tally) for tally in tallies if tally.done and _is_nothing(tally)]:
            raise NothingMeasuredError(
                f"{'; '.join(empty)}. So nothing was measured, and no table is shown; all predictions are saved "
                "(bench score counts them as failures, --resume --retry-errors asks again for what was refused or "
                "given up)"
            )

    def _why(self, tally: ModelTally) -> str:
        counts = ", ".join(f"{tally.failures[kind]} {kind}" for kind in _NOTHING if tally.failures[kind])
        text = f"{tally.model} gave no answer in {tally.done} predictions ({counts})"
        if reason := self._reasons.get(tally.model):
            text += f": {reason}"
        if tally.failures["truncated"]:
            text += (
                f"; answers are cut off at {self._limits[tally.model]} tokens, so that the model needs more "
                "(--max-tokens), thinks first (--chat-template-kwargs '{\"enable_thinking\": false}'), or does not "
                "stop at the end of its turn"
            )
            text += (
                " (a server does not take stop_token_ids)"
                if "stop_token_ids" in self.without
                else " (give the token that ends it with --extra-body '{\"stop_token_ids\": [ID]}')"
            )
        return text


def _is_hopeless(tally: ModelTally) -> bool:
    """Whether the first answers show that there will be none; prompts that are too long say nothing of others."""
    asked = tally.done - tally.failures["too_long"]
    return asked >= FIRST and tally.begun >= OUTPUTS and _is_nothing(tally)


def _is_nothing(tally: ModelTally) -> bool:
    return tally.done == sum(tally.failures[kind] for kind in _NOTHING)
