"""Read the tokenizer files of the models' base on this machine: token ids, ends of answers, the chat template.

harness.sampling.requests.api_selection checks that the servers tokenize in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.client.pool.server_health import ServerHealth, TextSample
from harness.client.pool.trial_requests import NoSystemRole
from harness.client.protocol.request import ChatRequest
from harness.core.errors import ArcBenchError, ConfigError, ServerError
from harness.core.grid import Task
from harness.prompts.assistant_turn import AssistantTurn
from harness.prompts.chat_template import TemplateSettings, reads_clock, render_chat
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids, find_tokenizer_folder
from harness.prompts.prompt_tokenizer import PromptTokenizer, usable_prompt
from harness.runs.schemas.manifest_schema import ModelConfig, RunConfig, ServedModel
from harness.sampling.plan import Plan, PromptFormat, Sample
from harness.sampling.requests.request_builder import RequestBuilder

_OTHER_DATE = "1999-01-01"


class TokenIdsUnavailable(ServerError):
    """Prompts cannot be sent as token ids; the message says why."""


class LocalTokenizers:
    """The tokenizers of a run's models, made from the files of their base on this machine.

    There is one for the base's chat template and one for each template that an adapter brings along.

    Args:
        templates: chat templates of adapters, by digest.

    Attributes:
        servers: all servers of the run.
        present: those that are up.
        eos_ids: the end-of-sequence tokens that the base's files name.
        tokenizers: makes token ids for each prompt format; empty before ``load_formats``.

    Raises:
        TokenIdsUnavailable: this machine does not have the files.
    """

    def __init__(self, servers: Sequence[ServerHealth], config: RunConfig, templates: Mapping[str, str]) -> None:
        self.servers = tuple(servers)
        self.present = [server for server in servers if server.up.is_set()]
        self.tokenizers: dict[PromptFormat, PromptTokenizer] = {}
        self._folder = _find_folder(self.present, config)
        self._templates = templates
        self._by_template: dict[str | None, FileTokenizer] = {}
        try:
            self.eos_ids = eos_token_ids(self._folder)
        except ArcBenchError as error:
            raise TokenIdsUnavailable(str(error)) from None

    def with_template_dates(self, config: RunConfig, date: str | None = None) -> RunConfig:
        """Return the configuration with a date for each model whose chat template writes the current date.

        Every prompt of the run then has the same date, however long the run takes.

        Args:
            date: in ISO 8601; None for today's.
        """
        date = date or datetime.now(UTC).date().isoformat()

        def is_undated(model: ModelConfig) -> bool:
            kwargs = {**model.chat_template_kwargs, **config.chat_template_kwargs}
            return model.template_date is None and reads_clock(self._tokenizer(model.chat_template), kwargs)

        models = [
            model.model_copy(update={"template_date": date}) if is_undated(model) else model for model in config.models
        ]
        return config.model_copy(update={"models": models})

    def check_system_role(self, plan: Plan) -> None:
        """Make sure that the chat templates keep the system messages of the prompts.

        A prompt with which an adapter was trained is not checked: it is used as in training.

        Raises:
            NoSystemRole: a template rejects or drops one. TokenIdsUnavailable: a template cannot be rendered.
        """
        served = self.served()
        trained = {served[name].prompt for name in plan.formats}
        for format_, name in {format_: name for name, format_ in plan.formats.items()}.items():
            if format_.prompt.name in trained:
                continue
            tokenizer = self._tokenizer(format_.template)
            try:
                usable = usable_prompt(tokenizer, format_.prompt, format_.encoder, format_.settings)
            except ArcBenchError as error:
                raise TokenIdsUnavailable(str(error)) from None
            if usable.name != format_.prompt.name:
                raise NoSystemRole(f"the chat template of {name} takes or keeps no system message")

    def load_formats(self, plan: Plan) -> None:
        """Set ``tokenizers``.

        Raises:
            TokenIdsUnavailable: a chat template rejects a prompt, or the tokenizer does not preserve its text.
        """
        try:
            self.tokenizers = {
                format_: PromptTokenizer(
                    self._tokenizer(format_.template), format_.prompt, format_.encoder, settings=format_.settings
                )
                for format_ in plan.formats.values()
            }
        except ArcBenchError as error:
            raise TokenIdsUnavailable(str(error)) from None

    def with_stop_tokens(self, plan: Plan, config: RunConfig) -> RunConfig:
        """Return the configuration with the token that ends a turn, for each model that would not stop at it."""
        models = [
            model.model_copy(update={"stop_token_ids": [turn.end_token_id]})
            if (turn := self.unstopped_turn(plan, config, model)) is not None
            else model
            for model in config.models
        ]
        return config.model_copy(update={"models": models})

    def unstopped_turn(self, plan: Plan, config: RunConfig, model: ModelConfig) -> AssistantTurn | None:
        """Return the assistant turn of a model's template if neither eos nor the requests' stop tokens end it."""
        tokenizer = self.tokenizers.get(plan.formats[model.name])
        if tokenizer is None or model.stop_token_ids is not None or "stop_token_ids" in config.extra_body:
            return None
        turn = find_turn(tokenizer)
        return None if turn is None or turn.end_token_id in self.eos_ids else turn

    def tokenizer_sample(
        self, chats: RequestBuilder, sample: Sample, plan: Plan
    ) -> tuple[ChatRequest | TextSample, list[int]]:
        """Return a prompt for a server's /tokenize, and the ids that it must answer.

        Usually the prompt is a chat, which also checks the server's chat template. If no chat can lead to the ids (the
        adapter has a template of its own, or the template writes the server's date), it is the rendered text, which
        checks the tokenizer only.
        """
        format_ = plan.formats[sample.model]
        tokenizer = self.tokenizers[format_]
        task = sample.augmentation.apply_task(sample.task)
        ids = tokenizer.prompt_ids(task, sample.test_index)
        if format_.template is not None or not takes_date(tokenizer, sample.task):
            return TextSample(sample.model, tokenizer.prompt_text(task, sample.test_index)), ids
        chat = chats.build_request([sample])
        assert isinstance(chat, ChatRequest)
        return chat, ids

    def served(self) -> dict[str, ServedModel]:
        """Return the models of the servers that are up, by name."""
        return {name: model for server in self.present for name, model in server.served.items()}

    def _tokenizer(self, template: str | None) -> FileTokenizer:
        """Return the tokenizer with a chat template.

        Args:
            template: the digest of an adapter's template; None for the base's own.

        Raises:
            TokenIdsUnavailable: the files cannot be read, or no adapter has that template any more.
        """
        if template not in self._by_template:
            text = None if template is None else self._templates.get(template)
            if template is not None and text is None:
                raise TokenIdsUnavailable("an adapter's chat template is not what it was when the run was begun")
            try:
                self._by_template[template] = FileTokenizer(self._folder, template=text)
            except ArcBenchError as error:
                raise TokenIdsUnavailable(str(error)) from None
        return self._by_template[template]


def find_turn(tokenizer: PromptTokenizer) -> AssistantTurn | None:
    """Return the assistant turn of a chat template, None if the template does not show where it ends."""
    try:
        return tokenizer.turn
    except ConfigError:
        return None


def takes_date(tokenizer: PromptTokenizer, task: Task) -> bool:
    """Return whether a chat can tell the server's template which date to write.

    The prompt is rendered on another date with the variables that a request carries; the text must not change.
    """
    if tokenizer.settings.date is None:
        return True
    settings = TemplateSettings(tokenizer.settings.request_kwargs(), _OTHER_DATE)
    messages = tokenizer.prompt.messages(task, 0, tokenizer.encoder)
    text = render_chat(tokenizer.tokenizer, messages, settings, opened=True)
    return text == tokenizer.prompt_text(task, 0)


def _find_folder(servers: Sequence[ServerHealth], config: RunConfig) -> Path:
    """Return the folder with the tokenizer of the models' base.

    Raises:
        TokenIdsUnavailable: it is not on this machine.
    """
    roots = dict.fromkeys(
        root for server in servers for model in config.models if (root := _base_root(server, model.name))
    )
    folder = next((folder for root in roots if (folder := find_tokenizer_folder(root)) is not None), None)
    if folder is None:
        raise TokenIdsUnavailable(f"the tokenizer of {' and '.join(roots) or 'the models'} is not on this machine")
    return folder


def _base_root(server: ServerHealth, name: str) -> str | None:
    """Return the folder or hub id of a model's base as the server reports it, or None."""
    model = server.served[name]
    base = model if model.parent is None else server.served.get(model.parent)
    return None if base is None else base.root
