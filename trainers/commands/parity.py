"""Whether a server answers with the very model that was trained: log-probabilities through PEFT and over HTTP.

Both are asked for the log-probability of every answer token of some training samples; PEFT computes in float32.

A server in **float32** differs by the order of sums: in 1,960 tokens of five adapters of the tiny base on a CPU by at
most 2e-5 nats. The bound is 1e-3.

A server in **16 bits** is judged by log-odds; see ``trainers.commands.log_odds``.
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

from harness.client.address import open_without_proxy
from harness.core.errors import AdapterError, ServerError
from harness.prompts.prompt_tokenizer import TrainingSample
from trainers.commands.log_odds import LEAST_ROUNDING, LogProbs, OddsDifferences, compare_odds, token_pairs
from trainers.model.inputs import check_weights, find_base, open_inputs, open_recipe_mixture
from trainers.recipe.schema import make_recipe
from trainers.store.manifest import read_manifest, refuse_pickle

TOLERANCE = 1e-3
"""The largest difference of a token's log-probability (nats) that float32 arithmetic explains."""
CONTROL = 0.1
"""Base and adapter must differ by more than this somewhere, else the check could not fail."""
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Parity:
    """Largest differences of a token's log-probability over the answers of some training samples, in nats."""

    tokens: int
    difference: float
    """PEFT in float32 against the server, both with the adapter."""
    control: float
    """Base against adapter, both through PEFT."""
    dtype: str = "float32"
    """In which the server computes."""
    odds: OddsDifferences | None = None
    """What decides for a server in 16 bits; None for one in float32."""

    @property
    def holds(self) -> bool:
        """Whether the server has the adapter that was trained, and this could have been told."""
        if self.odds is not None:
            return self.odds.within_bounds
        return self.difference <= TOLERANCE and self.control > CONTROL

    def as_text(self) -> str:
        """One line with the figures that decide and their bounds."""
        verdict = "the server has the model that was trained" if self.holds else "PARITY FAILED"
        return f"parity over {self.tokens} answer tokens, server in {self.dtype}: {verdict}; {self.figures()}"

    def figures(self) -> str:
        """The figures that decide, each with its bound."""
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
    """Compare a finished adapter folder with what ``server`` answers under the name ``model``.

    Args:
        samples: of the recipe's mixture, from its first on.
        base: the base model where it has moved since training.
        key: shown to the server.
        dtype: in which the server computes; None is what the server says (ours does), else float32.

    Raises:
        AdapterError: the folder is no finished adapter. ServerError: the server does not answer as asked.
    """
    manifest = read_manifest(adapter)
    if manifest is None or manifest.kind != "adapter":
        raise AdapterError(f"{adapter}: no finished adapter, so that there is nothing to compare")
    refuse_pickle(adapter)
    # What was gone on from is part of the weights now, and may be gone.
    changes = {"adapter": None, "template_date": manifest.template_date, **({"model": base} if base else {})}
    recipe = make_recipe({**manifest.recipe, **changes}, str(adapter))
    where = find_base(recipe.model)
    check_weights(where)
    mixture = open_recipe_mixture(open_inputs(recipe, template=manifest.chat_template))
    chosen = [mixture.draw_sample(i).sample for i in range(samples)]
    dtype = dtype or server_dtype(server, model, key) or "float32"
    served = [_over_http(server, model, sample, key) for sample in chosen]
    adapted, plain = _through_peft(str(where), adapter, chosen, "float32")
    odds = None
    if dtype in LEAST_ROUNDING:
        rounded, _ = _through_peft(str(where), adapter, chosen, dtype)
        odds = compare_odds(adapted, served, rounded, plain, LEAST_ROUNDING[dtype])
    return Parity(sum(map(len, adapted)), _largest(adapted, served), _largest(adapted, plain), dtype, odds)


def _largest(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference; what is no number anywhere is the largest of all, since ``max`` may pass over it."""
    found = [abs(x - y) for x, y in token_pairs(one, other)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


def _through_peft(base: str, adapter: Path, samples: Sequence[TrainingSample], dtype: str) -> tuple[LogProbs, LogProbs]:
    """Log-probabilities of the answer tokens with the adapter and without; all weights and products in ``dtype``."""
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
    """Return the dtype that a server of ours names for a model; None where it names none that is known here.

    Raises:
        ServerError: it does not list its models.
    """
    try:
        with open_without_proxy(_request(server, "/v1/models", None, key), timeout=30) as reply:
            cards = json.load(reply)["data"]
        named = {card["id"]: (card.get("arc_bench") or {}).get("dtype") for card in cards}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{server}: does not list its models: {error!r}") from error
    return next((dtype for dtype in DTYPES if named.get(model) == dtype), None)


def _request(server: str, path: str, body: dict[str, Any] | None, key: str | None) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    url = f"{server.rstrip('/').removesuffix('/v1')}{path}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data, headers)  # noqa: S310  # the user's own server


def _over_http(server: str, model: str, sample: TrainingSample, key: str | None) -> list[float]:
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
