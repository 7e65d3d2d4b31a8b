"""Which API a run asks through, and what is known of its models' chat templates.

Token ids are sent where every server is seen to read chats as exactly those, else chats. The same proof shows that this
machine has the models' own tokenizer, which then says what ends an answer and whether the template reads the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.client.request import TokenRequest
from harness.client.server_health import Presence
from harness.core.errors import ConfigError, ServerError
from harness.core.grid import Task
from harness.runs.schema import RunConfig
from harness.sampling.local_tokenizer import Base, Unverified
from harness.sampling.model_options import template_digest
from harness.sampling.options import ApiChoice
from harness.sampling.plan import Draw, Plan
from harness.sampling.request_builder import Asking

SAMPLES = 4
"""Prompts of each way to ask that a server must tokenize as this run does."""
SHARED_FIELDS = frozenset((
    "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "stop_token_ids", "min_tokens",
    "ignore_eos", "bad_words", "logit_bias", "allowed_token_ids", "structured_outputs", "skip_special_tokens",
    "include_stop_str_in_output", "priority",
))  # fmt: skip
"""Fields of ``extra_body`` that mean the same on both routes; with others, chats are sent."""


@dataclass(frozen=True)
class Settled:
    """How a run asks."""

    config: RunConfig
    plan: Plan
    asking: Asking
    eos: frozenset[int] | None
    """The eos ids of the models' base; None where its files are not on this machine."""
    warnings: list[str] = field(default_factory=list)


async def settle(
    choice: ApiChoice, tasks: Sequence[Task], config: RunConfig, servers: Sequence[Presence], *, kept: bool
) -> Settled:
    """Choose the API, and complete the configuration by what the models' own tokenizer says.

    Servers that are away are checked when they come.

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
        base = Base(servers, config, templates)
        if not kept:
            config = base.dated(config)
            base.check_system(Plan(config, tasks))
        plan = Plan(config, tasks)
        base.read(plan)
        await _prove(base, Asking(plan, config, templates=templates), plan, config)
        if not kept:
            config = base.with_stops(plan, config)
        warnings += base.warnings(plan, config, chats=choice == "chat")
        if choice != "chat":
            await _check_route(base, config)
            ways = base.ways
    except Unverified as error:
        if choice == "completions":
            raise ConfigError(f"--api completions: {error}; --api chat asks without token ids") from None
        why = "" if choice == "chat" else str(error)
    plan = Plan(config, tasks) if plan is None else plan
    if base is not None:
        warnings += base.on_stops(plan, config)
    if ways is None:
        for server in servers:
            server.samples = ()
        warnings += _untrusted(config)
    config = config.model_copy(update={"api": "chat" if ways is None else "completions"})
    asking = Asking(plan, config, ways, why, templates)
    return Settled(config, plan, asking, None if base is None else base.eos, list(dict.fromkeys(warnings)))


def _templates(servers: Sequence[Presence]) -> dict[str, str]:
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


async def _prove(base: Base, chats: Asking, plan: Plan, config: RunConfig) -> None:
    """Make sure that the servers read chats as the base's token ids.

    Raises:
        Unverified: one does not, or does not say.
    """
    samples = tuple(base.sample(chats, draw, plan.askers[draw.model]) for draw in _draws(plan, config))
    for server in base.servers:
        server.samples = samples
    try:
        for server in base.present:
            await server.check_samples()
    except ServerError as error:
        raise Unverified(str(error)) from None


def _draws(plan: Plan, config: RunConfig) -> Iterator[Draw]:
    """Some draws of each model, spread over the tasks."""
    places = range(0, plan.per_model, -(-plan.per_model // SAMPLES))
    return (plan.draw(i * plan.per_model + place) for i in range(len(config.models)) for place in places)


async def _check_route(base: Base, config: RunConfig) -> None:
    """Make sure that token ids can be sent.

    Raises:
        Unverified: they cannot.
    """
    if others := sorted(config.extra_body.keys() - SHARED_FIELDS):
        raise Unverified(f"extra-body sets {', '.join(others)}, which may concern chats alone")
    try:
        for server in base.present:
            await server.client.ask(TokenRequest(config.models[0].name, (server.samples[0][1][:1],), 1, None))
    except ServerError as error:
        raise Unverified(str(error)) from None
