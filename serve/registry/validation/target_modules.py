"""Which weights of an adapter PEFT applies, by adapter_config.json; vLLM applies all weights in the file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError
from serve.registry.base_model import BaseModel

_SECONDS = 20.0
_LONGEST = 200
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_REPEAT = re.compile(r"[*+{]")
_ANY_LAYERS = r".*?\.[^.]*\.(\d+)\."
_MATCH = (
    "import json, re, sys; d = json.load(sys.stdin); json.dump([bool(re.fullmatch(d[0], m)) for m in d[1]], sys.stdout)"
)


def ignored_modules(config: dict[str, Any], modules: Sequence[str]) -> list[str]:
    """Return the modules that have weights but that PEFT ignores (``check_target_module_exists`` in PEFT 0.21).

    Args:
        config: adapter_config.json.
        modules: names as in the weights file, without ``base_model.model.`` and ``.lora_A.weight``.

    Raises:
        AdapterError: a field has an unexpected type, or a pattern takes too long.
    """
    targeted = _targeted(config, modules)
    excluded = set(_selected(config.get("exclude_modules"), modules, "exclude_modules"))
    return [module for module in modules if module not in targeted or module in excluded]


def check_targets(folder: Path, config: dict[str, Any], modules: list[str], base: BaseModel | None) -> list[str]:
    """Refuse weights that PEFT would ignore and vLLM would apply; return a warning if targeted modules have no weights.

    Args:
        modules: as in ``ignored_modules``.
        base: the base whose modules are searched for targets without weights; None skips that.

    Raises:
        AdapterError: PEFT would ignore some weights; the message names the modules.
    """
    if ignored := ignored_modules(config, modules):
        raise AdapterError(
            f"{folder}: adapter_config.json leaves out {len(ignored)} of the {len(modules)} modules that have weights "
            f"({list_some(ignored)}): vLLM would apply them and PEFT would not. Correct target_modules, "
            "exclude_modules or layers_to_transform, or remove those weights"
        )
    if base is None or not base.tensors or not (bare := targets_without_weights(config, modules, base)):
        return []
    return [
        f"{len(bare)} modules of adapter_config.json have no weights ({list_some(bare)}): was the adapter saved whole?"
    ]


def targets_without_weights(config: dict[str, Any], modules: Sequence[str], base: BaseModel) -> list[str]:
    """Return the base's modules that the configuration targets but for which the adapter has no weights.

    Experts are excluded: PEFT treats them as one tensor where the model's files have one per expert.

    Raises:
        AdapterError: as ``ignored_modules``.
    """
    stems = {module.partition("layers.")[0] for module in modules}
    present = set(modules)
    candidates = []
    for name, tensor in base.tensors.items():
        module, _, kind = name.rpartition(".")
        layer = re.search(r"(?:^|\.)layers\.(\d+)\.", module)
        if kind != "weight" or len(tensor.shape) != 2 or layer is None or ".experts." in module:
            continue
        inside = base.layers is None or int(layer[1]) < base.layers
        if inside and module not in present and module.partition("layers.")[0] in stems:
            candidates.append(module)
    ignored = set(ignored_modules(config, candidates))
    return [module for module in candidates if module not in ignored]


def list_some(names: Sequence[str]) -> str:
    """Return up to five names as text, and how many more there are."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _targeted(config: dict[str, Any], modules: Sequence[str]) -> set[str]:
    """Return the modules that ``target_modules`` and ``layers_to_transform`` select."""
    targets = config.get("target_modules")
    if targets == "all-linear":
        return set(modules)
    selected = _selected(targets, modules, "target_modules")
    layers = config.get("layers_to_transform")
    if not isinstance(targets, list) or layers is None or layers == []:
        return set(selected)
    chosen = layers if isinstance(layers, list) else [layers]
    # A module that is named in full is applied in whatever layer it is.
    return {m for m in selected if m in targets or _layer(config, m) in chosen}


def _layer(config: dict[str, Any], module: str) -> int | None:
    """Return a module's layer as PEFT does: the first number in its name, or the one after ``layers_pattern``."""
    patterns = config.get("layers_pattern")
    selected = [patterns] if isinstance(patterns, str) and patterns else patterns or []
    if not isinstance(selected, list):
        raise AdapterError(f"layers_pattern is {patterns!r}, expected a name or a list of names")
    for pattern in selected:
        _check_layers_pattern(pattern, "layers_pattern")
    for expression in [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in selected] or [_ANY_LAYERS]:
        if match := re.match(expression, module):
            return int(match[1])
    return None


def _selected(value: object, modules: Sequence[str], key: str) -> list[str]:
    """Return the modules that ``target_modules`` or ``exclude_modules`` selects (name endings or one pattern)."""
    if not value:
        return []
    if isinstance(value, str):
        return _fully_matching(value, modules, key)
    if isinstance(value, list) and all(isinstance(ending, str) for ending in value):
        exact, endings = set(value), tuple(f".{ending}" for ending in value)
        return [m for m in modules if m in exact or m.endswith(endings)]
    raise AdapterError(f"{key} is {value!r}, expected a list of module names or a pattern")


def _fully_matching(pattern: str, modules: Sequence[str], key: str) -> list[str]:
    """Return the modules that a pattern matches from end to end.

    A pattern that ``check_pattern`` refuses may take forever; it is matched in a child process with a time limit.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise AdapterError(f"{key} {pattern[:200]!r} is no pattern: {error}") from error
    try:
        check_pattern(pattern)
    except AdapterError:
        return _matching_in_child(pattern, modules, key)
    return [m for m in modules if re.fullmatch(pattern, m)]


def _matching_in_child(pattern: str, modules: Sequence[str], key: str) -> list[str]:
    """Return the names that match a pattern, found in a child process that is stopped after ``_SECONDS``."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCH],
            input=json.dumps([pattern, list(modules)]).encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise AdapterError(
            f"{key} is a pattern that takes over {_SECONDS:.0f} s to match; write the names as a list"
        ) from None
    return [m for m, found in zip(modules, json.loads(done.stdout), strict=True) if found]


def _check_layers_pattern(pattern: object, key: str) -> None:
    """Check one entry of ``layers_pattern``."""
    if not isinstance(pattern, str):
        raise AdapterError(f"{key} is {pattern!r}, expected names or patterns")
    try:
        check_pattern(pattern)
    except AdapterError as error:
        raise AdapterError(f"{key}: the pattern {error}") from None


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that is no regular expression, or that may take forever on a module's name.

    Matching takes length ** repeats steps, and exponentially many if a group is repeated. PEFT writes plain names.

    Raises:
        AdapterError: why it is refused.
    """
    if len(pattern) > _LONGEST or len(_REPEAT.findall(pattern)) > 2 or _REPEATED_GROUP.search(pattern):
        raise AdapterError(
            f"{pattern[:80]!r} is too involved: at most {_LONGEST} characters and two repeats, none of a group"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise AdapterError(f"{pattern!r} is no pattern: {error}") from error


def pattern_applies(pattern: str, module: str) -> bool:
    """Return whether PEFT applies a pattern of ``rank_pattern`` to a module: it matches the end from a dot on."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None
