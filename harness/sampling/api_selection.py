"""Which API a run asks through, and what is known of its models' chat templates.

Token ids are sent where every server is seen to read chats as exactly those, else chats. The same proof shows that this
machine has the models' own tokenizer, which then says what ends an answer and whether the template reads the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.client.request import Request, TokenRequest
from harness.client.server import Server
from harness.client.server_health import NoSystemRole, ServerHealth
from harness.core.errors import ConfigError, RunError, ServerError
from harness.core.grid import Task
from harness.data.dataset import Dataset
from harness.runs.schema import RunConfig
from harness.sampling.local_tokenizer import LocalTokenizers, TokenIdsUnavailable
from harness.sampling.manifest_writer import served_models
from harness.sampling.model_options import template_digest
from harness.sampling.options import ApiChoice, RunOptions, complete
from harness.sampling.plan import Plan, Sample
from harness.sampling.request_builder import RequestBuilder

SAMPLES = 4
"""Prompts of each way to ask that a server must tokenize as this run does."""
SHARED_FIELDS = frozenset((
    "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "stop_token_ids", "min_tokens",
    "ignore_eos", "bad_words", "logit_bias", "allowed_token_ids", "structured_outputs", "skip_special_tokens",
    "include_stop_str_in_output", "priority",
))  # fmt: skip
"""Fields of ``extra_body`` that mean the same on both routes; with others, chats are sent."""


@dataclass(frozen=True)
class RunSetup:
    """How a run asks."""

    config: RunConfig
    plan: Plan
    builder: RequestBuilder
    eos: frozenset[int] | None
    """The eos ids of the models' base; None where its files are not on this machine."""
    warnings: list[str] = field(default_factory=list)


async def settle(
    choice: ApiChoice, tasks: Sequence[Task], config: RunConfig, servers: Sequence[ServerHealth], *, kept: bool
) -> RunSetup:
    """Choose the API, and complete the configuration by what the models' own tokenizer says.

    ServerPool that are away are checked when they come.

    Args:
        kept: the run was begun before: its configuration is complete.

    Raises:
        ConfigError: completions were asked for, and cannot be sent; the message says why.
        NoSystemRole: the models' chat template takes or keeps no system message.
    """
    templates = _templates(servers)
    base, plan, ways, why = None, None, None, ""
    warnings: list[str] = []
    try:
        base = LocalTokenizers(servers, config, templates)
        if not kept:
            config = base.dated(config)
            base.check_system(Plan(config, tasks))
        plan = Plan(config, tasks)
        base.read(plan)
        await _prove(base, RequestBuilder(plan, config, templates=templates), plan, config)
        if not kept:
            config = base.with_stops(plan, config)
        warnings += base.warnings(plan, config, chats=choice == "chat")
        if choice != "chat":
            await _check_route(base, config)
            ways = base.ways
    except TokenIdsUnavailable as error:
        if choice == "completions":
            raise ConfigError(f"--api completions: {error}; --api chat asks without token ids") from None
        why = "" if choice == "chat" else str(error)
    plan = Plan(config, tasks) if plan is None else plan
    if base is not None:
        warnings += base.on_stops(plan, config)
    if ways is None:
        for server in servers:
            server.tokenizer_samples = ()
        warnings += _untrusted(config)
    config = config.model_copy(update={"api": "chat" if ways is None else "completions"})
    builder = RequestBuilder(plan, config, ways, why, templates)
    return RunSetup(config, plan, builder, None if base is None else base.eos, list(dict.fromkeys(warnings)))


def _templates(servers: Sequence[ServerHealth]) -> dict[str, str]:
    """By digest, the chat templates that adapters bring along."""
    texts = [model.chat_template for server in servers for model in server.served.values()]
    return {template_digest(text): text for text in texts if text is not None}


def _untrusted(config: RunConfig) -> list[str]:
    """What a user should know of chats to models that bring a template along."""
    return [
        f"{model.name} brings a chat template along, which servers take with a chat only where they trust requests "
        "(vLLM: --trust-request-chat-template); --api completions needs no such trust"
        for model in config.models
        if model.chat_template is not None
    ]


async def _prove(base: LocalTokenizers, chats: RequestBuilder, plan: Plan, config: RunConfig) -> None:
    """Make sure that the servers read chats as the base's token ids.

    Raises:
        TokenIdsUnavailable: one does not, or does not say.
    """
    samples = tuple(base.sample(chats, draw, plan.formats[draw.model]) for draw in _draws(plan, config))
    for server in base.servers:
        server.tokenizer_samples = samples
    try:
        for server in base.present:
            await server.check_tokenizer()
    except ServerError as error:
        raise TokenIdsUnavailable(str(error)) from None


