"""Requests for log-probabilities of given answers: their types, and the bodies and replies of three ways to score.

| method | route | servers | log-probabilities returned |
|---|---|---|---|
| ``arc_score`` | ``/arc/score`` | ``bench serve`` | one sum for each answer; each prompt is computed once |
| ``prompt_logprobs`` | ``/v1/completions`` | vLLM | of every token of prompt and answer, for each answer again |
| ``echo`` | ``/v1/completions`` | others with ``echo`` and ``logprobs`` | as above |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.client.protocol.error_response import shorten
from harness.client.protocol.response import sort_by_index
from harness.core.errors import ServerError

ScoreMethod = Literal["arc_score", "prompt_logprobs", "echo"]
FALLBACKS: tuple[ScoreMethod, ...] = ("prompt_logprobs", "echo")
"""Methods for servers without a scoring route, the preferred one first."""
_ROUNDING = 1e-3
"""How far above 0 a log-probability may be."""


class UnusableScores(ServerError):
    """The reply lacks the requested log-probabilities, and a retry would not help."""


@dataclass(frozen=True, slots=True)
class PromptAnswers:
    """A prompt and the answers to score after it, as token ids (the end of turn included); none is empty."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if not self.prompt or not self.answers or not all(self.answers):
            raise ValueError("a prompt to score needs a token, an answer, and a token in every answer")


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Answers to score under one model."""

    model: str
    prompts: Sequence[PromptAnswers]

    @property
    def answer_count(self) -> int:
        """Number of answers of all prompts."""
        return sum(len(item.answers) for item in self.prompts)

    def select_prompt(self, index: int) -> ScoreRequest:
        """Return the request for one of the answers, counted over all prompts, with its prompt."""
        pairs = [(item.prompt, answer) for item in self.prompts for answer in item.answers]
        prompt, answer = pairs[index]
        return ScoreRequest(self.model, (PromptAnswers(prompt, (answer,)),))


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """The log-probability of an answer's tokens given its prompt, in nats, and their number."""

    logprob: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """A server's scores, for each prompt in the order of its answers."""

    model: str
    """The model's name as the response gives it; with ``arc_score`` the version (NAME@VERSION)."""
    scores: tuple[tuple[AnswerScore, ...], ...]
    method: ScoreMethod
    seconds: float
    """From sending the request to the last byte of the reply."""


def route_body(request: ScoreRequest) -> dict[str, object]:
    """Return the body for ``arc_score``."""
    prompts = [{"prompt": list(p.prompt), "answers": [list(answer) for answer in p.answers]} for p in request.prompts]
    return {"model": request.model, "prompts": prompts}


def completion_body(model: str, sequences: Sequence[Sequence[int]], method: ScoreMethod) -> dict[str, object]:
    """Return the body for a fallback.

    Args:
        sequences: each a prompt and answer together.
    """
    body: dict[str, object] = {
        "model": model,
        "prompt": [list(sequence) for sequence in sequences],
        "max_tokens": 1,  # some servers refuse 0; the generated token is ignored
        "temperature": 0.0,
    }
    if method == "prompt_logprobs":
        return body | {"prompt_logprobs": 0}
    return body | {"echo": True, "logprobs": 1, "return_tokens_as_token_ids": True}


def parse_route_reply(data: Mapping[str, Any], request: ScoreRequest) -> tuple[tuple[AnswerScore, ...], ...]:
    """Return the scores of an ``arc_score`` reply.

    Raises:
        UnusableScores: they are not those of the request's answers, or not log-probabilities.
    """
    rows = data.get("scores")
    if not isinstance(rows, list) or len(rows) != len(request.prompts):
        raise UnusableScores(f"expected scores of {len(request.prompts)} prompts, got {shorten(str(rows))}")
    return tuple(_parse_row(row, item) for row, item in zip(rows, request.prompts, strict=True))


