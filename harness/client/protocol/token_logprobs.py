"""Read and check the log-probabilities of the likeliest tokens at every position of a completion.

Enumeration (harness.candidates.enumeration) is exact only with raw log-probabilities of temperature 1 that belong to
known token ids. A response that shows anything else is an error: later stages could not detect it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from harness.candidates.enumeration import Position
from harness.client.protocol.error_response import TransientError, shorten

_TOLERANCE = 1e-3
"""How far above 1 probabilities may add up, and how far below the likeliest token the chosen one may be."""
_ID_PREFIX = "token_id:"
"""How vLLM writes token ids with ``return_tokens_as_token_ids``."""
_IMPOSSIBLE = -1000.0
"""Log-probabilities below it stand for minus infinity, which JSON lacks (vLLM: -9999)."""


class UnusableLogprobs(TransientError):
    """A response has no log-probabilities with which answers can be enumerated; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__("garbage", f"answers cannot be enumerated: {reason}")


def check_prompt_tokens(data: Mapping[str, Any], prompts: Sequence[Sequence[int]]) -> None:
    """Check that a response reports as many prompt tokens as were sent, if it reports any.

    Raises:
        UnusableLogprobs: the server added or removed tokens.
    """
    usage, sent = data.get("usage"), sum(map(len, prompts))
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(count) is int and count != sent:
        raise UnusableLogprobs(f"the server read {count} prompt tokens where {sent} were sent")


def read_positions(
    choice: Mapping[str, Any], prompt: Sequence[int], count: int, stop_ids: frozenset[int], *, truncated: bool
) -> tuple[Position, ...]:
    """Return the generated positions of one choice of a completion.

    Args:
        prompt: the token ids of its prompt.
        count: log-probabilities requested for each position.
        stop_ids: tokens at which the server must stop.
        truncated: the answer reached its limit on tokens.

    Raises:
        UnusableLogprobs: there are fewer log-probabilities, other tokens than ids, values that are no log-probabilities
            of temperature 1, or an answer that does not end where its turn ends.
    """
    echoed = choice.get("prompt_token_ids")
    if isinstance(echoed, list) and echoed != list(prompt):
        raise UnusableLogprobs("the server read other prompt tokens than were sent")
    data = choice.get("logprobs")
    tokens, tops = (data.get("tokens"), data.get("top_logprobs")) if isinstance(data, dict) else (None, None)
    if not isinstance(tokens, list) or not isinstance(tops, list):
        raise UnusableLogprobs(f"the server gives no log-probabilities of the {count} likeliest tokens")
    if len(tokens) != len(tops):
        raise UnusableLogprobs(f"{len(tokens)} tokens with log-probabilities of {len(tops)}")
    positions = tuple(_read_position(token, top, count) for token, top in zip(tokens, tops, strict=True))
    _check_raw(positions)
    _check_end(positions, stop_ids, truncated=truncated)
    return positions


def _read_position(token: object, top: object, count: int) -> Position:
    """Return one position, after checking its token and the log-probabilities."""
    if not isinstance(token, str) or not isinstance(top, dict):
        raise UnusableLogprobs(f"a position with token {token!r} and log-probabilities {shorten(str(top))}")
    chosen = _token_id(token)
    logprobs = {_token_id(name): _checked(value, name) for name, value in top.items()}
    if len(logprobs) < count:
        raise UnusableLogprobs(f"the server gives {len(logprobs)} log-probabilities for each token instead of {count}")
    if chosen not in logprobs:
        raise UnusableLogprobs(f"the server chose {token}, which is not among the {count} likeliest tokens")
    if math.fsum(map(math.exp, logprobs.values())) > 1 + _TOLERANCE:
        raise UnusableLogprobs(
            "the probabilities of the tokens at a position add up to more than 1: the server gives processed ones "
            "(vLLM: start it with --logprobs-mode raw_logprobs)"
        )
    if logprobs[chosen] < max(logprobs.values()) - _TOLERANCE:
        raise UnusableLogprobs(
            "the server did not choose the likeliest token at temperature 0: something changes its probabilities, such "
            "as a penalty or a logits processor"
        )
    return Position(chosen, logprobs)


@lru_cache(1 << 16)
def _token_id(name: str) -> int:
    """Return the id in a name such as ``token_id:12``."""
    if name.startswith(_ID_PREFIX) and (digits := name[len(_ID_PREFIX) :]).isascii() and digits.isdecimal():
        return int(digits)
    raise UnusableLogprobs(
        f"the server names the token {shorten(name)!r} by its text instead of its id (return_tokens_as_token_ids)"
    )


def _checked(value: object, name: str) -> float:
    """Return a log-probability, at most 0; null stands for minus infinity."""
    number = -math.inf if value is None else value
    if not isinstance(number, int | float) or isinstance(number, bool) or math.isnan(number):
        raise UnusableLogprobs(f"the log-probability of {name} is {shorten(str(value))}, not a number")
    if number > _TOLERANCE:
        raise UnusableLogprobs(f"the log-probability of {name} is {number:g}, above 0")
    return min(float(number), 0.0)


def _check_raw(positions: Sequence[Position]) -> None:
    """Check that the log-probabilities were not taken after temperature 0, where one token has probability 1."""
    if positions and all(_is_certain(position) for position in positions):
        raise UnusableLogprobs(
            "every token has probability 1: the server gives log-probabilities after temperature 0 (vLLM: start it "
            "with --logprobs-mode raw_logprobs)"
        )


def _is_certain(position: Position) -> bool:
    """Return whether the chosen token has probability 1 and every other token of several has 0."""
    others = [value for token, value in position.logprobs.items() if token != position.token]
    return bool(others) and position.logprobs[position.token] == 0.0 and max(others) < _IMPOSSIBLE


def _check_end(positions: Sequence[Position], stop_ids: frozenset[int], *, truncated: bool) -> None:
    """Check that an answer ends with a stop token, unless it was truncated, and has no other one."""
    ends = [index for index, position in enumerate(positions) if position.token in stop_ids]
    if ends and ends[0] < len(positions) - 1:
        raise UnusableLogprobs(f"the server continued after token {positions[ends[0]].token}, which ends a turn")
    if not truncated and not ends:
        last = f"token {positions[-1].token}" if positions else "no token"
        raise UnusableLogprobs(
            f"the server ended an answer at {last}, which is not among the tokens that end a turn "
            f"({', '.join(map(str, sorted(stop_ids)))})"
        )
