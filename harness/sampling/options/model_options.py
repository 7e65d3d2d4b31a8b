"""The prompt, encoder and stop tokens of each model: from the user, else its manifest, else the other manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import JsonValue

from harness.core.digests import text_digest
from harness.core.errors import SpecError
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import DEFAULT_PROMPT, load_prompt, nosystem_prompt
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig, ServedModel
from harness.sampling.plan import PromptFormat

T = TypeVar("T")
_TEMPLATE_FIELDS = ("stop_token_ids", "chat_template_kwargs", "chat_template", "template_date")
"""Fields that a resumed run keeps as they were when it was begun."""


@dataclass(frozen=True)
class ModelChoices:
    """What the user chose for all models; None leaves a choice to the manifests.

    Args:
        sets_stop_tokens: the user sends stop_token_ids in ``extra_body``.
        without_system: replace prompts by those with the same content and no system message.
    """

    prompt: str | None
    encoder: str | None
    max_tokens: int | None
    sets_stop_tokens: bool
    chat_template_kwargs: Mapping[str, JsonValue]
    without_system: bool = False


def model_configs(
    names: Sequence[str],
    choices: ModelChoices,
    served: Mapping[str, ServedModel],
    resumed: RunConfig | None,
    warnings: list[str],
) -> list[ModelConfig]:
    """Return the configuration of each model.

    Each setting is the user's choice, else that of the model's manifest, else the value on which all manifests of the
    run agree, else the default. A base model, which has no manifest, is therefore prompted like its adapters, so that
    their scores can be compared.

    Args:
        served: the models that the servers list, by name.
        resumed: the configuration of the run that is resumed; its template fields are kept.
        warnings: lines are appended to it.
    """
    models = [_without_unknown(served.get(name, ServedModel(name=name)), warnings) for name in names]
    shared = ServedModel(
        name="",
        prompt=choices.prompt or _common_value([m.prompt for m in models]) or DEFAULT_PROMPT,
        encoder=choices.encoder or _common_value([m.encoder for m in models]) or DEFAULT_ENCODER,
        stop_token_ids=_common_value([m.stop_token_ids for m in models]),
        chat_template_kwargs=_common_value([m.chat_template_kwargs for m in models]),
        chat_template=_common_value([m.chat_template for m in models]),
        template_date=_common_value([m.template_date for m in models]),
    )
    before = {} if resumed is None else {model.name: model for model in resumed.models}
    configs = [_model_config(model, shared, choices, before.get(model.name), warnings) for model in models]
    for config in configs:
        _warn_if_undetermined(config, served.get(config.name), choices, warnings)
    return configs


def repeated_model_config(model: ModelConfig, max_tokens: int | None, served: ServedModel | None) -> ModelConfig:
    """Return a model's configuration of an earlier run with the present digests of its prompt, weights and template.

    If one of them has changed, comparing the two configurations shows it.

    Args:
        max_tokens: the user's limit; None keeps the run's.
        served: the model as the server lists it now.
    """
    update: dict[str, object] = {
        "prompt_digest": load_prompt(model.prompt).digest,
        "hash": None if served is None else served.hash,
    }
    if model.chat_template is not None:
        text = None if served is None else served.chat_template
        update["chat_template"] = None if text is None else text_digest(text)
    return model.model_copy(update=update | ({"max_tokens": max_tokens} if max_tokens else {}))


def _model_config(
    model: ServedModel, shared: ServedModel, choices: ModelChoices, before: ModelConfig | None, warnings: list[str]
) -> ModelConfig:
    """Return one model's configuration, with warnings where it differs from the training of its adapter.

    Args:
        shared: the settings on which the manifests agree, for a model without a manifest.
        before: the model's configuration in the run that is resumed.
    """
    has_manifest = model.prompt is not None or model.stop_token_ids is not None
    source = model if has_manifest else shared
    prompt = load_prompt(choices.prompt or model.prompt or shared.prompt or DEFAULT_PROMPT)
    replacement = nosystem_prompt(prompt.name)
    if replacement is not None and (choices.without_system or (before is not None and before.prompt == replacement)):
        prompt = load_prompt(replacement)
    encoder = choices.encoder or model.encoder or shared.encoder or DEFAULT_ENCODER
    kwargs = source.chat_template_kwargs or {}
    for kind, used, trained in (("prompt", prompt.name, model.prompt), ("encoder", encoder, model.encoder)):
        if trained is not None and used != trained:
            warnings.append(f"{model.name} was trained with {kind} {trained}, but is asked with {used}")
    for name, value in choices.chat_template_kwargs.items():
        if has_manifest and kwargs.get(name) != value:
            trained = repr(kwargs[name]) if name in kwargs else "nothing"
            warnings.append(
                f"{model.name} was trained with {name} = {trained} in its template, but is asked with {value!r}"
            )
    config = ModelConfig(
        name=model.name,
        prompt=prompt.name,
        prompt_digest=prompt.digest,
        encoder=encoder,
        max_tokens=choices.max_tokens or PromptFormat(prompt, parse_encoder(encoder)).max_answer_tokens,
        hash=model.hash,
        stop_token_ids=None if choices.sets_stop_tokens else source.stop_token_ids,
        chat_template_kwargs=kwargs,
        chat_template=None if source.chat_template is None else text_digest(source.chat_template),
        template_date=source.template_date,
    )
    if before is None:
        return config
    return config.model_copy(update={name: getattr(before, name) for name in _TEMPLATE_FIELDS})


def _warn_if_undetermined(
    config: ModelConfig, served: ServedModel | None, choices: ModelChoices, warnings: list[str]
) -> None:
    """Warn if neither the user nor an adapter's manifest determines its prompt or encoder."""
    if served is None or served.parent is None:  # a base model
        return
    for kind, trained, chosen in (
        ("prompt", served.prompt, choices.prompt),
        ("encoder", served.encoder, choices.encoder),
    ):
        if trained is None and chosen is None:
            used = getattr(config, kind)
            warnings.append(f"{config.name}: nothing says with which {kind} it was trained; it is asked with {used}")


def _without_unknown(model: ServedModel, warnings: list[str]) -> ServedModel:
    """Return a served model without a prompt or encoder that this version does not know, with a warning for each."""
    prompt = _parsable(model.prompt, load_prompt, model.name, warnings)
    encoder = _parsable(model.encoder, parse_encoder, model.name, warnings)
    return model.model_copy(update={"prompt": prompt, "encoder": encoder})


def _parsable(value: str | None, parse: Callable[[str], object], model: str, warnings: list[str]) -> str | None:
    """Return the value if ``parse`` accepts it, else None and a warning."""
    if value is None:
        return None
    try:
        parse(value)
    except SpecError as error:
        warnings.append(f"the manifest of {model} is not understood: {error}")
        return None
    return value


def _common_value(values: Sequence[T | None]) -> T | None:
    """Return the value that all entries other than None share, or None if they differ or there are none."""
    present = [value for value in values if value is not None]
    return present[0] if present and all(value == present[0] for value in present) else None
