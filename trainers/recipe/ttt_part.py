"""Define the part ``ttt:`` of a recipe: how an adapter is trained for each task from the task's own train pairs."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainers.recipe.parts import StrictModel

PresetName = Literal["marc", "architects", "nvarc"]
DEFAULT_SAMPLES = 256
"""Samples per task of a recipe that gives neither ``samples`` nor ``steps``."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smh])+")


def parse_duration(value: object) -> object:
    """Turn a duration such as ``90s``, ``20m`` or ``1h30m`` into seconds; return any other value unchanged."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return value
    parts = re.findall(r"([0-9.]+)([smh])", value)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int) else value


class TttAugment(StrictModel):
    """Which augmentations a sample of test-time training gets; each is drawn anew for every sample."""

    symmetries: bool = True
    """One of the eight rotations and reflections."""
    colours: bool = True
    """A permutation of the colours."""
    order: bool = True
    """An order of the train pairs that are shown."""


_PairCount = Literal[1, 2]
_Pairs = Annotated[tuple[_PairCount, ...], Field(min_length=1, max_length=2)]
_Seconds = Annotated[float, Field(gt=0)]
_DurationText = Annotated[str, Field(pattern=f"^{_DURATION.pattern}$")]
_Duration = Annotated[_Seconds, BeforeValidator(parse_duration, json_schema_input_type=_Seconds | _DurationText)]


class TttRecipe(StrictModel):
    """Test-time training: one adapter per task, trained on the task's own train pairs. All other keys are the recipe's.

    A sample shows some train pairs and asks for the output of another one (leave-one-out, leave-two-out).
    """

    preset: PresetName | None = None
    """Values of a published recipe, for every key that the recipe does not set (``trainers.recipe.ttt_presets``)."""
    leave_out: Annotated[_Pairs, BeforeValidator(_as_list, json_schema_input_type=_PairCount | _Pairs)] = (1,)
    """How many train pairs a sample leaves out: one of them is asked for, a second is not shown. ``[1, 2]`` draws one
    of both for each sample. A task with too few pairs to leave two out leaves out one, and its manifest says so."""
    samples: Annotated[int, Field(gt=0)] | None = None
    """Distinct samples per task; 256 if neither this nor ``steps`` is given."""
    epochs: Annotated[int, Field(gt=0)] = 1
    """How often each of the ``samples`` is trained on, in a new order each time."""
    steps: Annotated[int, Field(gt=0)] | None = None
    """Training steps per task, each on ``batch_size`` new samples; instead of ``samples``."""
    augment: TttAugment = Field(default_factory=TttAugment)
    """Augmentations of every sample."""
    task_deadline: _Duration | None = None
    """Time for one task, in seconds or as ``20m``: training ends with the step that exceeds it, and that adapter is
    used."""

    @model_validator(mode="after")
    def _one_length(self) -> TttRecipe:
        if self.samples is not None and self.steps is not None:
            raise ValueError("samples and steps exclude each other; give one of them")
        if self.steps is not None and self.epochs != 1:
            raise ValueError("epochs repeat the samples of a task; give samples, not steps")
        if len(set(self.leave_out)) < len(self.leave_out):
            raise ValueError("leave_out: a number occurs twice")
        return self

    def n_samples(self, batch_size: int) -> int:
        """Return the number of distinct samples per task."""
        return self.steps * batch_size if self.steps is not None else self.samples or DEFAULT_SAMPLES

    def n_steps(self, batch_size: int) -> int:
        """Return the number of training steps per task; the last one may have fewer samples."""
        return self.steps if self.steps is not None else -(-self.n_samples(batch_size) * self.epochs // batch_size)

    def usable_leave_out(self, n_train: int) -> list[int]:
        """Return which of ``leave_out`` are possible with ``n_train`` pairs, so that a sample shows at least one.

        Where none is possible, one pair is left out; empty for a single train pair, which leaves nothing to show.
        """
        possible = [left for left in self.leave_out if left < n_train]
        return list(possible) if possible else [1] if n_train > 1 else []