def _draws(plan: Plan, config: RunConfig) -> Iterator[Sample]:
    """Some draws of each model, spread over the tasks."""
    places = range(0, plan.per_model, -(-plan.per_model // SAMPLES))
    return (plan.sample(i * plan.per_model + place) for i in range(len(config.models)) for place in places)


async def _check_route(base: LocalTokenizers, config: RunConfig) -> None:
    """Make sure that token ids can be sent.

    Raises:
        TokenIdsUnavailable: they cannot.
    """
    if others := sorted(config.extra_body.keys() - SHARED_FIELDS):
        raise TokenIdsUnavailable(f"extra-body sets {', '.join(others)}, which may concern chats alone")
    try:
        for server in base.present:
            ids = server.tokenizer_samples[0][1][:1]
            await server.client.send(TokenRequest(config.models[0].name, (ids,), 1, None))
    except ServerError as error:
        raise TokenIdsUnavailable(str(error)) from None


@dataclass(frozen=True)
class Wish:
    """What decides how a run asks, beside what the servers say."""

    options: RunOptions
    dataset: Dataset
    tasks: list[Task]
    repeat: RunConfig | None
    begun: RunConfig | None
    """The configuration of the run that is resumed."""

    @property
    def api(self) -> ApiChoice:
        """A run that is repeated or resumed keeps its own, unless the user says otherwise."""
        if self.repeat is not None:
            return self.repeat.api
        return self.begun.api if self.options.api == "auto" and self.begun is not None else self.options.api

    def complete(self, servers: Sequence[Server], no_system: bool) -> tuple[RunConfig, list[str]]:
        """The configuration, and warnings about it."""
        served = served_models(servers)
        return complete(
            self.options, self.dataset, self.tasks, served, self.repeat, begun=self.begun, no_system=no_system
        )


async def agree(wish: Wish, servers: Sequence[Server]) -> RunSetup:
    """How the run asks, tried out with one of its own requests for each model; without system messages where need be.

    Raises:
        ServerError: no server takes the run's requests.
    """
    try:
        return await _settle(wish, servers, no_system=False)
    except NoSystemRole as error:
        config, again = (wish.complete(servers, no_system)[0] for no_system in (False, True))
        if wish.repeat is not None:
            raise RunError(f"the run cannot be repeated: {error}") from None
        if again == config:
            names = ", ".join(sorted({model.prompt for model in config.models}))
            raise ServerError(
                f"{error}; there is no prompt that asks the same as {names} without one: choose another with --prompt"
            ) from None
        settled = await _settle(wish, servers, no_system=True)
        settled.warnings.insert(0, f"{error}: asking with {_prompts(again)} instead of {_prompts(config)}")
        return settled


def _prompts(config: RunConfig) -> str:
    return " and ".join(dict.fromkeys(model.prompt for model in config.models))


async def _settle(wish: Wish, servers: Sequence[Server], *, no_system: bool) -> RunSetup:
    config, warnings = wish.complete(servers, no_system)
    for server in servers:
        server.hashes = {model.name: model.hash for model in config.models if model.hash is not None}
    kept = wish.repeat is not None or wish.begun is not None
    settled = await settle(wish.api, wish.tasks, config, servers, kept=kept)
    plan = settled.plan
    firsts = [plan.sample(place * plan.per_model) for place in range(len(config.models))]
    await _try_out(servers, [settled.builder.request([draw]) for draw in firsts])
    unstopped = [warning for server in servers if (warning := _unstopped(server, settled)) is not None]
    return replace(settled, warnings=[*warnings, *settled.warnings, *unstopped])


async def _try_out(servers: Sequence[Server], trials: Sequence[Request]) -> None:
    """Ask the servers that are there one request of the run for each model; the others are asked when they come.

    Raises:
        NoSystemRole: one takes no system message. ServerError: none answers.
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


def _unstopped(server: Server, settled: RunSetup) -> str | None:
    """A warning where a server refuses the token that ends answers, which it may not know by itself."""
    names = [m.name for m in settled.config.models if set(m.stop_token_ids or ()) - (settled.eos or set())]
    if "stop_token_ids" not in server.client.omitted or not names:
        return None
    return (
        f"{server.client.url} does not take stop_token_ids: answers of {', '.join(names)} that do not end by "
        "themselves are truncated"
    )
