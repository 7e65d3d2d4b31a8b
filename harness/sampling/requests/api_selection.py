"""Find out with the servers how a run sends its requests, before anything is recorded.

Prompts are sent as token ids (completions) if every server is seen to tokenize chats to exactly those ids, else as
chats. The same check shows that this machine has the models' own tokenizer files, which then tell which token ends an
answer and whether the chat template writes the date. Finally one request per model is sent to every server, to learn
which parameters and messages it accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.client.pool.server import Server
from harness.client.pool.server_health import ServerHealth
from harness.client.pool.trial_requests import NoSystemRole
from harness.client.protocol.request import Request, TokenRequest
from harness.core.digests import text_digest
from harness.core.errors import ConfigError, RunError, ServerError
from harness.runs.schemas.manifest_schema import RunConfig
from harness.sampling.options.config_draft import ConfigDraft, served_models
from harness.sampling.options.search_options import with_stop_logprobs
from harness.sampling.plan import Plan, Sample
from harness.sampling.requests.local_tokenizer import LocalTokenizers, TokenIdsUnavailable
from harness.sampling.requests.request_builder import RequestBuilder
from harness.sampling.requests.template_warnings import stop_warnings, template_warnings

_CHECKED_SAMPLES = 4
"""Prompts of each model that a server must tokenize as this run does."""
_SHARED_FIELDS = frozenset((
    "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "stop_token_ids", "min_tokens",
    "ignore_eos", "bad_words", "logit_bias", "allowed_token_ids", "structured_outputs", "skip_special_tokens",
    "include_stop_str_in_output", "priority",
))  # fmt: skip
"""Fields of ``extra_body`` that mean the same on both routes; with any other field, chats are sent."""


@dataclass(frozen=True)
class RunSetup:
    """The final configuration of a run, and what is built from it."""

    config: RunConfig
    plan: Plan
    builder: RequestBuilder
    eos_ids: frozenset[int] | None
    """The end-of-sequence tokens in the files of the models' base; None if they are not on this machine."""
    warnings: list[str] = field(default_factory=list)


async def negotiate_setup(draft: ConfigDraft, servers: Sequence[Server]) -> RunSetup:
    """Complete a run's configuration and make sure that the servers accept its requests.

    If a server or a chat template accepts no system message, prompts are replaced by those without one.

    Raises:
        ConfigError: completions were requested and cannot be used.
        RunError: a run cannot be reproduced. ServerError: no server accepts the run's requests.
    """
    try:
        return await _try_setup(draft, servers, without_system=False)
    except NoSystemRole as error:
        served = served_models(servers)
        config, replaced = (draft.complete(served, without_system=flag)[0] for flag in (False, True))
        if draft.repeated is not None:
            raise RunError(f"the run cannot be repeated: {error}") from None
        if replaced == config:
            names = ", ".join(sorted({model.prompt for model in config.models}))
            raise ServerError(
                f"{error}; there is no prompt that asks the same as {names} without one: choose another with --prompt"
            ) from None
        setup = await _try_setup(draft, servers, without_system=True)
        change = f"asking with {_prompt_names(replaced)} instead of {_prompt_names(config)}"
        setup.warnings.insert(0, f"{error}: {change}")
        return setup


def _prompt_names(config: RunConfig) -> str:
    return " and ".join(dict.fromkeys(model.prompt for model in config.models))


async def _try_setup(draft: ConfigDraft, servers: Sequence[Server], *, without_system: bool) -> RunSetup:
    """Complete the configuration, choose the API and send the trial requests.

    Raises:
        NoSystemRole: a server or a chat template accepts the prompts only without a system message.
    """
    config, warnings = draft.complete(served_models(servers), without_system=without_system)
    for server in servers:
        server.hashes = {model.name: model.hash for model in config.models if model.hash is not None}
        server.hashes |= {} if draft.options.part is None else draft.options.part.hashes
    setup = await _select_api(draft, config, servers)
    plan = setup.plan
    firsts = [plan.sample(number) for number in plan.first_numbers()]
    await send_trials(servers, [setup.builder.build_request([sample]) for sample in firsts])
    refused = [warning for server in servers if (warning := _refused_stop_tokens(server, setup)) is not None]
    return replace(setup, warnings=[*warnings, *setup.warnings, *refused])


