"""Which API a run asks through: token ids where every server is seen to read chats as exactly those, else chats."""

from __future__ import annotations

from collections.abc import Sequence

from harness.asking import Asking
from harness.chattokenizer import FileTokenizer, tokenizer_folder
from harness.errors import ArcBenchError, ConfigError, ServerError
from harness.plan import Draw, Plan
from harness.presence import Presence
from harness.records import RunConfig
from harness.requests import ChatRequest, TokenRequest
from harness.settings import ApiChoice
from harness.tokens import PromptTokenizer

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


async def choose_api(choice: ApiChoice, plan: Plan, config: RunConfig, servers: Sequence[Presence]) -> Asking:
    """How a run asks; its ``api`` says which route. Those servers that are away are checked when they come.

    Raises:
        ConfigError: completions were asked for, and cannot be sent; the message says why.
    """
    if choice == "chat":
        return Asking(plan, config)
    try:
        return await _by_token_ids(plan, config, servers)
    except Unverified as error:
        for server in servers:
            server.samples = ()
        if choice == "completions":
            raise ConfigError(f"--api completions: {error}; --api chat asks without token ids") from None
        return Asking(plan, config, why_chats=str(error))


async def _by_token_ids(plan: Plan, config: RunConfig, servers: Sequence[Presence]) -> Asking:
    present = [server for server in servers if server.up.is_set()]
    if others := sorted(config.extra_body.keys() - SHARED_FIELDS):
        raise Unverified(f"extra-body sets {', '.join(others)}, which may concern chats alone")
    tokenizer = _tokenizer(present, config)
    try:
        ways = {asker: PromptTokenizer(tokenizer, asker.prompt, asker.encoder) for asker in plan.askers.values()}
    except ArcBenchError as error:
        raise Unverified(str(error)) from None
    chats, asking = Asking(plan, config), Asking(plan, config, ways)
    samples = [_sample(chats, asking, draw) for draw in _draws(plan, config)]
    for server in servers:
        server.samples = tuple(samples)
    for server in present:
        await _check(server, config.models[0].name)
    return asking


def _tokenizer(servers: Sequence[Presence], config: RunConfig) -> FileTokenizer:
    """The tokenizer of the models' base, if this machine has it; whether it is the right one is seen later."""
    roots = dict.fromkeys(root for server in servers for model in config.models if (root := _root(server, model.name)))
    folder = next((folder for root in roots if (folder := tokenizer_folder(root)) is not None), None)
    if folder is None:
        raise Unverified(f"the tokenizer of {' and '.join(roots) or 'the models'} is not on this machine")
    try:
        return FileTokenizer(folder, config.chat_template_kwargs)
    except ArcBenchError as error:
        raise Unverified(str(error)) from None


def _root(server: Presence, name: str) -> str | None:
    """The folder or hub id of a model's base, as the server names it."""
    model = server.served[name]
    base = model if model.parent is None else server.served.get(model.parent)
    return None if base is None else base.root


def _draws(plan: Plan, config: RunConfig) -> list[Draw]:
    """Some draws of each model, spread over the tasks."""
    places = range(0, plan.per_model, -(-plan.per_model // SAMPLES))
    return [plan.draw(i * plan.per_model + place) for i in range(len(config.models)) for place in places]


def _sample(chats: Asking, asking: Asking, draw: Draw) -> tuple[ChatRequest, list[int]]:
    chat = chats.request([draw])
    assert isinstance(chat, ChatRequest)
    return chat, asking.ids(draw)


async def _check(server: Presence, model: str) -> None:
    """The server reads chats as our ids, and answers ids."""
    try:
        await server.check_samples()
        await server.client.ask(TokenRequest(model, (server.samples[0][1][:1],), 1, None))
    except ServerError as error:
        raise Unverified(str(error)) from None