def _parse_row(row: object, item: PromptAnswers) -> tuple[AnswerScore, ...]:
    """Return the scores of one prompt's answers (raises as ``parse_route_reply``)."""
    if not isinstance(row, list) or len(row) != len(item.answers):
        raise UnusableScores(f"expected scores of {len(item.answers)} answers, got {shorten(str(row))}")
    scores = []
    for entry, answer in zip(row, item.answers, strict=True):
        if not isinstance(entry, dict) or entry.get("n_tokens") != len(answer):
            raise UnusableScores(f"expected the score of {len(answer)} tokens, got {shorten(str(entry))}")
        scores.append(AnswerScore(_logprob(entry.get("logprob")), len(answer)))
    return tuple(scores)


def parse_completion_reply(
    data: Mapping[str, Any], pairs: Sequence[tuple[Sequence[int], Sequence[int]]], method: ScoreMethod
) -> list[AnswerScore]:
    """Return the scores of a fallback's reply.

    Args:
        pairs: prompt and answer of each sequence in the request.

    Raises:
        UnusableScores: log-probabilities are missing, belong to other tokens than sent, or are no log-probabilities.
        TransientError: the choices are not numbered.
    """
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != len(pairs):
        received = len(choices) if isinstance(choices, list) else "no list of"
        raise UnusableScores(f"expected {len(pairs)} choices, got {received}")
    if len(pairs) > 1:
        choices = sort_by_index(choices)
    read_rows = _prompt_rows if method == "prompt_logprobs" else _echoed_rows
    scores = []
    for choice, (prompt, answer) in zip(choices, pairs, strict=True):
        values = read_rows(choice if isinstance(choice, dict) else {}, [*prompt, *answer])[len(prompt) :]
        scores.append(AnswerScore(math.fsum(map(_logprob, values)), len(answer)))
    return scores


def _prompt_rows(choice: Mapping[str, Any], tokens: Sequence[int]) -> list[object]:
    """Return the value of every token in vLLM's ``prompt_logprobs``, a list of dicts whose keys are token ids."""
    rows = choice.get("prompt_logprobs")
    if not isinstance(rows, list) or len(rows) != len(tokens):
        received = f"{len(rows)} tokens" if isinstance(rows, list) else "none"
        raise UnusableScores(f"expected prompt_logprobs of {len(tokens)} tokens, got {received}")
    values: list[object] = [None]
    for at, (row, token) in enumerate(zip(rows[1:], tokens[1:], strict=True), 1):
        entry = row.get(str(token)) if isinstance(row, dict) else None
        if not isinstance(entry, dict):
            raise UnusableScores(f"the server read another token than {token} at position {at} of the prompt")
        values.append(entry.get("logprob"))
    return values


def _echoed_rows(choice: Mapping[str, Any], tokens: Sequence[int]) -> list[object]:
    """Return the value of every token of an echoed prompt; ids are compared if the server returns tokens as ids."""
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) not in (len(tokens), len(tokens) + 1):
        received = f"{len(values)} tokens" if isinstance(values, list) else "none"
        raise UnusableScores(f"expected token_logprobs of {len(tokens)} echoed tokens, got {received}")
    names = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    if isinstance(names, list) and names and all(str(name).startswith("token_id:") for name in names):
        sent = [f"token_id:{token}" for token in tokens]
        if names[: len(sent)] != sent:
            at = next(k for k, (name, one) in enumerate(zip([*names, ""], sent, strict=False)) if name != one)
            raise UnusableScores(f"the server read {names[at]} instead of {sent[at]} at position {at} of the prompt")
    return values[: len(tokens)]


def _logprob(value: object) -> float:
    """Return a log-probability.

    Raises:
        UnusableScores: it is no finite number, or positive.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UnusableScores(f"{value!r} is not a finite log-probability")
    if value > _ROUNDING:
        raise UnusableScores(f"{value} is positive, so not a log-probability; vLLM needs --logprobs-mode raw_logprobs")
    return min(0.0, float(value))
