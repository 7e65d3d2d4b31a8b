"""A small language model over the tokens of the tiny base, whose answers to ``/v1/completions`` have log-probabilities.

At every position it prefers the right answer's token and gives a few others a chance, drawn from a hash of the model's
name, the prompt and the answer so far. Every other token has a small probability.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from harness.prompts.file_tokenizer import FileTokenizer
from tests.support.servers.chat_answers import Body

_FLOOR = 1e-7
Choice = dict[str, object]


class LanguageModel:
    """Answers completions as vLLM does.

    Args:
        right: returns the right answer to a prompt's text.
        size: number of tokens in the vocabulary.
        max_logprobs: log-probabilities that a request may ask for at most.
        spoil: changes a choice before it is sent.
        doubt: share of the positions at which several tokens are likely.
    """

    def __init__(
        self,
        tokenizer: FileTokenizer,
        right: Callable[[str], str],
        *,
        size: int = 387,
        max_logprobs: int = 20,
        spoil: Callable[[Choice], Choice] = lambda choice: choice,
        doubt: float = 0.2,
    ) -> None:
        self.tokenizer, self.right, self.size, self.max_logprobs = tokenizer, right, size, max_logprobs
        self.spoil, self.doubt = spoil, doubt
        self.prompt_tokens_added = 0
        self._opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
        (self.end,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
        self._digits = [tokenizer.encode(str(digit), add_special_tokens=False)[0] for digit in range(10)]
        self.logprobs = lru_cache(1 << 15)(self._logprobs)
        self._right_ids = lru_cache(1024)(self._find_right_ids)

    def response(self, body: Body, name: str) -> Body:
        """Return the response to a completions request, or vLLM's error if it asks for too many log-probabilities."""
        count = body.get("logprobs") or 0
        if count > self.max_logprobs:
            text = f"Requested sample logprobs of {count}, which is greater than max allowed: {self.max_logprobs}"
            return {"error": {"message": text, "type": "BadRequestError", "param": None, "code": 400}}
        is_scoring = body.get("prompt_logprobs") is not None or body.get("echo", False)
        make = self._prompt_choice if is_scoring else self._choice
        choices = [{"index": index, **make(body, ids, count)} for index, ids in enumerate(body["prompt"])]
        sent = sum(map(len, body["prompt"])) + self.prompt_tokens_added
        return {"id": f"cmpl-{name}", "model": body["model"], "choices": choices, "usage": {"prompt_tokens": sent}}

    def _choice(self, body: Body, ids: list[int], count: int) -> Choice:
        """Return the greedy completion of a prompt."""
        stops = {self.end, *body.get("stop_token_ids", ())}
        answer, tokens, tops = self.split(ids)[1], [], []
        while len(tokens) < body["max_tokens"] and not (tokens and tokens[-1] in stops):
            ranked = self.ranked(body["model"], tuple(ids[: len(ids) - len(answer)]), (*answer, *tokens))
            tokens.append(ranked[0][0])
            tops.append({f"token_id:{token}": value for token, value in ranked[: max(count, 1)]})
        finish = "stop" if tokens and tokens[-1] in stops else "length"
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        logprobs = {
            "tokens": [f"token_id:{token}" for token in tokens],
            "token_logprobs": [next(iter(top.values())) for top in tops],
            "top_logprobs": tops,
        }
        return self.spoil({"text": text, "finish_reason": finish, "logprobs": logprobs})

    def _prompt_choice(self, body: Body, ids: list[int], count: int) -> Choice:
        """Return a choice with the log-probabilities of the prompt's tokens: -1 for those before the answer."""
        prompt, answer = self.split(ids)
        values = [-1.0] * len(prompt)
        values += [self.logprobs(body["model"], tuple(prompt), answer[:at])[token] for at, token in enumerate(answer)]
        if body.get("echo"):
            names = [f"token_id:{token}" for token in (*ids, self.end)]
            logprobs = {"tokens": names, "token_logprobs": [None, *values[1:], -0.5]}
            return self.spoil({"text": "", "finish_reason": "length", "logprobs": logprobs})
        rows = [{str(token): {"logprob": value}} for token, value in zip(ids, values, strict=True)]
        return self.spoil({"text": "", "finish_reason": "length", "prompt_logprobs": [None, *rows[1:]]})

    def score(self, model: str, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Return the log-probability of an answer."""
        tokens = tuple(answer)
        return math.fsum(self.logprobs(model, tuple(prompt), tokens[:at])[one] for at, one in enumerate(tokens))

    def scores(self, body: Body) -> Body:
        """Return the response of /arc/score."""
        rows = [
            [{"logprob": self.score(body["model"], i["prompt"], one), "n_tokens": len(one)} for one in i["answers"]]
            for i in body["prompts"]
        ]
        return {"model": body["model"], "scores": rows}

    def split(self, ids: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        """Return a prompt and the tokens of the answer that follow it."""
        width = len(self._opening)
        ends = (i for i in range(len(ids), width - 1, -1) if list(ids[i - width : i]) == self._opening)
        end = next(ends, len(ids))
        return list(ids[:end]), tuple(ids[end:])

    def ranked(self, model: str, prompt: tuple[int, ...], answer: tuple[int, ...]) -> list[tuple[int, float]]:
        """Return the tokens and their log-probabilities, likeliest first."""
        return sorted(self.logprobs(model, prompt, answer).items(), key=lambda item: (-item[1], item[0]))

    def _logprobs(self, model: str, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Mapping[int, float]:
        """Return the log-probability of every token of the vocabulary."""
        draw = random.Random(f"{model} {hash(prompt)} {answer}")
        right = self._right_ids(prompt)
        weights = [_FLOOR * (1 + token / self.size) for token in range(self.size)]
        weights[right[len(answer)] if len(answer) < len(right) else self.end] += 1.0
        if draw.random() < self.doubt:
            weights[draw.choice(self._digits)] += draw.uniform(0.02, 1.0)
            weights[self.end] += draw.choice((0.0, 0.0, 0.3))
        total = math.fsum(weights)
        return {token: math.log(weight / total) for token, weight in enumerate(weights)}

    def _find_right_ids(self, prompt: tuple[int, ...]) -> list[int]:
        """Return the tokens of the right answer to a prompt, with the end of the turn."""
        text = self.right(self.tokenizer.decode(list(prompt)))
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.end]


def brute_force(
    model: LanguageModel, name: str, prompt: tuple[int, ...], min_prob: float, limit: int, stops: frozenset[int]
) -> dict[tuple[int, ...], float]:
    """Return every answer of at most ``limit`` tokens, end included, with at least a probability: depth first."""
    answers: dict[tuple[int, ...], float] = {}
    open_prefixes: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    while open_prefixes:
        prefix, probability = open_prefixes.pop()
        if len(prefix) >= limit:
            continue
        logprobs = model.logprobs(name, prompt, prefix)
        end = probability * math.fsum(math.exp(logprobs[stop]) for stop in stops)
        if end >= min_prob:
            answers[prefix] = end
        for token, value in logprobs.items():
            if token not in stops and probability * math.exp(value) >= min_prob:
                open_prefixes.append(((*prefix, token), probability * math.exp(value)))
    return answers
