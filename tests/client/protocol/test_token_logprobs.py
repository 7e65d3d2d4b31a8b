"""Log-probabilities of a completion are read as positions, and everything that makes them unusable is an error."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.candidates.enumeration import Position
from harness.client.protocol.token_logprobs import UnusableLogprobs, check_prompt_tokens, read_positions

STOPS = frozenset((0,))


def choice(*positions: tuple[int, dict[int, float | None]]) -> dict[str, Any]:
    """Return a choice with a token and log-probabilities at each position."""
    return {
        "logprobs": {
            "tokens": [f"token_id:{token}" for token, _ in positions],
            "top_logprobs": [{f"token_id:{t}": value for t, value in tops.items()} for _, tops in positions],
        }
    }


def logs(**probabilities: float) -> dict[int, float | None]:
    """Return log-probabilities by token, given as t3=0.5."""
    return {int(name[1:]): math.log(value) for name, value in probabilities.items()}


def test_positions_are_read() -> None:
    data = choice((3, logs(t3=0.6, t4=0.4)), (0, logs(t0=0.9, t5=0.1)))
    assert read_positions(data, [7], 2, STOPS, truncated=False) == (
        Position(3, {3: math.log(0.6), 4: math.log(0.4)}),
        Position(0, {0: math.log(0.9), 5: math.log(0.1)}),
    )
    assert read_positions(choice(), [7], 2, STOPS, truncated=True) == ()


@given(values=st.lists(st.floats(-30, 0), min_size=2, max_size=12))
def test_what_a_softmax_gives_is_accepted(values: list[float]) -> None:
    total = math.log(math.fsum(map(math.exp, values)))
    tops: dict[int, float | None] = {token + 1: value - total for token, value in enumerate(values)}
    best = max(tops, key=lambda token: tops[token] or 0.0)
    (position,) = read_positions(choice((best, tops)), [7], len(values), STOPS, truncated=True)
    assert position.logprobs == {token: min(value or 0.0, 0.0) for token, value in tops.items()}


@pytest.mark.parametrize(
    ("data", "finish", "message"),
    [
        ({}, "stop", "gives no log-probabilities of the 2 likeliest"),
        ({"logprobs": {"tokens": [], "top_logprobs": None}}, "stop", "gives no log-probabilities"),
        ({"logprobs": {"tokens": ["token_id:3"], "top_logprobs": []}}, "stop", "1 tokens with log-probabilities of 0"),
        ({"logprobs": {"tokens": ["token_id:3"], "top_logprobs": [None]}}, "stop", "a position with token"),
        ({"logprobs": {"tokens": ["token_id:-3"], "top_logprobs": [{}]}}, "stop", "by its text instead of its id"),
        (choice((3, logs(t3=0.9))), "length", "gives 1 log-probabilities for each token instead of 2"),
        (choice((3, logs(t4=0.9, t5=0.1))), "length", "chose token_id:3, which is not among the 2 likeliest"),
        (choice((3, logs(t3=0.9, t4=0.2))), "length", "add up to more than 1"),
        (choice((3, logs(t3=0.3, t4=0.5))), "length", "did not choose the likeliest token"),
        (choice((3, {3: -0.1, 4: math.nan})), "length", "log-probability of token_id:4 is nan, not a number"),
        (choice((3, {3: -0.1, 4: 0.2})), "length", "log-probability of token_id:4 is 0.2, above 0"),
        (choice((3, {3: None, 4: -0.1})), "length", "did not choose the likeliest token"),
        (choice((3, {3: 0.0, 4: -9999.0}), (0, {0: 0.0, 4: None})), "stop", "after temperature 0"),
        (choice((0, logs(t0=0.9, t4=0.1)), (3, logs(t3=0.9, t4=0.1))), "length", "continued after token 0"),
        (choice((3, logs(t3=0.9, t4=0.1))), "stop", "ended an answer at token 3, which is not among .*0"),
        ({**choice((0, logs(t0=0.9, t4=0.1))), "prompt_token_ids": [7, 8]}, "stop", "read other prompt tokens"),
    ],
)
def test_unusable_log_probabilities_are_an_error(data: dict[str, Any], finish: str, message: str) -> None:
    with pytest.raises(UnusableLogprobs, match=message):
        read_positions(data, [7], 2, STOPS, truncated=finish == "length")


def test_a_certain_model_is_not_taken_for_processed_log_probabilities() -> None:
    data = choice((3, {3: 0.0, 4: -18.5}), (0, {0: 0.0, 4: -9999.0}))
    assert len(read_positions(data, [7], 2, STOPS, truncated=False)) == 2


def test_another_number_of_prompt_tokens_is_an_error() -> None:
    check_prompt_tokens({"usage": {"prompt_tokens": 3}}, [[1], [2, 3]])
    check_prompt_tokens({"usage": None}, [[1], [2, 3]])
    with pytest.raises(UnusableLogprobs, match="read 4 prompt tokens where 3 were sent"):
        check_prompt_tokens({"usage": {"prompt_tokens": 4}}, [[1], [2, 3]])
