"""Cells of a sweep: each is a mixture with values of recipe keys, and a row of the table.

The keys and their values come from ``axes`` (every combination) or ``cells`` (listed combinations) of a sweep file.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from trainers.recipe.parts import DatasetRecipe
from trainers.recipe.schema import CHANGEABLE_KEYS, MICRO_BATCH_KEYS

WEIGHT_KEY = "original_weight"
NAME_KEY = "name"
"""Key of a listed cell that names it."""
LONGEST_NAME = 41
ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}")
_REMEDIES = {
    "seed": "give seeds, beside axes",
    "output_dir": "the sweep sets it",
    "datasets": "give mixtures, each with a name",
    "model": "one server serves all adapters; write a sweep for each base model",
    "encoder": "all adapters are benched with one encoder; write a sweep for each",
}
"""Recipe keys that may not vary within a sweep, and what to do instead."""

Settings = Mapping[str, JsonValue]
"""Values by dotted recipe key, such as ``lora.rank``."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Datasets with weights, under the name and label of their row."""

    name: str
    label: str
    datasets: tuple[DatasetRecipe, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table: what the adapters of all its seeds are trained on, and with which settings."""

    name: str
    """Name of its adapters, without the seed."""
    label: str
    """Its label in the table."""
    datasets: tuple[DatasetRecipe, ...] | None
    """None for the datasets of the sweep's recipe."""
    settings: Settings


def expand_cells(
    mixtures: Sequence[Mixture],
    axes: Mapping[str, Sequence[JsonValue]],
    listed: Sequence[Settings],
    mixture_of_weight: Callable[[float], Mixture],
) -> list[Cell]:
    """Return the rows of the table: every mixture with every combination of settings, in the order of the file.

    Args:
        mixtures: empty if ``original_weight`` is one of the keys, or if the recipe has the datasets.
        axes: values by recipe key; empty for one combination without settings, or if combinations are listed.
        listed: combinations, each with an optional ``name``.
        mixture_of_weight: returns the mixture of a value of ``original_weight``.

    Raises:
        ValueError: a key may not vary, a value occurs twice or is no share, or a name is invalid.
    """
    named: list[tuple[str | None, Settings]] = [(None, settings) for settings in axis_combinations(axes)]
    if listed:
        named = [_split_name(f"cells.{index}", cell) for index, cell in enumerate(listed)]
    cells = []
    chosen: Sequence[Mixture | None] = mixtures or [None]
    for mixture in chosen:
        for name, values in named:
            cell = _cell(mixture, values, mixture_of_weight, with_keys=bool(listed))
            if name is not None:
                prefix = ("", "") if mixture is None else (f"{mixture.name}-", f"{mixture.label}, ")
                cell = replace(cell, name=_short(prefix[0] + name), label=prefix[1] + name)
            cells.append(cell)
    return cells


def _cell(
    mixture: Mixture | None, values: Settings, mixture_of_weight: Callable[[float], Mixture], with_keys: bool
) -> Cell:
    """Return the cell of a mixture and a combination of values, named and labelled after these."""
    labels = [] if mixture is None else [mixture.label]
    settings = {}
    for key, value in values.items():
        if key == WEIGHT_KEY:
            mixture = mixture_of_weight(checked_weight(value))
            labels.append(mixture.label)
        else:
            settings[key] = value
            labels.append(f"{key} {value_text(value)}" if with_keys else value_text(value))
    name = cell_name(None if mixture is None else mixture.name, settings)
    return Cell(name, ", ".join(labels), None if mixture is None else mixture.datasets, settings)


def axis_combinations(axes: Mapping[str, Sequence[JsonValue]]) -> list[Settings]:
    """Return every combination of the values of the axes; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def value_text(value: JsonValue) -> str:
    """Return a value as a text; numbers that YAML 1.1 reads as texts (``1e-4``) equal other spellings of them."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def cell_name(mixture: str | None, settings: Settings) -> str:
    """Return the name of a cell: the mixture, then each key with its value, such as ``w50-rank8-learning_rate0.0001``.

    It depends on the mixture and the settings only, so that cells keep their names if values are added to an axis. Of
    a dotted key only the last part is used, unless two keys share it. A name over 41 characters ends in a digest.
    """
    if not settings and mixture is not None:
        return mixture
    last_parts = [key.rpartition(".")[2] for key in settings]
    parts = [] if mixture is None else [mixture]
    for (key, value), last in zip(settings.items(), last_parts, strict=True):
        text = value_text(value)
        parts.append((last if last_parts.count(last) == 1 else key) + ("" if text[:1].isdigit() else "_") + text)
    return _short("-".join(parts))


def _short(text: str) -> str:
    """Return a text as a name: with other characters replaced, cut to 41, and a digest if that changed it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    if len(name) <= LONGEST_NAME and name == text:
        return name
    return f"{name[: LONGEST_NAME - 7]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def check_axes(axes: Mapping[str, Sequence[JsonValue]]) -> None:
    """Check that no axis has a value twice.

    Raises:
        ValueError: one has.
    """
    for key, values in axes.items():
        texts = [value_text(value) for value in values]
        if repeated := next((text for text in texts if texts.count(text) > 1), None):
            raise ValueError(f"axes.{key}: {repeated} occurs twice; leave one out")


def check_keys(where: str, keys: Sequence[str], mixtures: bool) -> None:
    """Check that the keys are recipe keys that may vary within a sweep.

    Args:
        where: ``axes`` or ``cells.2``, for messages.
        mixtures: whether the sweep sets the datasets, by mixtures or weights.

    Raises:
        ValueError: a key may not vary; the message says what to do instead.
    """
    for key in keys:
        first = key.partition(".")[0]
        remedy = _REMEDIES.get(key)
        if first == "datasets" and key != first and mixtures:
            remedy = "the mixture sets the datasets; vary original_weight or mixtures"
        elif first in CHANGEABLE_KEYS | MICRO_BATCH_KEYS | {"ttt"} and remedy is None:
            remedy = "it does not change what is trained; set it in recipe"
        if remedy is not None:
            raise ValueError(f"{where}.{key}: cannot vary within a sweep: {remedy}")


def checked_weight(value: JsonValue) -> float:
    """Return a value of ``original_weight`` as a number.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    try:
        weight = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        weight = -1.0
    if isinstance(value, bool) or not 0 <= weight <= 1:
        raise ValueError(f"{WEIGHT_KEY}: {value!r} is not a share from 0 to 1")
    return weight


def _split_name(where: str, cell: Settings) -> tuple[str | None, Settings]:
    """Return the name of a listed cell, None if it has none, and its settings.

    Raises:
        ValueError: the name cannot be that of an adapter, or nothing is set.
    """
    settings = {key: value for key, value in cell.items() if key != NAME_KEY}
    name = cell.get(NAME_KEY)
    if name is not None and not (isinstance(name, str) and ADAPTER_NAME.fullmatch(name)):
        raise ValueError(f"{where}.name: {name!r} must be up to 41 letters, digits, and . _ - after the first")
    if not settings and name is None:
        raise ValueError(f"{where}: sets no key; give it a name if it is the recipe as it stands")
    return (None if name is None else str(name)), settings
