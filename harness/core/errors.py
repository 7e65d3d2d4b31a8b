"""Errors that are shown to the user. A message says what is wrong, where, and what to do.

ArcBenchError                exit status 1
├── DataError                a dataset, run file or picture source is missing or invalid
│   ├── GridError            one grid is invalid (``kind`` is the outcome recorded for the prediction)
│   └── UnknownOutputError   tasks without test outputs cannot be scored
├── ConfigError              a recipe, manifest or option is wrong            (exit status 2)
│   ├── SpecError            a dataset spec or encoder string cannot be read  (exit status 2)
│   └── UnusableRuleError    predictions lack what a selection rule needs     (exit status 2)
├── MissingExtraError        a package of an optional extra is not installed
├── AdapterError             an adapter cannot be registered or served
├── ServerError              the model server did not start, died or refused
├── ClusterError             a Ray cluster cannot be reached, or lacks what a training needs
├── RunError                 a run folder exists already, is incomplete, or has another configuration
│   └── DeadlineError        the time of a command is over before a result exists
└── NotComputableError       a gate cannot be computed                      (exit status 4)
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_IDS = 5


class ArcBenchError(Exception):
    """Base class of the errors that commands report without a traceback."""

    exit_code = 1


class DataError(ArcBenchError):
    """A data file is missing or invalid."""


class GridError(DataError):
    """One grid is invalid; ``kind`` is ``bad_shape``, ``bad_value`` or ``unparsed``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnknownOutputError(DataError):
    """Tasks have no test outputs, so that predictions cannot be scored."""


class ConfigError(ArcBenchError):
    """A recipe, option or manifest is wrong."""

    exit_code = 2


class SpecError(ConfigError):
    """A dataset spec, prompt name or encoder string cannot be read."""


class UnusableRuleError(ConfigError):
    """Predictions lack what a selection rule needs."""


class MissingExtraError(ArcBenchError):
    """A package of an optional extra is not installed."""


class AdapterError(ArcBenchError):
    """An adapter cannot be registered, loaded or served."""


class ServerError(ArcBenchError):
    """The model server did not start, died, or refused a request."""


class ClusterError(ArcBenchError):
    """A Ray cluster cannot be reached, or no node has what a training needs."""


class RunError(ArcBenchError):
    """A run folder exists already, is incomplete, locked or not writable, or has another configuration."""


class DeadlineError(RunError):
    """The deadline of a command passed before what it was about to do."""


class NotComputableError(ArcBenchError):
    """A gate cannot be computed, so that its verdict is neither PASS nor FAIL."""

    exit_code = 4


def format_ids(
    ids: Sequence[str],
) -> str:
    """Return the number of ids and the first five, such as ``760 (a, b, c, d, e, …)``."""
    return f"{len(ids)} ({', '.join(ids[:_MAX_IDS])}{', …' if len(ids) > _MAX_IDS else ''})"


def truncate(text: str, limit: int = 60) -> str:
    """Return a text for a message, cut to ``limit`` characters with ``...`` at the end if it is longer."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def short_repr(value: object, limit: int = 60) -> str:
    """Return ``repr(value)`` for a message, truncated to ``limit`` characters."""
    return truncate(repr(value), limit)
