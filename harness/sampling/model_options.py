"""How each model of a run is to be asked: what the user says, what its manifest says, or what the others' say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import JsonValue

from harness.core.errors import SpecError
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import DEFAULT_PROMPT, load_prompt, nosystem_prompt
from harness.runs.schema import ModelConfig, RunConfig, ServedModel
from harness.sampling.plan import PromptFormat

T = TypeVar("T")


@dataclass(frozen=True)
class ModelChoices:
    """What the user says for all models; None leaves a choice to the manifests."""

    prompt: str | None
    encoder: str | None
    max_tokens: int | None
    own_stops: bool
    """The user sends stop_token_ids of their own."""
    chat_template_kwargs: Mapping[str, JsonValue]
    no_system: bool = False
    """Prompts are replaced by those that ask the same without a system message."""


def model_configs(
    names: Sequence[str],
    wanted: ModelChoices,
    served: Mapping[str, ServedModel],
    begun: RunConfig | None,
    warnings: list[str],
) -> list[ModelConfig]:
    """How each model is asked: as the user says, else as its manifest says, else as all manifests, else by default.

    A model without a manifest is asked as the others are, so that a base and its adapters compare.

    Args:
        begun: of a run that is resumed; what is found out about templates stays as it was found then.
        warnings: is added to.
    """
    known = {name: _understood(served.get(name, ServedModel(name=name)), warnings) for name in names}
    own = list(known.values())
    prompt = _common([m.prompt for m in own]) or DEFAULT_PROMPT
    encoder = _common([m.encoder for m in own]) or DEFAULT_ENCODER
    shared = ServedModel(
        name="",
        prompt=wanted.prompt or prompt,
        encoder=wanted.encoder or encoder,
        stop_token_ids=_common([m.stop_token_ids for m in own]),
        chat_template_kwargs=_common([m.chat_template_kwargs for m in own]),
        chat_template=_common([m.chat_template for m in own]),
        template_date=_common([m.template_date for m in own]),
    )
    before = {} if begun is None else {model.name: model for model in begun.models}
    found = [_model(model, shared, wanted, before.get(name), warnings) for name, model in known.items()]
    for model in found:
        _warn_unknown(model, served.get(model.name), wanted, warnings)
    return found


def _warn_unknown(model: ModelConfig, served: ServedModel | None, wanted: ModelChoices, warnings: list[str]) -> None:
    """Warn where neither the user nor the manifest of an adapter says how to ask it."""
    if served is None or served.parent is None:  # a base
        return
    for kind, trained, given in (
        ("prompt", served.prompt, wanted.prompt),
        ("encoder", served.encoder, wanted.encoder),
    ):
        if trained is None and given is None:
            chosen = getattr(model, kind)
            warnings.append(f"{model.name}: nothing says with which {kind} it was trained; it is asked with {chosen}")


def again(model: ModelConfig, max_tokens: int | None, served: ServedModel | None) -> ModelConfig:
    """How a model is asked that is to be asked as it was; with what its prompt and weights are by now."""
    update: dict[str, object] = {
        "prompt_digest": load_prompt(model.prompt).digest,
        "hash": None if served is None else served.hash,
    }
    if model.chat_template is not None:
        text = None if served is None else served.chat_template
        update["chat_template"] = None if text is None else template_digest(text)
    return model.model_copy(update=update | ({"max_tokens": max_tokens} if max_tokens else {}))


def template_digest(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a chat template, as adapters' manifests give it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model(
    model: ServedModel, shared: ServedModel, wanted: ModelChoices, before: ModelConfig | None, warnings: list[str]
) -> ModelConfig:
    has_manifest = model.prompt is not None or model.stop_token_ids is not None
    other = model if has_manifest else shared
    prompt = load_prompt(wanted.prompt or model.prompt or shared.prompt or DEFAULT_PROMPT)
    other_prompt = nosystem_prompt(prompt.name)
    if other_prompt is not None and (wanted.no_system or (before is not None and before.prompt == other_prompt)):
        prompt = load_prompt(other_prompt)
    encoder = wanted.encoder or model.encoder or shared.encoder or DEFAULT_ENCODER
    kwargs = other.chat_template_kwargs or {}
    for kind, chosen, trained in (("prompt", prompt.name, model.prompt), ("encoder", encoder, model.encoder)):
        if trained is not None and chosen != trained:
            warnings.append(f"{model.name} was trained with {kind} {trained}, but is asked with {chosen}")
    for name, value in wanted.chat_template_kwargs.items():
        if has_manifest and kwargs.get(name) != value:
            trained = repr(kwargs[name]) if name in kwargs else "nothing"
            warnings.append(
                f"{model.name} was trained with {name} = {trained} in its template, but is asked with {value!r}"
            )
    found = ModelConfig(
        name=model.name,
        prompt=prompt.name,
        prompt_digest=prompt.digest,
        encoder=encoder,
        max_tokens=wanted.max_tokens or PromptFormat(prompt, parse_encoder(encoder)).max_answer_tokens,
        hash=model.hash,
        stop_token_ids=None if wanted.own_stops else other.stop_token_ids,
        chat_template_kwargs=kwargs,
        chat_template=None if other.chat_template is None else template_digest(other.chat_template),
        template_date=other.template_date,
    )
    if before is None:
        return found
    kept = ("stop_token_ids", "chat_template_kwargs", "chat_template", "template_date")
    return found.model_copy(update={name: getattr(before, name) for name in kept})


def _understood(model: ServedModel, warnings: list[str]) -> ServedModel:
    """A served model without the prompt or encoder of its manifest that this version does not know, with a warning."""
    prompt = _usable(model.prompt, load_prompt, model.name, warnings)
    encoder = _usable(model.encoder, parse_encoder, model.name, warnings)
    return model.model_copy(update={"prompt": prompt, "encoder": encoder})


def _usable(value: str | None, parse: Callable[[str], object], model: str, warnings: list[str]) -> str | None:
    if value is None:
        return None
    try:
        parse(value)
    except SpecError as error:
        warnings.append(f"the manifest of {model} is not understood: {error}")
        return None
    return value


def _common(values: Sequence[T | None]) -> T | None:
    """The value that all who have one share; None where they differ or have none."""
    given = [value for value in values if value is not None]
    return given[0] if given and all(value == given[0] for value in given) else None
