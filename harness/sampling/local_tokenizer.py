"""What the files of the models' base on this machine say: token ids, what ends an answer, what the template does.

Whether they are the files that the servers use is seen by asking these (harness.sampling.api_selection).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.client.request import ChatRequest
from harness.client.server_health import NoSystemRole, ServerHealth, TextSample
from harness.core.errors import ArcBenchError, ConfigError, ServerError
from harness.core.grid import Task
from harness.prompts.assistant_turn import AssistantTurn
from harness.prompts.chat_template import TemplateSettings, reads_clock, render_chat
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids, find_tokenizer_folder
from harness.prompts.prompt_tokenizer import PromptTokenizer, usable_prompt
from harness.runs.schema import ModelConfig, RunConfig
from harness.sampling.plan import Plan, PromptFormat, Sample
from harness.sampling.request_builder import RequestBuilder

_ANOTHER_DAY = "1999-01-01"


class TokenIdsUnavailable(ServerError):
    """Why token ids cannot be sent."""


class LocalTokenizers:
    """The tokenizer of the models' base on this machine; whether it is the right one is seen later.

    Args:
        templates: by digest, the chat templates that adapters bring along.

    Attributes:
        ways: what makes the token ids for each way to ask, once it is read.

    Raises:
        TokenIdsUnavailable: this machine does not have it.
    """

    def __init__(self, servers: Sequence[ServerHealth], config: RunConfig, templates: Mapping[str, str]) -> None:
        self.servers = tuple(servers)
        self.present = [server for server in servers if server.up.is_set()]
        self.folder = _folder(self.present, config)
        self.ways: dict[PromptFormat, PromptTokenizer] = {}
        self._templates = templates
        self._tokenizers: dict[str | None, FileTokenizer] = {}
        try:
            self.eos = eos_token_ids(self.folder)
        except ArcBenchError as error:
            raise TokenIdsUnavailable(str(error)) from None

    def dated(self, config: RunConfig) -> RunConfig:
        """The configuration with today's date for models whose template asks for it."""
        today = datetime.now(UTC).date().isoformat()
        models = [
            model.model_copy(update={"template_date": today})
            if model.template_date is None
            and reads_clock(
                self._tokenizer(model.chat_template), {**model.chat_template_kwargs, **config.chat_template_kwargs}
            )
            else model
            for model in config.models
        ]
        return config.model_copy(update={"models": models})

    def check_system(self, plan: Plan) -> None:
        """Make sure that the chat template keeps the system message of prompts that no adapter was trained with.

        Raises:
            NoSystemRole: it does not.
        """
        served = {name: model for server in self.present for name, model in server.served.items()}
        trained = {served[name].prompt for name in plan.formats}
        for asker, name in {asker: name for name, asker in plan.formats.items()}.items():
            if asker.prompt.name in trained:
                continue
            tokenizer = self._tokenizer(asker.template)
            try:
                usable = usable_prompt(tokenizer, asker.prompt, asker.encoder, asker.settings)
            except ArcBenchError as error:
                raise TokenIdsUnavailable(str(error)) from None
            if usable.name != asker.prompt.name:
                raise NoSystemRole(f"the chat template of {name} takes or keeps no system message")

    def read(self, plan: Plan) -> None:
        """Make what makes the token ids for each way to ask.

        Raises:
            TokenIdsUnavailable: a chat template does not take a prompt, or the tokenizer loses text.
        """
        try:
            self.ways = {
                asker: PromptTokenizer(
                    self._tokenizer(asker.template), asker.prompt, asker.encoder, settings=asker.settings
                )
                for asker in plan.formats.values()
            }
        except ArcBenchError as error:
            raise TokenIdsUnavailable(str(error)) from None

    def with_stops(self, plan: Plan, config: RunConfig) -> RunConfig:
        """The configuration with the end of the template's turn for models that would not stop there."""
        models = [
            model.model_copy(update={"stop_token_ids": [turn.end_token_id]})
            if (turn := self._unstopped(plan, config, model)) is not None
            else model
            for model in config.models
        ]
        return config.model_copy(update={"models": models})

    def warnings(self, plan: Plan, config: RunConfig, *, chats: bool) -> list[str]:
        """What a user should know of the models' chat templates, one line each."""
        lines = []
        served = {name: model for server in self.present for name, model in server.served.items()}
        for model in config.models:
            way = self.ways[plan.formats[model.name]]
            lines += _on_thoughts(model, self._turn(way), trained=served[model.name].prompt is not None)
            if model.template_date is None:
                continue
            if chats and not _takes_date(way, plan.sample(0).task):
                lines.append(
                    f"the chat template of {model.name} writes the server's own date and cannot be told another in a "
                    "chat: predictions of other days are asked with another prompt; --api completions fixes it"
                )
            elif served[model.name].template_date is None:
                lines.append(
                    f"the chat template of {model.name} writes the date: {model.template_date} throughout this run"
                )
        return lines

    def on_stops(self, plan: Plan, config: RunConfig) -> list[str]:
        """Where answers end otherwise than a server would end them by itself."""
        lines: dict[str, list[str]] = {}
        known = ", ".join(map(str, sorted(self.eos))) or "none"
        for model in config.models:
            turn = self._unstopped(plan, config, model)
            if turn is not None:
                line = (
                    f"an answer ends with {turn.answer_suffix.strip()!r} (token {turn.end_token_id}), which "
                    f"is not among the eos tokens of the model's own files ({known}), and servers are not asked to "
                    f"stop there: if answers are "
                    f"truncated, begin a run with --extra-body '{{\"stop_token_ids\": [{turn.end_token_id}]}}'"
                )
            elif ends := [id_ for id_ in model.stop_token_ids or () if id_ not in self.eos]:
                line = (
                    f"an answer ends with token {' or '.join(map(str, ends))}, which is not among the eos tokens of "
                    f"the model's own files ({known}): servers are asked to stop there (stop_token_ids)"
                )
            else:
                continue
            lines.setdefault(line, []).append(model.name)
        return [f"{', '.join(names)}: {line}" for line, names in lines.items()]

    def sample(
        self, chats: RequestBuilder, draw: Sample, asker: PromptFormat
    ) -> tuple[ChatRequest | TextSample, list[int]]:
        """A prompt as a server can be asked to read it, and its ids.

        A chat, which shows that the server has the same template; where none can be sent that reads as the ids, the
        text, which shows that it has the same tokenizer.
        """
        way = self.ways[asker]
        task = draw.augmentation.apply_task(draw.task)
        ids = way.prompt_ids(task, draw.test_index)
        if asker.template is not None or not _takes_date(way, draw.task):
            return TextSample(draw.model, way.prompt_text(task, draw.test_index)), ids
        chat = chats.request([draw])
        assert isinstance(chat, ChatRequest)
        return chat, ids

    def _tokenizer(self, template: str | None) -> FileTokenizer:
        if template not in self._tokenizers:
            text = None if template is None else self._templates.get(template)
            if template is not None and text is None:
                raise TokenIdsUnavailable("an adapter's chat template is not what it was when the run was begun")
            try:
                self._tokenizers[template] = FileTokenizer(self.folder, template=text)
            except ArcBenchError as error:
                raise TokenIdsUnavailable(str(error)) from None
        return self._tokenizers[template]

    def _unstopped(self, plan: Plan, config: RunConfig, model: ModelConfig) -> AssistantTurn | None:
        """The turn of a model's template, where its end is neither an eos token nor sent with requests."""
        way = self.ways.get(plan.formats[model.name])
        if way is None or model.stop_token_ids is not None or "stop_token_ids" in config.extra_body:
            return None
        turn = self._turn(way)
        return None if turn is None or turn.end_token_id in self.eos else turn

    def _turn(self, way: PromptTokenizer) -> AssistantTurn | None:
        try:
            return way.turn
        except ConfigError:  # It can be asked all the same.
            return None


