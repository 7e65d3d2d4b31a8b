"""Let a training go on when an experiment tracker fails in the middle of it. Imports transformers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

logger = logging.getLogger(__name__)
_STARTING = ("on_init_end", "on_train_begin")
"""Events in which a tracker starts; an error there ends the training before its first step, so that nothing is lost."""


def guard_trackers(callbacks: Sequence[TrainerCallback], trackers: Sequence[str]) -> None:
    """Make the trackers' callbacks catch their errors after the start: one warning, then the tracker gets nothing more.

    Args:
        callbacks: those of a trainer, of which the trackers' are changed.
        trackers: the names in ``report_to``.
    """
    for tracker in trackers:
        (kind,) = get_reporting_integration_callbacks([tracker])
        for callback in callbacks:
            if isinstance(callback, kind):
                _guard(callback, tracker)


def _guard(callback: TrainerCallback, tracker: str) -> None:
    failed = False

    def guarded(event: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(event)
        def call(*values: object, **named: object) -> object:
            nonlocal failed
            if failed:
                return None
            try:
                return event(*values, **named)
            except Exception as error:  # noqa: BLE001  # trackers raise what their clients and networks do
                failed = True
                name = type(error).__name__
                logger.warning("%s failed and gets no more of this training: %s: %s", tracker, name, error)
                return None

        return call

    events: dict[str, Any] = {name: getattr(callback, name) for name in dir(callback) if name.startswith("on_")}
    for name, event in events.items():
        if name not in _STARTING:
            setattr(callback, name, guarded(event))
