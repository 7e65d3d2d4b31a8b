"""The one tree of errors that a user may meet; each message says what, where and what to do.

ArcBenchError                exit status 1
├── DataError                a dataset, run file or picture source is not what it must be
│   ├── GridError            one grid is not a grid (carries the METRICS name of the failure)
│   └── UnknownOutputError   tasks have no outputs to score against
├── ConfigError              a recipe, manifest or option is wrong            (exit status 2)
│   └── SpecError            a dataset spec or encoder string cannot be read  (exit status 2)
├── MissingExtraError        a package of an optional extra is not installed
├── AdapterError             an adapter cannot be registered or served
├── ServerError              the model server did not start, died or refused
├── RunError                 a run folder is in the way, incomplete or differs
└── NotComputableError       a gate says neither PASS nor FAIL              (exit status 4)
"""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5
"""How many ids a message names."""


class ArcBenchError(Exception):
    """Base of every error that is reported to the user without a traceback."""

    exit_code = 1


class DataError(ArcBenchError):
    """A data file is not what it must be."""


class GridError(DataError):
    """One grid is not valid; ``kind`` is its failure name (``bad_shape``, ``bad_value``, ``unparsed``)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnknownOutputError(DataError):
    """Tasks have no outputs to score against."""


class ConfigError(ArcBenchError):
    """A recipe, option or manifest is wrong."""

    exit_code = 2


class SpecError(ConfigError):
    """A dataset spec, prompt name or encoder string cannot be read."""


class MissingExtraError(ArcBenchError):
    """A package from an optional extra is missing."""


class AdapterError(ArcBenchError):
    """An adapter cannot be registered, loaded or served."""


class ServerError(ArcBenchError):
    """The model server did not start, died, or refused a request."""


class RunError(ArcBenchError):
    """A run folder is in the way, incomplete, or was made with another configuration."""


class NotComputableError(ArcBenchError):
    """A gate cannot be computed, which is neither PASS nor FAIL."""

    exit_code = 4


def format_ids(ids: Sequence[str], shown: int = SHOWN) -> str:
    """Return a count and the first few ids for a message: ``760 (a, b, c, d, e, …)``."""
    return f"{len(ids)} ({', '.join(ids[:shown])}{', …' if len(ids) > shown else ''})"


def truncate(text: str, limit: int = 60) -> str:
    """Return a text for a message, cut to ``limit`` characters with ``...`` at the end if it is longer."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def short_repr(value: object, limit: int = 60) -> str:
    """Return ``repr(value)`` for a message, truncated to ``limit`` characters."""
    return truncate(repr(value), limit)
