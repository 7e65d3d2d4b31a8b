"""The options of ``--search``: their checks, and how many log-probabilities and which stop tokens enumeration needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from harness.core.errors import ConfigError
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig
from harness.runs.schemas.view_schema import SearchConfig

Search = Literal["greedy", "sample", "dfs"]
DEFAULT_MIN_PROB = 0.1
LEAST_MIN_PROB = 1e-6
"""1/p log-probabilities are requested for each token, and no vocabulary has a million tokens."""
_HARMLESS_FIELDS: Mapping[str, tuple[JsonValue, ...] | None] = {
    "priority": None,
    "stop_token_ids": None,
    "skip_special_tokens": (True,),
    "top_k": (-1, 0),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
}
"""Fields of ``extra_body`` that leave the probabilities of answers as they are, with the values that do; None: any."""


def check_search(
    search: Search | None, min_prob: float | None, max_answers: int | None, keep_greedy: bool, temperature: float
) -> None:
    """Reject options of ``--search`` that contradict each other.

    Raises:
        ConfigError: the message names the option and says what to do.
    """
    if search == "greedy" and temperature > 0:
        raise ConfigError(f"--search greedy is temperature 0, not {temperature:g}; leave one of the options out")
    if search == "sample" and temperature == 0:
        raise ConfigError("--search sample draws answers at a temperature above 0; set --temperature")
    if search != "dfs":
        for name, is_set in (
            ("--min-prob", min_prob is not None),
            ("--max-answers", max_answers is not None),
            ("--keep-greedy", keep_greedy),
        ):
            if is_set:
                raise ConfigError(f"{name} belongs to --search dfs; add it, or leave {name} out")
    if min_prob is not None and not LEAST_MIN_PROB <= min_prob <= 1:
        raise ConfigError(f"--min-prob must be at least {LEAST_MIN_PROB:g} and at most 1, not {min_prob:g}")
    if max_answers is not None and max_answers < 1:
        raise ConfigError(f"--max-answers must be at least 1, not {max_answers}")


def check_enumeration(
    *,
    temperature: float,
    top_p: float,
    min_p: float,
    samples_per_view: int,
    stop: str | None,
    api: str,
    extra_body: Mapping[str, JsonValue],
) -> None:
    """Reject options that ``--search dfs`` cannot have, because it enumerates the answers of temperature 1.

    Raises:
        ConfigError: the message names the option.
    """
    refused = (
        (temperature > 0, "--temperature", "it enumerates the answers of temperature 1 and draws none"),
        (top_p != 1, "--top-p", "it enumerates the model's unchanged distribution"),
        (min_p != 0, "--min-p", "it enumerates the model's unchanged distribution (its threshold is --min-prob)"),
        (samples_per_view > 1, "--samples-per-view", "a view has all of its answers at once"),
        (stop is not None, "--stop", "all views are enumerated"),
        (api == "chat", "--api chat", "it continues answers by their token ids"),
    )
    for is_set, name, why in refused:
        if is_set:
            raise ConfigError(f"--search dfs cannot have {name}: {why}")
    for name, value in extra_body.items():
        values = _HARMLESS_FIELDS.get(name, ())
        if values is not None and value not in values:
            raise ConfigError(
                f"--search dfs cannot have {name} in --extra-body: it may change the probabilities of answers"
            )


def search_config(
    search: Search | None, min_prob: float | None, max_answers: int | None, keep_greedy: bool
) -> SearchConfig | None:
    """Return the configuration of the enumeration, None without it; stop tokens are not yet counted in ``logprobs``."""
    if search != "dfs":
        return None
    chosen = DEFAULT_MIN_PROB if min_prob is None else min_prob
    return SearchConfig(
        min_prob=chosen, max_answers=max_answers, logprobs=_likely_tokens(chosen), keep_greedy=keep_greedy or None
    )


def with_stop_logprobs(config: RunConfig, eos_ids: frozenset[int]) -> RunConfig:
    """Return the configuration with log-probabilities for the stop tokens too, which need not be likely.

    Raises:
        ConfigError: no token is known to end the answers of a model.
    """
    if config.search is None:
        return config
    for model in config.models:
        if not stop_ids(config, model, eos_ids):
            raise ConfigError(
                f"--search dfs: nothing says which token ends an answer of {model.name}; give it with --extra-body "
                "'{\"stop_token_ids\": [ID]}'"
            )
    most = max(len(stop_ids(config, model, eos_ids)) for model in config.models)
    logprobs = _likely_tokens(config.search.min_prob) + most
    return config.model_copy(update={"search": config.search.model_copy(update={"logprobs": logprobs})})


def stop_ids(config: RunConfig, model: ModelConfig, eos_ids: frozenset[int]) -> frozenset[int]:
    """Return the tokens at which a server ends an answer of a model.

    Args:
        eos_ids: those in the files of its base.
    """
    requested = config.extra_body.get("stop_token_ids")
    others = requested if isinstance(requested, list) else []
    return eos_ids | frozenset(model.stop_token_ids or ()) | frozenset(id_ for id_ in others if type(id_) is int)


def _likely_tokens(min_prob: float) -> int:
    """Return how many tokens at one position can each have at least this probability."""
    return max(1, math.floor(1 / min_prob + 1e-9))
