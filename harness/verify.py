"""Which API a run asks through, and what is known of its models' chat templates.

Token ids are sent where every server is seen to read chats as exactly those, else chats. The same proof shows that this
machine has the models' own tokenizer, which then says what ends an answer and whether the template reads the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness.asking import Asking
from harness.chattokenizer import FileTokenizer, eos_ids, tokenizer_folder
from harness.errors import ArcBenchError, ConfigError, ServerError
from harness.grid import Task
from harness.plan import Asker, Draw, Plan
from harness.presence import Presence, TextSample
from harness.records import ModelConfig, RunConfig
from harness.requests import ChatRequest, TokenRequest
from harness.settings import ApiChoice
from harness.template import TemplateSettings
from harness.tokens import PromptTokenizer
from harness.turns import reads_clock

SAMPLES = 4
"""Prompts of each way to ask that a server must tokenize as this run does."""
SHARED_FIELDS = frozenset((
    "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "stop_token_ids", "min_tokens",
    "ignore_eos", "bad_words", "logit_bias", "allowed_token_ids", "structured_outputs", "skip_special_tokens",
    "include_stop_str_in_output", "priority",
))  # fmt: skip
"""Fields of ``extra_body`` that mean the same on both routes; with others, chats are sent."""


class Unverified(ServerError):
    """Why token ids cannot be sent."""


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
    """
    templates = _templates(servers)
    present = [server for server in servers if server.up.is_set()]
    eos, warnings = None, list[str]()
    for server in servers:
        server.samples = ()
    try:
        folder = _folder(present, config)
        eos = eos_ids(folder)
        base = _Base(folder, templates)
        config = config if kept else base.dated(config)
        plan = Plan(config, tasks)
        ways = base.ways(plan)
        try:
            await _prove(Asking(plan, config, templates=templates), Asking(plan, config, ways), plan, config, servers)
        except Unverified:
            warnings += _unsent(config, plan, ways, eos)
            raise
        config = config if kept else _with_stops(config, plan, ways)
        warnings += base.warnings(config, plan, ways, present)
        if choice == "chat":
            return _settled(config, plan, templates, eos, warnings, "", servers)
        if others := sorted(config.extra_body.keys() - SHARED_FIELDS):
            raise Unverified(f"extra-body sets {', '.join(others)}, which may concern chats alone")
        await _check_route(present, config.models[0].name)
    except Unverified as error:
        if choice == "completions":
            raise ConfigError(f"--api completions: {error}; --api chat asks without token ids") from None
        why = "" if choice == "chat" else str(error)
        return _settled(config, Plan(config, tasks), templates, eos, warnings, why, servers)
    return Settled(config.model_copy(update={"api": "completions"}), plan, Asking(plan, config, ways), eos, warnings)


def _settled(
    config: RunConfig,
    plan: Plan,
    templates: Mapping[str, str],
    eos: frozenset[int] | None,
    warnings: list[str],
    why: str,
    servers: Sequence[Presence],
) -> Settled:
    """A run that sends chats."""
    for server in servers:
        server.samples = ()
    warnings += [
        f"{model.name} brings a chat template along, which servers take with a chat only where they trust requests "
        "(vLLM: --trust-request-chat-template); --api completions needs no such trust"
        for model in config.models
        if model.chat_template is not None
    ]
    config = config.model_copy(update={"api": "chat"})
    return Settled(config, plan, Asking(plan, config, None, why, templates), eos, warnings)


class _Base:
    """The tokenizer of the models' base on this machine; whether it is the right one is seen later."""

    def __init__(self, folder: Path, templates: Mapping[str, str]) -> None:
        try:
            texts: dict[str | None, str | None] = {None: None, **templates}
            self._tokenizers = {digest: _tokenizer(folder, text) for digest, text in texts.items()}
        except ArcBenchError as error:
            raise Unverified(str(error)) from None

    def dated(self, config: RunConfig) -> RunConfig:
        """The configuration with today's date for models whose template asks for it."""
        today = datetime.now(UTC).date().isoformat()
        models = [
            model.model_copy(update={"template_date": today})
            if model.template_date is None and self._reads_clock(model.chat_template, _kwargs(model, config))
            else model
            for model in config.models
        ]
        return config.model_copy(update={"models": models})

    def ways(self, plan: Plan) -> dict[Asker, PromptTokenizer]:
        """What makes the token ids for each way to ask."""
        try:
            return {
                asker: PromptTokenizer(self._of(asker.template), asker.prompt, asker.encoder, settings=asker.settings)
                for asker in plan.askers.values()
            }
        except ArcBenchError as error:
            raise Unverified(str(error)) from None

    def warnings(
        self, config: RunConfig, plan: Plan, ways: Mapping[Asker, PromptTokenizer], servers: Sequence[Presence]
    ) -> list[str]:
        """What a user should know of the models' templates."""
        return []

    def _of(self, template: str | None) -> FileTokenizer:
        found = self._tokenizers.get(template)
        if found is None:
            raise Unverified("an adapter's chat template is not what it was when the run was begun")
        return found

    def _reads_clock(self, template: str | None, settings: TemplateSettings) -> bool:
        return reads_clock(self._of(template), settings.request_kwargs())
