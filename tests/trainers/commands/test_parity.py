"""How a server's log-probabilities are compared with PEFT's in each dtype."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ServerError
from harness.prompts.training_sample import TrainingSample
from trainers.commands.log_odds import LogProbs, OddsDifferences, compare_odds
from trainers.commands.parity import Parity, _largest, _over_http, server_dtype

LEAST = 4 * 2.0**-8


def log_probabilities(logits: np.ndarray) -> LogProbs:
    """Return log-probabilities of the first of two classes whose logits differ by this, in two samples."""
    values = -np.logaddexp(0.0, -logits)
    return [list(values[:60]), list(values[60:])]


def random_logits(seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Return logits of an adapter that is sure of most tokens, and a random generator."""
    random = np.random.default_rng(seed)
    return random.normal(6, 4, 120), random


def compare_with_rounding(adapted: np.ndarray, served: np.ndarray, seed: int, *, control: float = 5) -> OddsDifferences:
    """Compare log-odds where rounding through PEFT is 0.1."""
    random = np.random.default_rng([seed, 1])
    rounded = adapted + random.normal(0, 0.1, adapted.size)
    return compare_odds(
        *map(log_probabilities, (adapted, served, rounded, adapted + random.normal(0, control, adapted.size))), LEAST
    )


@given(seed=st.integers(0, 10_000))
def test_rounding_passes_and_other_weights_fail(seed: int) -> None:
    adapted, random = random_logits(seed)
    assert compare_with_rounding(adapted, adapted, seed).within_bounds
    assert compare_with_rounding(adapted, adapted + random.normal(0, 0.04, 120), seed).within_bounds
    for distance in (0.4, 0.7, 5):
        assert not compare_with_rounding(adapted, adapted + random.normal(0, distance, 120), seed).within_bounds


@given(seed=st.integers(0, 10_000))
def test_a_large_difference_at_one_token_fails(seed: int) -> None:
    """The mean does not show it. At tokens of which the model is almost certain a difference would not matter."""
    adapted, random = random_logits(seed)
    at = int(np.argmin(np.abs(adapted)))
    served = adapted + random.normal(0, 0.02, 120)
    served[at] -= 3
    odds = compare_with_rounding(adapted, served, seed)
    assert odds.mean < odds.rounding
    assert not odds.within_bounds


def test_an_adapter_without_effect_does_not_pass() -> None:
    adapted, _ = random_logits(0)
    assert compare_with_rounding(adapted, adapted, 0, control=1).within_bounds
    assert not compare_with_rounding(adapted, adapted, 0, control=0.2).within_bounds


def test_a_model_without_rounding_is_allowed_the_least_rounding() -> None:
    adapted = log_probabilities(np.zeros(120))
    far = log_probabilities(np.full(120, 5.0))
    assert compare_odds(adapted, log_probabilities(np.full(120, LEAST / 2)), adapted, far, LEAST).within_bounds
    assert not compare_odds(adapted, log_probabilities(np.full(120, LEAST * 2.2)), adapted, far, LEAST).within_bounds


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails(bad: float) -> None:
    adapted, _ = random_logits(1)
    served = log_probabilities(adapted)
    served[1][3] = bad
    assert not compare_odds(
        log_probabilities(adapted), served, log_probabilities(adapted + 0.1), log_probabilities(adapted - 5), LEAST
    ).within_bounds


def test_a_difference_that_is_not_finite_fails() -> None:
    assert _largest([[-1.0, -2.0]], [[-1.5, -2.0]]) == 0.5
    for values in ([-1.0, math.nan], [math.nan, -1.0]):
        assert not Parity(2, _largest([values], [[-1.0, -1.0]]), 0.5).holds


def test_the_text_names_the_deciding_figures() -> None:
    exact = Parity(100, 1e-5, 0.5)
    assert exact.holds
    assert "server in float32: the server has the model" in exact.as_text()
    assert "largest difference 1.0e-05 (at most 0.001)" in exact.as_text()
    rounded = Parity(100, 0.4, 16.0, "bfloat16", OddsDifferences(0.04, 0.6, 0.1, 1.0, 6.0))
    assert rounded.holds
    assert "mean difference of log-odds 0.040 (at most 0.200), largest 0.60 (at most 3.00)" in rounded.as_text()
    assert "PARITY FAILED" in Parity(100, 0.4, 16.0, "bfloat16", OddsDifferences(0.21, 0.6, 0.1, 1.0, 6.0)).as_text()
    assert not Parity(100, 0.4, 16.0).holds


@contextmanager
def model_list_server(body: Any) -> Iterator[str]:
    """Serve one reply to /v1/models."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        thread.join()


@pytest.mark.parametrize(
    ("card", "dtype"),
    [
        ({"arc_bench": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"arc_bench": {"dtype": "float32"}}, "float32"),
        ({"arc_bench": {"dtype": "float8_e4m3fn"}}, None),
        ({"arc_bench": {"dtype": ["bfloat16"]}}, None),
        ({"arc_bench": {"hash": "of an older server"}}, None),
        ({"arc_bench": None}, None),
        ({}, None),
    ],
)
def test_the_dtype_is_the_one_that_the_server_reports(card: dict[str, Any], dtype: str | None) -> None:
    with model_list_server(
        {"data": [{"id": "base", "arc_bench": {"dtype": "float16"}}, {"id": "mine", **card}]}
    ) as url:
        assert server_dtype(url, "mine", None) == dtype


@pytest.mark.parametrize("body", [[], {}, {"data": 3}, {"data": [{"name": "no id"}]}, {"data": [{"id": "a"}, "b"]}])
def test_a_server_that_lists_nothing_is_one_clear_line(body: Any) -> None:
    with model_list_server(body) as url, pytest.raises(ServerError, match="does not list its models"):
        server_dtype(url, "mine", None)


def test_parity_bypasses_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"prompt_logprobs": [null, {"5": {"logprob": -0.5}}]}]}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert _over_http(f"http://127.0.0.1:{server.server_port}", "m", TrainingSample([4, 5], 1), None) == [-0.5]
        thread.join()
