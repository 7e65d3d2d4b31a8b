"""Types of command-line values, and the options that several commands share."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from harness.core.deadline import Deadline

_KEY_VARIABLE = "ARC_BENCH_API_KEY"
F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Seconds(click.ParamType[float]):
    """A duration in seconds, written as ``90``, ``90s``, ``10m`` or ``1h``."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if match is None or not 0 < float(match[1]) < math.inf:
            self.fail(f"{value!r} is not a duration such as 90s, 10m or 1h", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class JsonObject(click.ParamType[dict[str, object]]):
    """A JSON object, parsed."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, object]:
        if isinstance(value, dict):
            return value
        try:
            parsed = json.loads(str(value), parse_constant=_refuse_constant, parse_float=_finite)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f"{value!r} is not a JSON object", param, ctx)
        return parsed


def _refuse_constant(name: str) -> object:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    """Return a number, unless it is too large for one."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is larger than every number of JSON that can be sent")
    return number


servers_option = click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    help="URL of a server; repeat it, and the servers share the work.",
)
"""The option ``--server``, whose value is the parameter ``servers``."""


def _key_in_file(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the key, or that in the file which the variable with _FILE names, as ``bench serve`` reads it."""
    is_option = ctx.get_parameter_source(param.name or "") == click.core.ParameterSource.COMMANDLINE
    if not is_option and os.environ.get(f"{_KEY_VARIABLE}_FILE"):
        from serve.keys import USER_KEY, key_from_environment

        return key_from_environment(USER_KEY)
    return value


api_key_option = click.option(
    "--api-key",
    envvar=_KEY_VARIABLE,
    callback=_key_in_file,
    help=f"Better given in the environment variable {_KEY_VARIABLE}, or in a file that {_KEY_VARIABLE}_FILE names.",
)
"""The option ``--api-key``, whose value is the parameter ``api_key``."""
_POLICY = (
    click.option(
        "--max-in-flight", type=click.IntRange(1, 8192), default=256, show_default=True, help="Predictions per server."
    ),
    click.option("--timeout", type=Seconds(), default="10m", show_default=True, help="For one request."),
    click.option(
        "--retries", type=click.IntRange(0), default=5, show_default=True, help="Further attempts for a request."
    ),
    click.option(
        "--wait", type=Seconds(), default="10m", show_default=True, help="How long to wait for a lost server."
    ),
)


def deadline_option(effect: str, name: str = "--deadline", also: str = "") -> Callable[[F], F]:
    """Return an option whose value is a ``Deadline`` that counts from the start of the command.

    Args:
        effect: what the command no longer does then, such as ``Ask nothing``.
        also: a further sentence of the help text.
    """

    def begin(ctx: click.Context, param: click.Parameter, value: float | None) -> Deadline | None:
        return None if value is None else Deadline(value)

    text = f"{effect} after this time from the start of the command, e.g. 12h. {also}".strip()
    return click.option(name, type=Seconds(), callback=begin, help=text)


def policy_options(command: F) -> F:
    """Add the options that make up a ``RetryPolicy`` to a command."""
    for option in reversed(_POLICY):
        command = option(command)
    return command


def predictions_options(command: F) -> F:
    """Add the options that say what saved predictions are: ``dataset`` and ``form``."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(["run", "pool", "lines", "table", "arc24", "attempts", "kaggle", "arcprize"]),
        help="Default: detected.",
    )(command)
    return click.option("--dataset", help="The dataset of the predictions, e.g. arc1/evaluation; a run knows its own.")(
        command
    )


def dataset_of_files_option(command: F) -> F:
    """Add ``--dataset`` of a command that compares runs with files."""
    return click.option("--dataset", help="The dataset of files of predictions. Default: that of the runs.")(command)


def resume_command(*without: str) -> str:
    """Return the command that resumes this run, with a placeholder for the API key.

    Args:
        without: options with a value, which are left out.
    """
    given = sys.argv[1:]
    words = [
        word
        for previous, word in zip(["", *given], given, strict=False)
        if not any(option in (word, previous) or word.startswith(f"{option}=") for option in without)
    ]
    for index, word in enumerate(words):
        if word == "--api-key" and index + 1 < len(words):
            words[index + 1] = "KEY"
        elif word.startswith("--api-key="):
            words[index] = "--api-key=KEY"
    return shlex.join(["bench", *words, *([] if "--resume" in words else ["--resume"])])
