"""From the plan's draws to requests: as chats, or as the token ids that a verified tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.client.request import Api, ChatRequest, Request, TokenRequest
from harness.prompts.prompt_template import Message
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.schema import RunConfig
from harness.sampling.plan import Plan, PromptFormat, Sample

LIST = 16
"""Prompts that share one request at most; of one test output, so that their answers are of about one length."""
_IN_TURN = 4
"""Requests that a server should have at least, so that it is not idle between two of them."""
_REMEMBERED = 256

Tokenizers = Mapping[PromptFormat, PromptTokenizer]


class RequestBuilder:
    """Builds the requests of a run. Models that are asked alike share their prompts.

    Args:
        tokenizers: makes the token ids for each way to ask; None sends chats.
        why_chats: why token ids are not sent, where they were wanted.
        templates: by digest, the chat templates that adapters bring along.
    """

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        tokenizers: Tokenizers | None = None,
        why_chats: str = "",
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.why_chats = why_chats
        self._plan = plan
        self._tokenizers = tokenizers
        self._greedy = config.temperature == 0
        self._most = min(LIST, config.n)
        self._limits = {model.name: model.max_tokens for model in config.models}
        self._stops = {model.name: tuple(model.stop_token_ids or ()) for model in config.models}
        self._templates = templates or {}
        self._chats: dict[tuple[int, PromptFormat], tuple[Message, ...]] = {}
        self._ids: dict[tuple[int, PromptFormat], list[int]] = {}

    @property
    def api(self) -> Api:
        """The route that the requests are for."""
        return "chat" if self._tokenizers is None else "completions"

    def size(self, max_in_flight: int) -> int:
        """How many predictions may share a request: several only as token ids and without seeds."""
        if self._tokenizers is None or not self._greedy:
            return 1
        return max(1, min(self._most, max_in_flight // _IN_TURN))

    def request(self, draws: Sequence[Sample]) -> Request:
        """The request for draws of one model: one draw, or several where ``size`` allows."""
        first = draws[0]
        limit = self._limits[first.model]
        seed = None if self._greedy else first.seed
        stops = self._stops[first.model]
        if self._tokenizers is None:
            template = self._template(self._plan.formats[first.model])
            return ChatRequest(first.model, self.messages(first), limit, seed, stops, template)
        return TokenRequest(first.model, tuple(map(self.ids, draws)), limit, seed, stops)

    def _template(self, asker: PromptFormat) -> dict[str, object]:
        """What a chat says about its template."""
        kwargs, text = asker.settings.request_kwargs(), self._templates.get(asker.template or "")
        fields: dict[str, object] = {"chat_template_kwargs": kwargs} if kwargs else {}
        return fields if text is None else {**fields, "chat_template": text}

    def messages(self, draw: Sample) -> tuple[Message, ...]:
        """The chat that asks for a draw."""
        asker = self._plan.formats[draw.model]
        if (found := self._chats.get((draw.place, asker))) is None:
            if len(self._chats) >= _REMEMBERED:
                self._chats.clear()
            found = self._chats[draw.place, asker] = asker.messages(draw)
        return found

    def ids(self, draw: Sample) -> list[int]:
        """The token ids that ask for a draw."""
        assert self._tokenizers is not None
        asker = self._plan.formats[draw.model]
        if (found := self._ids.get((draw.place, asker))) is None:
            if len(self._ids) >= _REMEMBERED:
                self._ids.clear()
            task = draw.augmentation.apply_task(draw.task)
            found = self._ids[draw.place, asker] = self._tokenizers[asker].prompt_ids(task, draw.test_index)
        return found