async def _select_api(draft: ConfigDraft, config: RunConfig, servers: Sequence[Server]) -> RunSetup:
    """Choose between token ids and chats, and complete the configuration by what the models' own tokenizer says.

    Servers that are down are checked when they recover.

    Raises:
        ConfigError: completions were requested and cannot be used; the message says why.
        NoSystemRole: the models' chat template accepts or keeps no system message.
    """
    templates = adapter_templates(servers)
    local, plan, tokenizers, reason = None, None, None, ""
    warnings: list[str] = []
    try:
        local = LocalTokenizers(servers, config, templates)
        if not draft.is_continued:
            config = local.with_template_dates(config)
            local.check_system_role(draft.plan(config))
        plan = draft.plan(config)
        local.load_formats(plan)
        await check_servers_tokenize_alike(local, RequestBuilder(plan, config, templates=templates), plan, config)
        if not draft.is_continued:
            config = local.with_stop_tokens(plan, config)
        warnings += template_warnings(local, plan, config, chats=draft.api == "chat")
        if draft.api != "chat":
            await _check_completions(local, config)
            tokenizers = local.tokenizers
    except TokenIdsUnavailable as error:
        if config.search is not None:
            raise ConfigError(f"--search dfs continues answers by their token ids, but {error}") from None
        if draft.api == "completions":
            raise ConfigError(f"--api completions: {error}; --api chat asks without token ids") from None
        reason = "" if draft.api == "chat" else str(error)
    plan = draft.plan(config) if plan is None else plan
    if local is not None:
        warnings += stop_warnings(local, plan, config)
    if tokenizers is None:
        for server in servers:
            server.tokenizer_samples = ()
        warnings += _untrusted_templates(config)
    config = config.model_copy(update={"api": "chat" if tokenizers is None else "completions"})
    eos_ids = None if local is None else local.eos_ids
    config = with_stop_logprobs(config, eos_ids or frozenset())
    builder = RequestBuilder(plan, config, tokenizers, reason, templates, eos_ids or frozenset())
    return RunSetup(config, plan, builder, eos_ids, list(dict.fromkeys(warnings)))


def adapter_templates(servers: Sequence[ServerHealth]) -> dict[str, str]:
    """Return the chat templates that adapters bring along, by digest."""
    texts = [model.chat_template for server in servers for model in server.served.values()]
    return {text_digest(text): text for text in texts if text is not None}


def _untrusted_templates(config: RunConfig) -> list[str]:
    """Return a warning for each model whose chats carry a chat template, which servers may not trust."""
    return [
        f"{model.name} brings a chat template along, which servers take with a chat only where they trust requests "
        "(vLLM: --trust-request-chat-template); --api completions needs no such trust"
        for model in config.models
        if model.chat_template is not None
    ]


async def check_servers_tokenize_alike(
    local: LocalTokenizers, chats: RequestBuilder, plan: Plan, config: RunConfig
) -> None:
    """Make sure that the servers tokenize chats to the same ids as the local tokenizer.

    Raises:
        TokenIdsUnavailable: one does not, or has no /tokenize.
    """
    samples = tuple(local.tokenizer_sample(chats, sample, plan) for sample in _spread_samples(plan, config))
    for server in local.servers:
        server.tokenizer_samples = samples
    try:
        for server in local.present:
            await server.check_tokenizer()
    except ServerError as error:
        raise TokenIdsUnavailable(str(error)) from None


def _spread_samples(plan: Plan, config: RunConfig) -> Iterator[Sample]:
    """Yield up to four samples of each model, spread over the tasks."""
    indices = range(0, plan.per_model, -(-plan.per_model // _CHECKED_SAMPLES))
    return (plan.sample(i * plan.per_model + index) for i in range(len(config.models)) for index in indices)


async def _check_completions(local: LocalTokenizers, config: RunConfig) -> None:
    """Make sure that the servers accept token ids, by sending one.

    Raises:
        TokenIdsUnavailable: one does not, or ``extra_body`` has fields that may concern chats only.
    """
    if others := sorted(config.extra_body.keys() - _SHARED_FIELDS):
        raise TokenIdsUnavailable(f"extra-body sets {', '.join(others)}, which may concern chats alone")
    try:
        for server in local.present:
            ids = server.tokenizer_samples[0][1][:1]
            await server.client.send(TokenRequest(config.models[0].name, (ids,), 1, None))
    except ServerError as error:
        raise TokenIdsUnavailable(str(error)) from None


async def send_trials(servers: Sequence[ServerHealth], trials: Sequence[Request]) -> None:
    """Send the servers that are up one request per model; the others get them when they recover.

    Raises:
        NoSystemRole: one accepts no system message. ServerError: none answers.
    """
    for server in servers:
        server.trials = tuple(trials)
    present = [server for server in servers if server.up.is_set()]
    results = await asyncio.gather(*(server.send_trials() for server in present), return_exceptions=True)
    errors = [result for result in results if result is not None]
    for error in errors:
        if isinstance(error, NoSystemRole) or not isinstance(error, ServerError):
            raise error
    if len(errors) == len(present):
        raise ServerError("; ".join(map(str, errors)))
    for server, result in zip(present, results, strict=True):
        if result is not None:
            server.mark_down(str(result), None)


def _refused_stop_tokens(server: Server, setup: RunSetup) -> str | None:
    """Return a warning if a server refuses stop tokens that are not among the model's own eos tokens."""
    eos_ids = setup.eos_ids or frozenset()
    names = [model.name for model in setup.config.models if set(model.stop_token_ids or ()) - eos_ids]
    if "stop_token_ids" not in server.client.omitted or not names:
        return None
    return (
        f"{server.client.url} does not take stop_token_ids: answers of {', '.join(names)} that do not end by "
        "themselves are truncated"
    )
