"""How a server's log-probabilities are judged in each dtype, and where its dtype is read."""

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
from trainers.commands.log_odds import LogProbs, OddsDifferences, compare_odds
from trainers.commands.parity import Parity, server_dtype

SIZE = 4 * 2.0**-8


def logs(logits: np.ndarray) -> LogProbs:
    """Log-probabilities of the first of two classes, whose logits differ by this, in two samples."""
    values = -np.logaddexp(0.0, -logits)
    return [list(values[:60]), list(values[60:])]


def case(seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Logits of an adapter that is sure of most tokens, and of few it is not."""
    random = np.random.default_rng(seed)
    return random.normal(6, 4, 120), random


def judged(adapted: np.ndarray, served: np.ndarray, seed: int, *, control: float = 5) -> OddsDifferences:
    """With a rounding of 0.1 through PEFT."""
    random = np.random.default_rng([seed, 1])
    rounded = adapted + random.normal(0, 0.1, adapted.size)
    return compare_odds(*map(logs, (adapted, served, rounded, adapted + random.normal(0, control, adapted.size))), SIZE)


@given(seed=st.integers(0, 10_000))
def test_rounding_passes_and_other_weights_do_not(seed: int) -> None:
    adapted, random = case(seed)
    assert judged(adapted, adapted, seed).within_bounds
    assert judged(adapted, adapted + random.normal(0, 0.04, 120), seed).within_bounds
    for distance in (0.4, 0.7, 5):
        assert not judged(adapted, adapted + random.normal(0, distance, 120), seed).within_bounds


@given(seed=st.integers(0, 10_000))
def test_one_token_that_is_quite_another_fails(seed: int) -> None:
    """The mean would not show it; tokens of which the model is all but certain cannot be told, nor matter."""
    adapted, random = case(seed)
    at = int(np.argmin(np.abs(adapted)))
    served = adapted + random.normal(0, 0.02, 120)
    served[at] -= 3
    found = judged(adapted, served, seed)
    assert found.mean < found.rounding
    assert not found.within_bounds


def test_a_check_that_could_not_fail_does_not_pass_in_16_bits() -> None:
    adapted, _ = case(0)
    assert judged(adapted, adapted, 0, control=1).within_bounds
    assert not judged(adapted, adapted, 0, control=0.2).within_bounds


def test_a_model_without_rounding_is_granted_a_little() -> None:
    adapted = logs(np.zeros(120))
    far = logs(np.full(120, 5.0))
    assert compare_odds(adapted, logs(np.full(120, SIZE / 2)), adapted, far, SIZE).within_bounds
    assert not compare_odds(adapted, logs(np.full(120, SIZE * 2.2)), adapted, far, SIZE).within_bounds


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails(bad: float) -> None:
    adapted, _ = case(1)
    served = logs(adapted)
    served[1][3] = bad
    assert not compare_odds(logs(adapted), served, logs(adapted + 0.1), logs(adapted - 5), SIZE).within_bounds


def test_the_line_names_the_figures_that_decide() -> None:
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
def listing(body: Any) -> Iterator[str]:
    """A server whose /v1/models answers this."""

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
def test_the_dtype_is_what_the_server_says(card: dict[str, Any], dtype: str | None) -> None:
    with listing({"data": [{"id": "base", "arc_bench": {"dtype": "float16"}}, {"id": "mine", **card}]}) as url:
        assert server_dtype(url, "mine", None) == dtype


@pytest.mark.parametrize("body", [[], {}, {"data": 3}, {"data": [{"name": "no id"}]}, {"data": [{"id": "a"}, "b"]}])
def test_a_server_that_lists_nothing_is_one_clear_line(body: Any) -> None:
    with listing(body) as url, pytest.raises(ServerError, match="does not list its models"):
        server_dtype(url, "mine", None)
