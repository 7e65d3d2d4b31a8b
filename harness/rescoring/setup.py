"""Settle how scorers are prompted: as in the run, or as ``bench run`` would, and as the servers tokenize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.client.pool.server_health import ServerHealth
from harness.client.pool.trial_requests import NoSystemRole
from harness.core.errors import ConfigError, RunError
from harness.predictions.rescore_source import RescoreSource
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig, ServedModel
from harness.sampling.options.config_draft import served_models
from harness.sampling.options.model_options import ModelChoices, model_configs, repeated_model_config
from harness.sampling.plan import Plan
from harness.sampling.requests.api_selection import adapter_templates, check_servers_tokenize_alike, send_trials
from harness.sampling.requests.local_tokenizer import LocalTokenizers, TokenIdsUnavailable
from harness.sampling.requests.request_builder import RequestBuilder


@dataclass(frozen=True)
class ScoringSetup:
    """The scorers as models of a run whose sample k is view k, and what builds their prompts."""

    config: RunConfig
    plan: Plan
    builder: RequestBuilder
    contexts: dict[str, int | None]
    """By scorer, the length of its context; None if the server does not say."""
    warnings: tuple[str, ...]

    @property
    def hashes(self) -> dict[str, str | None]:
        """The content hash of each scorer's weights; None if the server reports none."""
        return {model.name: model.hash for model in self.config.models}


async def negotiate_scoring(
    source: RescoreSource, scorers: Sequence[str], views: int, servers: Sequence[ServerHealth], *, same_weights: bool
) -> ScoringSetup:
    """Settle how the scorers are prompted, and check that the servers read the prompts as the same tokens.

    Args:
        same_weights: whether each scorer must have the weights of the run, because it rescores its own candidates.

    Raises:
        RunError: ``same_weights``, and a scorer has others.
        ConfigError: prompts cannot be sent as token ids. ServerError: no server accepts them.
    """
    try:
        return await _try_setup(source, scorers, views, servers, same_weights=same_weights, without_system=False)
    except NoSystemRole:
        return await _try_setup(source, scorers, views, servers, same_weights=same_weights, without_system=True)


async def _try_setup(
    source: RescoreSource,
    scorers: Sequence[str],
    views: int,
    servers: Sequence[ServerHealth],
    *,
    same_weights: bool,
    without_system: bool,
) -> ScoringSetup:
    """Implement ``negotiate_scoring``.

    Raises:
        NoSystemRole: a server or a chat template accepts the prompts only without a system message.
    """
    served = served_models(servers)
    if same_weights:
        _check_same_weights(source, served)
    warnings: list[str] = []
    models = _scorer_configs(source, scorers, served, warnings, without_system=without_system)
    config = _scoring_config(source, models, views)
    for server in servers:
        server.hashes = {model.name: model.hash for model in models if model.hash is not None}
    templates = adapter_templates(servers)
    try:
        local = LocalTokenizers(servers, config, templates)
        config = local.with_template_dates(config, source.date)
        plan = Plan(config, source.tasks)
        local.check_system_role(plan)
        local.load_formats(plan)
        await check_servers_tokenize_alike(local, RequestBuilder(plan, config, templates=templates), plan, config)
    except TokenIdsUnavailable as error:
        raise ConfigError(f"rescoring sends prompts and answers as token ids, but {error}") from None
    builder = RequestBuilder(plan, config, local.tokenizers, "", templates, local.eos_ids)
    firsts = [plan.sample(index * plan.per_model) for index in range(len(models))]
    trials = [replace(builder.build_request([sample]), max_tokens=1) for sample in firsts]
    await send_trials(servers, trials)
    contexts = {name: served[name].max_model_len for name in scorers if name in served}
    return ScoringSetup(config, plan, builder, contexts, tuple(dict.fromkeys(warnings)))


def _check_same_weights(source: RescoreSource, served: dict[str, ServedModel]) -> None:
    """Check that the models have the weights that they had in the run.

    Raises:
        RunError: one has others; the message says what to do.
    """
    for model in source.models:
        now = served[model.name].hash if model.name in served else model.hash
        if model.hash is not None and now != model.hash:
            raise RunError(
                f"{source.folder}: {model.name} made the candidates with other weights ({model.hash}) than the server "
                f"has under this name now ({now}): serve those, or name the scorer: --model {model.name}"
            )


def _scorer_configs(
    source: RescoreSource,
    scorers: Sequence[str],
    served: dict[str, ServedModel],
    warnings: list[str],
    *,
    without_system: bool,
) -> list[ModelConfig]:
    """Return how each scorer is prompted.

    A model of the run with the same weights keeps the run's settings. Others have those of their manifests; where a
    scorer has none, the prompt and encoder that all models of the run share.
    """
    saved = {model.name: model for model in source.models}
    configs: dict[str, ModelConfig] = {}
    others: list[str] = []
    for name in scorers:
        before, now = saved.get(name), served.get(name)
        if before is not None and (now is None or now.hash == before.hash):
            configs[name] = repeated_model_config(before, None, now)
        else:
            others.append(name)
    choices = ModelChoices(
        prompt=None,
        encoder=None,
        max_tokens=None,
        sets_stop_tokens=False,
        chat_template_kwargs=source.chat_template_kwargs,
        without_system=without_system,
    )
    known = {name: _with_shared(served.get(name, ServedModel(name=name)), source.models) for name in others}
    configs |= {model.name: model for model in model_configs(others, choices, known, None, warnings)}
    return [configs[name] for name in scorers]


def _with_shared(model: ServedModel, models: Sequence[ModelConfig]) -> ServedModel:
    """Return a served model with the prompt and encoder that the run's models share, where it has none."""
    prompts, encoders = {one.prompt for one in models}, {one.encoder for one in models}
    update = {
        "prompt": model.prompt or (prompts.pop() if len(prompts) == 1 else None),
        "encoder": model.encoder or (encoders.pop() if len(encoders) == 1 else None),
    }
    return model.model_copy(update=update)


def _scoring_config(source: RescoreSource, models: list[ModelConfig], views: int) -> RunConfig:
    """Return the configuration of a run whose samples are the fixed views."""
    if not models:
        raise ConfigError(f"{source.folder}: there are no models")
    return RunConfig(
        models=models,
        dataset=source.dataset,
        dataset_digest=source.dataset_digest,
        task_ids=[task.id for task in source.tasks],
        n=views,
        samples_per_view=1,
        augment=True,
        seed=source.seed,
        api="completions",
        temperature=0.0,
        top_p=1.0,
        min_p=0.0,
        extra_body={},
        chat_template_kwargs=dict(source.chat_template_kwargs),
    )
