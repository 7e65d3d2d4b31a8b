"""Check that a server answers with the adapter that was trained: compare log-probabilities over HTTP with PEFT's.

Both compute the log-probability of every answer token of some training samples; PEFT computes in float32.

A **float32** server differs only by the order of sums: by at most 2e-5 nats over 1,960 tokens of five adapters of the
tiny base on a CPU. The bound is 1e-3.

A **16-bit** server is judged by log-odds; see ``trainers.commands.log_odds``.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.client.http.address import open_without_proxy
from harness.core.errors import AdapterError, ServerError
from harness.prompts.training_sample import TrainingSample
from trainers.commands.log_odds import LEAST_ROUNDING, LogProbs, OddsDifferences, compare_odds, token_pairs
from trainers.model.base_model import check_weights, find_base
from trainers.model.inputs import open_inputs, open_recipe_mixture, require_datasets
from trainers.recipe.schema import make_recipe
from trainers.store.manifest import read_manifest, refuse_pickle

TOLERANCE = 1e-3
"""Largest difference of a token's log-probability (nats) that float32 arithmetic explains."""
CONTROL = 0.1
"""Base and adapter must differ by more than this (nats) at some token, else the check could not fail."""
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Parity:
    """Largest differences of an answer token's log-probability over some training samples, in nats."""

    tokens: int
    difference: float
    """Between PEFT in float32 and the server, both with the adapter."""
    control: float
    """Between base and adapter, both through PEFT."""
    dtype: str = "float32"
    """In which the server computes."""
    odds: OddsDifferences | None = None
    """Differences of log-odds, which decide for a 16-bit server; None for float32."""

    @property
    def holds(self) -> bool:
        """Return whether the server has the trained adapter, and the check could have failed."""
        if self.odds is not None:
            return self.odds.within_bounds
        return self.difference <= TOLERANCE and self.control > CONTROL

    def as_text(self) -> str:
        """Return one line with the verdict, and the measured values with their bounds."""
        verdict = "the server has the model that was trained" if self.holds else "PARITY FAILED"
        return f"parity over {self.tokens} answer tokens, server in {self.dtype}: {verdict}; {self.figures()}"

    def figures(self) -> str:
        """Return the measured values on which the verdict depends, each with its bound."""
        if self.odds is not None:
            return self.odds.as_text()
        return (
            f"largest difference {self.difference:.1e} (at most {TOLERANCE:g}), "
            f"control (base against adapter) {self.control:.2f} (above {CONTROL:g})"
        )


def check_parity(
    adapter: Path,
    server: str,
    model: str,
    *,
    samples: int = 8,
    base: str | None = None,
    key: str | None = None,
    dtype: str | None = None,
) -> Parity:
    """Compare a finished adapter folder with the answers of ``server`` under the model name ``model``.

    Args:
        samples: number of samples, from the first of the recipe's mixture on.
        base: the base model, if it has moved since training.
        key: API key for the server.
        dtype: in which the server computes; None to take what the server reports (ours does), else float32.

    Raises:
        AdapterError: the folder has no finished adapter. ServerError: the server does not return log-probabilities.
    """
    manifest = read_manifest(adapter)
    if manifest is None or manifest.kind != "adapter":
        raise AdapterError(f"{adapter}: no finished adapter, so there is nothing to compare")
    refuse_pickle(adapter)
    # A start adapter is part of the weights by now; its folder may have been removed.
    changes = {"adapter": None, "template_date": manifest.template_date, **({"model": base} if base else {})}
    recipe = make_recipe({**manifest.recipe, **changes}, str(adapter))
    require_datasets(recipe)
    folder = find_base(recipe.model)
    check_weights(folder)
    mixture = open_recipe_mixture(open_inputs(recipe, template=manifest.chat_template))
    chosen = [mixture.draw_sample(i).sample for i in range(samples)]
    dtype = dtype or server_dtype(server, model, key) or "float32"
    served = [_over_http(server, model, sample, key) for sample in chosen]
    adapted, plain = _through_peft(str(folder), adapter, chosen, "float32")
    odds = None
    if dtype in LEAST_ROUNDING:
        rounded, _ = _through_peft(str(folder), adapter, chosen, dtype)
        odds = compare_odds(adapted, served, rounded, plain, LEAST_ROUNDING[dtype])
    return Parity(sum(map(len, adapted)), _largest(adapted, served), _largest(adapted, plain), dtype, odds)


def _largest(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Return the largest absolute difference; infinity if any value is not finite, which ``max`` might skip."""
    differences = [abs(x - y) for x, y in token_pairs(one, other)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def _through_peft(base: str, adapter: Path, samples: Sequence[TrainingSample], dtype: str) -> tuple[LogProbs, LogProbs]:
    """Return the log-probabilities of the answer tokens with and without the adapter, computed in ``dtype``."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype), use_safetensors=True)
    model = PeftModel.from_pretrained(bare, str(adapter)).to(getattr(torch, dtype))
    model.eval()

    def of(sample: TrainingSample) -> list[float]:
        ids = torch.tensor([sample.ids])
        logs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
        chosen = logs.gather(1, ids[0, 1:, None])[sample.prompt_length - 1 :, 0]
        return [float(value) for value in chosen]

    with torch.no_grad():
        adapted = [of(sample) for sample in samples]
        with model.disable_adapter():
            return adapted, [of(sample) for sample in samples]


def server_dtype(server: str, model: str, key: str | None) -> str | None:
    """Return the dtype that one of our servers reports for a model; None if it reports none that is known here.

    Raises:
        ServerError: the server does not list its models.
    """
    try:
        with open_without_proxy(_request(server, "/v1/models", None, key), timeout=30) as reply:
            cards = json.load(reply)["data"]
        dtypes = {card["id"]: (card.get("arc_bench") or {}).get("dtype") for card in cards}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{server}: does not list its models: {error!r}") from error
    return next((dtype for dtype in DTYPES if dtypes.get(model) == dtype), None)


def _request(server: str, path: str, body: dict[str, Any] | None, key: str | None) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    url = f"{server.rstrip('/').removesuffix('/v1')}{path}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data, headers)  # noqa: S310  # the user's own server


def _over_http(server: str, model: str, sample: TrainingSample, key: str | None) -> list[float]:
    """Return the server's log-probabilities of a sample's answer tokens."""
    body = {"model": model, "prompt": sample.ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    request = _request(server, "/v1/completions", body, key)
    try:
        with open_without_proxy(request, timeout=120) as reply:
            answer: dict[str, Any] = json.load(reply)
        logs = answer["choices"][0]["prompt_logprobs"][sample.prompt_length :]
        pairs = zip(logs, sample.ids[sample.prompt_length :], strict=True)
        return [float(entry[str(token)]["logprob"]) for entry, token in pairs]
    except urllib.error.HTTPError as error:
        raise ServerError(
            f"{server}: {error.code} for model {model!r}: {error.read(300).decode(errors='replace')}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{server}: no log-probabilities of the prompt for model {model!r}: {error!r}") from error
