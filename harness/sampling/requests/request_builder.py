"""Build requests from samples: as chats, or as the token ids of a tokenizer that the servers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from harness.client.protocol.request import ChatRequest, Request, TokenRequest
from harness.core.errors import ConfigError
from harness.core.grid import Grid, Pair, Task
from harness.prompts.prompt_template import Message
from harness.prompts.prompt_tokenizer import PromptTokenizer
from harness.runs.schemas.manifest_schema import RunConfig
from harness.sampling.options.search_options import stop_ids
from harness.sampling.plan import Plan, PromptFormat, Sample

_MAX_PROMPTS = 16
"""Prompts that share one request at most; they are of one test output, so that their answers have similar lengths."""
_MIN_REQUESTS = 4
"""Requests that a server should have in flight at least, so that it is not idle between two of them."""
_CACHED_PROMPTS = 256
_PREFIX_TOKENS = 8
"""Tokens of a prompt that are decoded with an answer: some tokenizers write a text's first token differently."""

Key = tuple[int, PromptFormat]
Value = TypeVar("Value")


class RequestBuilder:
    """Builds the requests of a run. Prompts are cached, because models with the same format share them.

    Args:
        tokenizers: makes the token ids for each prompt format; None sends chats.
        why_chats: why token ids are not sent though the user wanted them.
        templates: chat templates of adapters, by digest.
        eos_ids: the end-of-sequence tokens of the models' base; sent as stop tokens if answers are enumerated.
    """

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        tokenizers: Mapping[PromptFormat, PromptTokenizer] | None = None,
        why_chats: str = "",
        templates: Mapping[str, str] | None = None,
        eos_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.why_chats = why_chats
        self._plan = plan
        self._tokenizers = tokenizers
        self._greedy = config.temperature == 0
        self._max_prompts = min(_MAX_PROMPTS, config.n)
        self._max_tokens = {model.name: model.max_tokens for model in config.models}
        self._top_logprobs = None if config.search is None else config.search.logprobs
        self._stop_ids = {
            model.name: tuple(model.stop_token_ids or ())
            if config.search is None
            else tuple(sorted(stop_ids(config, model, eos_ids)))
            for model in config.models
        }
        self._templates = templates or {}
        self._messages: dict[Key, tuple[Message, ...]] = {}
        self._ids: dict[Key, list[int]] = {}
        self._viewed: tuple[int, Task] | None = None
        """Number of the sample whose answers were built last, and its task under its view."""

    def prompts_per_request(self, max_in_flight: int) -> int:
        """Return how many predictions may share a request: 1, except for token ids at temperature 0."""
        if self._tokenizers is None or not self._greedy:
            return 1
        return max(1, min(self._max_prompts, max_in_flight // _MIN_REQUESTS))

    def build_request(self, samples: Sequence[Sample]) -> Request:
        """Return the request for samples of one model: one, or up to ``prompts_per_request``."""
        first = samples[0]
        limit, stop_ids = self._max_tokens[first.model], self._stop_ids[first.model]
        seed = None if self._greedy else first.seed
        if self._tokenizers is None:
            template = self._template_fields(self._plan.formats[first.model])
            return ChatRequest(first.model, self._prompt_messages(first), limit, seed, stop_ids, template)
        if self._top_logprobs is not None:
            return self.branch_request(first.model, list(map(self.prompt_ids, samples)), limit)
        return TokenRequest(first.model, tuple(map(self.prompt_ids, samples)), limit, seed, stop_ids)

    def branch_request(self, model: str, prompts: Sequence[list[int]], limit: int) -> TokenRequest:
        """Return the request for greedy completions with log-probabilities of the likeliest tokens.

        Args:
            prompts: prompts, each followed by the first tokens of an answer.
            limit: of each completion, in tokens.
        """
        return TokenRequest(model, tuple(prompts), limit, None, self._stop_ids[model], self._top_logprobs)

    def stop_ids(self, model: str) -> tuple[int, ...]:
        """Return the tokens at which requests ask the server to stop."""
        return self._stop_ids[model]

    def right_answer_tokens(self, sample: Sample) -> int | None:
        """Return the number of tokens of a sample's right answer and the end of its turn; None if it is not known."""
        output = sample.task.test[sample.test_index].output
        if output is None:
            return None
        try:
            return len(self.answer_ids(sample, output))
        except ConfigError:  # the chat template does not show how an answer ends
            return None

    def answer_ids(self, sample: Sample, grid: Grid) -> list[int]:
        """Return the token ids of the answer that is this grid under a sample's view, and of the end of its turn.

        Args:
            grid: in the task's own orientation and colours.

        Raises:
            ConfigError: the chat template does not show how an answer ends.
        """
        assert self._tokenizers is not None
        if self._viewed is None or self._viewed[0] != sample.number:
            self._viewed = sample.number, sample.augmentation.apply_task(sample.task)
        task = self._viewed[1]
        test = list(task.test)
        test[sample.test_index] = Pair(test[sample.test_index].input, sample.augmentation.apply(grid))
        task = replace(task, test=tuple(test))
        return self._tokenizers[self._plan.formats[sample.model]].answer_ids(task, sample.test_index)

    def answer_text(self, model: str, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Return the text of an answer's token ids as a server writes it, without special tokens."""
        assert self._tokenizers is not None
        tokenizer = self._tokenizers[self._plan.formats[model]].tokenizer

        def decode(ids: list[int]) -> str:
            return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

        end = list(prompt[-_PREFIX_TOKENS:])
        before, text = decode(end), decode([*end, *tokens])
        return text[len(before) :] if text.startswith(before) else decode(list(tokens))

    def _template_fields(self, format_: PromptFormat) -> dict[str, object]:
        """Return the fields of a chat's body about its template."""
        kwargs, text = format_.settings.request_kwargs(), self._templates.get(format_.template or "")
        fields: dict[str, object] = {"chat_template_kwargs": kwargs} if kwargs else {}
        return fields if text is None else {**fields, "chat_template": text}

    def _prompt_messages(self, sample: Sample) -> tuple[Message, ...]:
        """Return the chat messages of a sample's prompt."""
        format_ = self._plan.formats[sample.model]
        return _cached(self._messages, (sample.index_in_model, format_), lambda: format_.messages(sample))

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Return the token ids of a sample's prompt."""
        assert self._tokenizers is not None
        format_ = self._plan.formats[sample.model]
        tokenizer = self._tokenizers[format_]

        def tokenize() -> list[int]:
            return tokenizer.prompt_ids(sample.augmentation.apply_task(sample.task), sample.test_index)

        return _cached(self._ids, (sample.index_in_model, format_), tokenize)


def _cached(cache: dict[Key, Value], key: Key, compute: Callable[[], Value]) -> Value:
    """Return the cached value of a key, computing it if it is absent; a full cache is emptied."""
    if (value := cache.get(key)) is None:
        if len(cache) >= _CACHED_PROMPTS:
            cache.clear()
        value = cache[key] = compute()
    return value
