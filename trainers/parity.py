"""Whether a server answers with the very model that was trained: log-probabilities through PEFT and over HTTP."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import AdapterError, ServerError
from harness.tokens import Sample
from trainers.artifact import read_manifest, refuse_pickle
from trainers.inputs import find_base, open_inputs, open_recipe_mixture
from trainers.recipe import make_recipe

TOLERANCE = 1e-3
"""The largest difference of a token's log-probability (nats) that float32 arithmetic explains."""
CONTROL = 0.1
"""Base and adapter must differ by more than this somewhere, else the check could not fail."""
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # directly, as bench run asks its servers


@dataclass(frozen=True)
class Parity:
    """Largest differences of a token's log-probability over the answers of some training samples, in nats."""

    tokens: int
    difference: float
    """PEFT against the server, both with the adapter."""
    control: float
    """Base against adapter, both through PEFT."""

    @property
    def holds(self) -> bool:
        """Whether the server has the adapter that was trained, and this could have been told."""
        return self.difference <= TOLERANCE and self.control > CONTROL

    def as_text(self) -> str:
        """One line with both figures and their bounds."""
        verdict = "the server has the model that was trained" if self.holds else "PARITY FAILED"
        return (
            f"parity over {self.tokens} answer tokens: {verdict}; largest difference {self.difference:.1e} "
            f"(at most {TOLERANCE:g}), control (base against adapter) {self.control:.2f} (above {CONTROL:g})"
        )


def check_parity(
    adapter: Path, server: str, model: str, *, samples: int = 8, base: str | None = None, key: str | None = None
) -> Parity:
    """Compare a finished adapter folder with what ``server`` answers under the name ``model``.

    The server must compute in float32 for the bound to hold.

    Args:
        samples: of the recipe's mixture, from its first on.
        base: the base model where it has moved since training.
        key: shown to the server.

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
    mixture = open_recipe_mixture(open_inputs(recipe, template=manifest.chat_template))
    chosen = [mixture.draw(i).sample for i in range(samples)]
    adapted, plain = _through_peft(str(where), adapter, chosen)
    served = [_over_http(server, model, sample, key) for sample in chosen]
    return Parity(sum(map(len, adapted)), _largest(adapted, served), _largest(adapted, plain))


def _largest(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference; what is no number anywhere is the largest of all, since ``max`` may pass over it."""
    found = [abs(x - y) for a, b in zip(one, other, strict=True) for x, y in zip(a, b, strict=True)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


def _through_peft(base: str, adapter: Path, samples: Sequence[Sample]) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probabilities of the answer tokens with the adapter and without, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    model = PeftModel.from_pretrained(bare, str(adapter))
    model.eval()

    def of(sample: Sample) -> list[float]:
        ids = torch.tensor([sample.ids])
        logs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
        chosen = logs.gather(1, ids[0, 1:, None])[sample.prompt_length - 1 :, 0]
        return [float(value) for value in chosen]

    with torch.no_grad():
        adapted = [of(sample) for sample in samples]
        with model.disable_adapter():
            return adapted, [of(sample) for sample in samples]


def _over_http(server: str, model: str, sample: Sample, key: str | None) -> list[float]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = {"model": model, "prompt": sample.ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    request = urllib.request.Request(  # noqa: S310  # the user's own server
        f"{server.rstrip('/').removesuffix('/v1')}/v1/completions", json.dumps(body).encode(), headers
    )
    try:
        with _open(request, timeout=120) as reply:
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
