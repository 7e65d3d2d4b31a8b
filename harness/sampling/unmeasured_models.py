"""Detect models for which a run measures nothing: every prediction is refused, truncated, too long or an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from harness.core.errors import RunError
from harness.voting.live_tally import ModelTally

MIN_PREDICTIONS = 16
MIN_OUTPUTS = 4
"""A run ends early if its first ``MIN_PREDICTIONS``, for at least ``MIN_OUTPUTS`` test outputs, measure nothing."""
_UNMEASURED = ("refused", "truncated", "too_long", "error")


class NothingMeasuredError(RunError):
    """A complete run has no usable prediction of one of its models."""


class UnmeasuredModelCheck:
    """Ends a run in which one of its models gives no usable answers.

    Args:
        tallies: what earlier sessions of the run stored. A model for which they measured nothing is not checked
            again, because the user resumed the run in spite of the error.
        limits: the maximum number of tokens of an answer, by model.
    """

    def __init__(self, tallies: Iterable[ModelTally], limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._reasons: dict[str, str] = {}
        self._insisted = {tally.model for tally in tallies if _is_hopeless(tally)}
        self.refused_parameters: Collection[str] = ()
        """Request parameters that a server refused."""

    def note_failure(self, model: str, reason: str) -> None:
        """Remember why a request to a model failed, for the message."""
        self._reasons[model] = reason

    def check(self, tally: ModelTally) -> None:
        """Check a model of a run that is not complete.

        Raises:
            RunError: its first predictions measure nothing; the message says why, and what to do.
        """
        if tally.model not in self._insisted and tally.done < tally.total and _is_hopeless(tally):
            raise RunError(
                f"stopped: {self._explanation(tally)}. With --resume the run continues anyway, with --retry-errors "
                "after repeating the requests that were refused or given up"
            )

    def check_all(self, tallies: Iterable[ModelTally]) -> None:
        """Check all models of a complete run.

        Raises:
            NothingMeasuredError: no prediction of a model is usable; the message says why, and what to do.
        """
        if unmeasured := [self._explanation(tally) for tally in tallies if tally.done and _is_unmeasured(tally)]:
            raise NothingMeasuredError(
                f"{'; '.join(unmeasured)}. So nothing was measured, and no table is shown; all predictions are saved "
                "(bench score counts them as failures, --resume --retry-errors repeats the requests that were refused "
                "or given up)"
            )

    def _explanation(self, tally: ModelTally) -> str:
        """Return in words how the predictions of a model failed, and which options may help."""
        counts = ", ".join(f"{tally.failures[kind]} {kind}" for kind in _UNMEASURED if tally.failures[kind])
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
                if "stop_token_ids" in self.refused_parameters
                else " (give the token that ends it with --extra-body '{\"stop_token_ids\": [ID]}')"
            )
        return text


def _is_hopeless(tally: ModelTally) -> bool:
    """Return whether the predictions so far suggest that none will be usable; too long prompts do not count."""
    sent = tally.done - tally.failures["too_long"]
    return sent >= MIN_PREDICTIONS and tally.begun >= MIN_OUTPUTS and _is_unmeasured(tally)


def _is_unmeasured(tally: ModelTally) -> bool:
    """Return whether no prediction so far is usable."""
    return tally.done == sum(tally.failures[kind] for kind in _UNMEASURED)