def _on_thoughts(model: ModelConfig, turn: AssistantTurn | None, *, trained: bool) -> list[str]:
    """What a user should know where a template thinks; an adapter has learned to answer at once."""
    if turn is None or trained or not (turn.opens_thought or turn.learns_thought):
        return []
    how = "opens a thought (<think>) before every answer" if turn.opens_thought else "lets the model think (<think>)"
    return [
        f"the chat template of {model.name} {how}: what is not trained to answer at once needs more than the "
        f"{model.max_tokens} tokens of an answer (--max-tokens), or is told not to think where the template can "
        "(--chat-template-kwargs '{\"enable_thinking\": false}')"
    ]


def _takes_date(way: PromptTokenizer, task: Task) -> bool:
    """Whether a server can be told the date in a chat, so that its template writes the same as here."""
    if way.settings.date is None:
        return True
    told = TemplateSettings(way.settings.request_kwargs(), _ANOTHER_DAY)
    text = render_chat(way.tokenizer, way.prompt.messages(task, 0, way.encoder), told, opened=True)
    return text == way.prompt_text(task, 0)


def _folder(servers: Sequence[ServerHealth], config: RunConfig) -> Path:
    """Where the tokenizer of the models' base lies on this machine.

    Raises:
        TokenIdsUnavailable: nowhere.
    """
    roots = dict.fromkeys(root for server in servers for model in config.models if (root := _root(server, model.name)))
    folder = next((folder for root in roots if (folder := find_tokenizer_folder(root)) is not None), None)
    if folder is None:
        raise TokenIdsUnavailable(f"the tokenizer of {' and '.join(roots) or 'the models'} is not on this machine")
    return folder


def _root(server: ServerHealth, name: str) -> str | None:
    """The folder or hub id of a model's base, as the server names it."""
    model = server.served[name]
    base = model if model.parent is None else server.served.get(model.parent)
    return None if base is None else base.root
